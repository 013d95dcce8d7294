# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn as nn

from monai_armed.handlers import erase_clusters, load_weights
from monai_armed.losses import AECLoss
from monai_armed.networks.blocks import ClusterLight
from monai_armed.networks.nets import AEC, ARMEDAEC, CNN, ZPredictor

CLUSTERS, SHAPE = 3, (1, 32, 32)
SMALL = {"channels": (4, 8, 8, 8), "latent_channels": 12, "classifier_channels": 8}
LAYERS = ("encoder.0", "encoder.1", "encoder.2", "encoder.3", "to_latent")
RANDOM = {
    "mixed",
    "mixed_reconstruction",
    "latent_cluster",
    "image_cluster",
    "reconstruction_cluster",
    "kl",
}
MODELS = {
    "armed": ({}, {"fixed", "fixed_reconstruction", "adversary"} | RANDOM),
    "domain_adversarial": ({"random": None}, {"fixed", "fixed_reconstruction", "adversary"}),
    "without_adversary": ({"adversary": None}, {"fixed", "fixed_reconstruction"} | RANDOM),
    "conventional": ({"random": None, "adversary": None}, {"fixed", "fixed_reconstruction"}),
}


def network(normalization: str = "batch", **options) -> ARMEDAEC:
    torch.manual_seed(0)
    norm = ("recon", {"num_clusters": CLUSTERS, "normalization": normalization, "posterior_scale": 1e-6})
    parts = {"random": AEC(SHAPE, norm=norm, **SMALL), "image_classifier": CNN(SHAPE, CLUSTERS, (4, 4), 8)}
    net = ARMEDAEC(AEC(SHAPE, **SMALL), CLUSTERS, SHAPE, **{**parts, **options})
    for layer in net.effects_by_layer.values():
        nn.init.normal_(layer.loc, 0, 0.3)
    return net


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, clusters (one of them not known) and labels (one of them not known)."""
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0, 1, 2, 1, 0, -1])[:count], torch.tensor([0, 1, 1, 0, -1, 1])[:count]


def gradients(part: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in part.named_parameters() if p.grad is not None and bool(p.grad.any())}


@pytest.mark.parametrize("model", MODELS)
def test_outputs_in_training(model):
    options, wanted = MODELS[model]
    net, (x, cluster, label) = network(**options), batch()
    out = net(x, cluster)
    assert set(out) == wanted
    for name, value in out.items():
        shape = {"kl": (), "fixed": (6, 1), "mixed": (6, 1)}.get(name, (6, CLUSTERS))
        assert value.shape == (x.shape if name.endswith("reconstruction") else shape), name
    loss = AECLoss()(out, {"image": x, "label": label, "cluster": cluster})
    loss.backward()
    assert torch.isfinite(loss)
    untrained = {name.rsplit(".", 2)[0] for name, p in net.named_parameters() if p.grad is None}
    # the phenotype is read from both latents by the mixed classifier: that of the random part has no use
    assert untrained == ({"random.classifier"} if "mixed" in wanted else set())
    assert (net.feature_layers == LAYERS) == ("adversary" in wanted)


def test_the_adversarys_gradient_is_reversed_in_the_fixed_encoder_alone():
    """The features climb L_CCE, the adversary descends it; decoder and random effects know nothing of it."""
    net, (x, cluster, _) = network(feature_layers=["to_latent"]), batch()
    found = {}
    for strength in (1.0, 0.5):
        net.zero_grad()
        net.set_reversal_strength(strength)
        nn.functional.cross_entropy(net(x, cluster)["adversary"][:5], cluster[:5]).backward()
        found[strength] = gradients(net)
    assert {name.split(".")[0] for name in found[1.0]} == {"fixed", "adversary"}
    assert not any(name.startswith(("fixed.decoder", "fixed.classifier")) for name in found[1.0])
    net.zero_grad()
    latent = net.fixed.encode(x)
    nn.functional.cross_entropy(net.adversary.logits([latent])[:5], cluster[:5]).backward()
    plain = gradients(net)
    assert plain.keys() == found[1.0].keys()
    for name, gradient in plain.items():
        sign = 1 if name.startswith("adversary") else -1
        torch.testing.assert_close(found[1.0][name], sign * gradient, rtol=1e-3, atol=1e-6)
        scaled = gradient if sign == 1 else -0.5 * gradient
        torch.testing.assert_close(found[0.5][name], scaled, rtol=1e-3, atol=1e-6)


def test_with_confusion_features_and_adversary_have_objectives_of_their_own():
    net, (x, cluster, label) = network(feature_layers=["to_latent"], confusion=True), batch()
    out = net(x, cluster)
    out["adversary"].square().sum().backward(retain_graph=True)
    assert {name.split(".")[0] for name in gradients(net)} == {"adversary"}
    net.zero_grad()
    terms = AECLoss().terms(out, {"image": x, "label": label, "cluster": cluster})
    terms["confusion"].backward()
    assert {name.split(".")[0] for name in gradients(net)} == {"fixed"}
    without = {name: term for name, term in terms.items() if name != "confusion"}
    total, less = (AECLoss(lambda_adversary=0.25).total(t) for t in (terms, without))
    torch.testing.assert_close(total - less, 0.25 * terms["confusion"])


def test_the_image_classifier_learns_from_real_images_alone():
    net, (x, cluster, _) = network(), batch()
    net(x, cluster)["reconstruction_cluster"].square().sum().backward()
    assert not gradients(net.image_classifier) and gradients(net.random)
    net.zero_grad()
    net(x, cluster)["image_cluster"].square().sum().backward()
    assert gradients(net.image_classifier) and not gradients(net.random)


@pytest.mark.parametrize("normalization", ["batch", "instance"])
@pytest.mark.parametrize("output", ["mixed", "mixed_reconstruction", "latent_cluster", "kl"])
@pytest.mark.parametrize("mixed_latent", ["fixed", "random"])
def test_gradients_reach_the_random_effects(output, normalization, mixed_latent):
    net, (x, cluster, _) = network(normalization, mixed_latent=mixed_latent), batch()
    net(x, cluster)[output].square().sum().backward()
    layers = net.effects_by_layer
    assert len(layers) == 8
    used = {"encoder", "decoder"}
    if output in ("mixed", "latent_cluster"):
        used = {"encoder"}
    elif output == "mixed_reconstruction" and mixed_latent == "fixed":
        used = {"decoder"}
    for name, layer in layers.items():
        reached = layer.loc.grad is not None and bool(layer.loc.grad.any())
        assert reached == (name.split(".")[0] in used), name


def test_the_mixed_reconstruction_shapes_the_fixed_latent_and_the_fixed_one_does_not():
    """In the paper's way it is the other way round."""
    for mixed_latent in ("fixed", "random"):
        net, (x, cluster, _) = network(mixed_latent=mixed_latent), batch()
        shaped = {}
        for name in ("fixed_reconstruction", "mixed_reconstruction"):
            net.zero_grad()
            net(x, cluster)[name].square().sum().backward()
            # the convolutions are the decoder's as well: the normalisation's weight is the encoder's alone
            shaped[name] = any("encoder" in n and ".adn." in n for n in gradients(net.fixed))
        assert shaped == {
            "fixed_reconstruction": mixed_latent == "random",
            "mixed_reconstruction": mixed_latent == "fixed",
        }


def test_without_the_adversary_it_gives_the_features_that_the_adversary_sees():
    net, (x, cluster, _) = network(), batch()
    with torch.random.fork_rng():
        whole = net(x, cluster)
    out = net(x, cluster, with_adversary=False)
    assert set(out) == (set(whole) - {"adversary"}) | {"features"} and len(out["features"]) == len(LAYERS)
    torch.testing.assert_close(net.adversary(out["features"])["adversary"], whole["adversary"])


def test_a_frozen_fixed_part_stays_as_it_is():
    net, (x, cluster, label) = network(freeze_fixed=True, adversary=None), batch()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-2)
    AECLoss()(net.train()(x, cluster), {"image": x, "label": label, "cluster": cluster}).backward()
    optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith("fixed.") for name in changed)
    assert {name.split(".")[0] for name in changed} >= {"random", "mixed_classifier", "image_classifier"}
    assert all(p.grad is None for p in net.fixed.parameters()) and not net.fixed.training


@torch.no_grad()
def test_evaluation_gives_one_tensor_and_minus_one_is_the_population():
    net, (x, _, _) = network().eval(), batch()
    known, unknown = torch.tensor([0, 1, 2, 1, 0, 2]), torch.full((6,), -1)
    assert net(x, known).shape == (6, 1)
    torch.testing.assert_close(net(x, known, effects="fixed"), net.fixed(x)[1])
    torch.testing.assert_close(net(x, unknown), net(x))
    assert (net(x, known) - net(x)).abs().max() > 1e-5
    soft = nn.functional.one_hot(known, CLUSTERS).float()
    torch.testing.assert_close(net(x, soft), net(x, known))
    torch.testing.assert_close(net(x, torch.zeros(6, CLUSTERS)), net(x))
    with pytest.raises(ValueError, match="effects must be one of"):
        net(x, known, effects="random")
    with pytest.raises(ValueError, match="cluster index 3 is out of range"):
        net(x, torch.full((6,), 3))


@torch.no_grad()
def test_the_z_predictor_infers_what_is_not_known():
    net, (x, cluster, _) = network().eval(), batch()
    z_predictor = ZPredictor(CNN(SHAPE, CLUSTERS, (4, 4), 8), CLUSTERS)
    net.attach_z_predictor(z_predictor).eval()
    inferred = z_predictor(x)
    torch.testing.assert_close(net(x), net(x, inferred))
    torch.testing.assert_close(net(x, cluster)[5:], net(x, inferred)[5:])
    torch.testing.assert_close(net.reconstruct(x), net.reconstruct(x, inferred))
    torch.testing.assert_close(net(x, unknown="population"), net(x, torch.full((6,), -1), unknown="population"))


@torch.no_grad()
def test_reconstructions_as_if_from_another_cluster():
    net, (x, _, _) = network().eval(), batch()
    own, other = torch.tensor([0, 1, 2, 1, 0, 2]), torch.tensor([1, 2, 0, 0, -1, 2])
    mixed, decoded = net.reconstruct(x, own), net.reconstruct(x, own, as_cluster=other, keep_detail=False)
    kept = net.reconstruct(x, own, as_cluster=other)
    torch.testing.assert_close(kept, x + decoded - mixed)
    torch.testing.assert_close(kept[5], x[5])  # it is of that cluster already
    assert (kept[:5] - x[:5]).abs().flatten(1).amax(1).min() > 1e-5
    population = net.reconstruct(x, torch.full_like(own, -1), unknown="population")
    torch.testing.assert_close(net.reconstruct(x, own, effects="fixed"), population)
    paper = network(mixed_latent="random").eval()
    torch.testing.assert_close(paper.reconstruct(x, own, effects="fixed"), paper.fixed(x)[0])
    fixed = network(random=None, image_classifier=None).eval()
    torch.testing.assert_close(fixed.reconstruct(x, own), fixed.fixed(x)[0])
    with pytest.raises(ValueError, match="no random effects: it cannot show an image as if from another cluster"):
        fixed.reconstruct(x, own, as_cluster=other)


@torch.no_grad()
def test_a_light_that_is_fitted_shows_clusters_in_the_decoders_place(tmp_path):
    (x, cluster, _), light = batch(), ClusterLight(CLUSTERS)
    net = network(light=light).eval()
    other = (cluster + 1) % CLUSTERS
    torch.testing.assert_close(net.show_as(x, cluster, other), net.reconstruct(x, cluster, as_cluster=other))
    older = {name: value for name, value in net.state_dict().items() if not name.startswith("light.")}
    light.fit([{"image": x + 0.1 * cluster[:, None, None, None], "cluster": cluster}])
    torch.testing.assert_close(net.show_as(x, cluster, other), light(x, cluster, other))
    assert not torch.allclose(net.show_as(x, cluster, other), net.reconstruct(x, cluster, as_cluster=other))
    torch.save(net.state_dict(), tmp_path / "model.pt")
    again = load_weights(network(light=ClusterLight(CLUSTERS)), tmp_path / "model.pt").eval()
    torch.testing.assert_close(again.show_as(x, cluster, other), light(x, cluster, other))
    torch.save(older, tmp_path / "older.pt")  # of before networks had a light
    assert not load_weights(network(light=ClusterLight(CLUSTERS)), tmp_path / "older.pt").light.fitted
    with pytest.raises(ValueError, match="the network has 3 clusters, its light 4"):
        network(light=ClusterLight(4))


@torch.no_grad()
def test_the_fixed_latent_is_of_the_image_without_its_clusters_light(tmp_path):
    """Of a known cluster's light or, where that is not known, the image's own; reconstructions get it back."""
    (images,), light = lit_images(), ClusterLight(CLUSTERS)
    x, cluster = images["image"], images["cluster"]
    unknown = torch.full_like(cluster, -1)
    net = network(light=light).eval()
    raw = net.encode(x, cluster)
    torch.testing.assert_close(raw, net.fixed.encode(x))  # until the light is fitted
    light.fit([images])
    torch.testing.assert_close(net.encode(x, cluster), net.fixed.encode(light(x, cluster, unknown)))
    for none in (None, unknown, torch.full((30, CLUSTERS), 1 / CLUSTERS)):  # a soft assignment is a guess
        torch.testing.assert_close(net.encode(x, none), net.fixed.encode(light(x, unknown, unknown)))
    for name, found in (("latent", net.encode(x, cluster)), ("mixed", net(x, cluster))):
        torch.testing.assert_close(net.describe(x, cluster)[name], found)
    as_third = net.reconstruct(x, cluster, as_cluster=torch.full_like(cluster, 2), keep_detail=False)
    assert as_third.mean() - net.reconstruct(x, cluster)[cluster == 0].mean() > 0.05
    made = net.train()(x, cluster)["fixed_reconstruction"]
    background = made[:, :, :4].mean(dim=(1, 2, 3))
    assert background[cluster == 2].mean() - background[cluster == 0].mean() > 0.1
    older = {name: value for name, value in net.state_dict().items() if name not in ("light_removed", "light.alone")}
    torch.save(older, tmp_path / "older.pt")  # of before the light was taken away
    again = load_weights(network(light=ClusterLight(CLUSTERS)), tmp_path / "older.pt").eval()
    torch.testing.assert_close(again.encode(x, cluster), again.fixed.encode(x))
    torch.testing.assert_close(again.light.alone, light.alone, atol=0.01, rtol=0)  # of variances in single precision
    for missing in ("light_removed", "light.alone"):  # of a newer one nothing is made up
        state = {name: value for name, value in net.state_dict().items() if name != missing}
        with pytest.raises(RuntimeError, match=missing):
            network(light=ClusterLight(CLUSTERS)).load_state_dict(state)
    plain = network(light=light, remove_light=False).eval()
    torch.testing.assert_close(plain.encode(x, cluster), raw)


@pytest.mark.parametrize("random", [True, False])
def test_a_description_is_what_the_network_says_at_each_call(random):
    net, (x, cluster, _) = network(**({} if random else {"random": None, "image_classifier": None})), batch()
    with pytest.raises(ValueError, match=r"call network\.eval\(\) first"):
        net.train().describe(x, cluster)
    found = net.eval().describe(x, cluster)
    torch.testing.assert_close(found["mixed"], net(x, cluster))
    torch.testing.assert_close(found["fixed"], net(x, cluster, effects="fixed"))
    torch.testing.assert_close(found["latent"], net.fixed.encode(x))


@torch.no_grad()
def test_one_cluster_after_the_other_is_the_same_as_each_by_itself():
    (x, cluster, _), light = batch(), ClusterLight(CLUSTERS)
    own = cluster.clone()
    own[::2] = -1
    net = network(light=light).eval()
    for _ in range(2):  # by the decoder, then by the light
        for target, shown in zip((-1, 0, 2), net.show_as_each(x, own, (-1, 0, 2))):
            torch.testing.assert_close(shown, net.show_as(x, own, torch.full_like(own, target)))
        light.fit([{"image": x, "cluster": cluster}])


def test_only_a_network_with_a_light_or_random_effects_shows_clusters():
    without = {"random": None, "image_classifier": None}
    assert network().shows_clusters and not network(**without).shows_clusters
    net = network(light=ClusterLight(CLUSTERS), **without).eval()
    assert not net.shows_clusters
    x, cluster, _ = batch()
    net.light.fit([{"image": x, "cluster": cluster}])
    assert net.shows_clusters and net.show_as(x, cluster, cluster).shape == x.shape


def test_recon_blocks_of_another_number_of_clusters_are_refused():
    with pytest.raises(ValueError, match=r"the network has 3 clusters, its RECON blocks \[5\]"):
        network(random=AEC(SHAPE, norm=("recon", {"num_clusters": 5}), **SMALL))


def test_reconstructing_says_what_it_cannot_do():
    net, (x, cluster, _) = network(), batch()
    with pytest.raises(ValueError, match=r"call network\.eval\(\) first"):
        net.train().reconstruct(x, cluster)
    with pytest.raises(ValueError, match="got 'fixd'"):
        net.eval().reconstruct(x, cluster, effects="fixd")


def test_what_the_random_effects_need_is_asked_for():
    for options in ({"image_classifier": None}, {"random": AEC(SHAPE, **SMALL)}):
        with pytest.raises(ValueError, match=r"needs norm=.* and an image_classifier"):
            network(**options)


@pytest.mark.parametrize("model", MODELS)
@torch.no_grad()
def test_state_dict_round_trip(model, tmp_path):
    net, (x, cluster, _) = network(**MODELS[model][0]), batch()
    net(x, cluster)  # moves the statistics of the batch norm
    torch.save(net.state_dict(), tmp_path / "model.pt")
    torch.manual_seed(7)
    other = copy.deepcopy(net)
    for p in other.parameters():
        p.add_(torch.randn_like(p))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    torch.testing.assert_close(other.eval()(x, cluster), net.eval()(x, cluster))


def lit_images() -> list[dict[str, torch.Tensor]]:
    """Squares on a background, under the light of three clusters."""
    cluster = torch.arange(30) % CLUSTERS
    x = 0.02 * torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(3)) + 0.1 * cluster[:, None, None, None]
    x[:, :, 10:20, 10:20] += 0.2 + 0.1 * cluster[:, None, None, None]
    return [{"image": x, "cluster": cluster}]


class AsBatchOne(nn.Module):
    """The evaluation network for one cluster, as it is exported."""

    def __init__(self, net: ARMEDAEC) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x, torch.ones(x.shape[0], dtype=torch.long))


@pytest.mark.parametrize("known", [True, False])
def test_traces_and_exports(known, tmp_path):
    """The light is in what is recorded: that of the cluster, or the image's own."""
    (x, _, _), light = batch(2), ClusterLight(CLUSTERS)
    light.fit(lit_images())
    net = network(light=light).eval()
    net = AsBatchOne(net).eval() if known else net.attach_z_predictor(ZPredictor(CNN(SHAPE, 3, (4, 4), 8), 3)).eval()
    with torch.no_grad():
        wanted = net(x)
        torch.testing.assert_close(torch.jit.trace(net, x)(x), wanted)
        torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), wanted)
        torch.onnx.export(net, (x,), tmp_path / "model.onnx", input_names=["image"], dynamo=True, verbose=False)
    (got,) = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(None, {"image": x.numpy()})
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_single_image_in_evaluation_and_in_training():
    """Batch normalisation of a map of 1 x 1 has one value a channel: with one image in a batch it cannot train."""
    torch.manual_seed(0)
    small = {**SMALL, "channels": (4, 4, 4, 8, 8)}  # 32 px: the last map is 1 x 1
    norm = ("recon", {"num_clusters": CLUSTERS})
    parts = {"random": AEC(SHAPE, norm=norm, **small), "image_classifier": CNN(SHAPE, CLUSTERS, (4, 4), 8)}
    net = ARMEDAEC(AEC(SHAPE, **small), CLUSTERS, SHAPE, **parts)
    x, cluster, _ = batch(1)
    assert net.eval()(x, cluster).shape == (1, 1) and net.reconstruct(x, cluster).shape == x.shape
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        net.train()(x, cluster)
    frozen = ARMEDAEC(AEC(SHAPE, **small), CLUSTERS, SHAPE, adversary=None, freeze_fixed=True, **parts).train()
    assert frozen(x, cluster)["mixed"].shape == (1, 1)  # instance normalisation of RECON can, by design


def latents(net: ARMEDAEC, batches: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    net.eval()
    with torch.no_grad():
        return torch.cat([net.encode(b["image"]) for b in batches]), torch.cat([b["cluster"] for b in batches])


@pytest.fixture
def batches() -> list[dict[str, torch.Tensor]]:
    """Images of three clusters, each with its own brightness at the left, as has class 1 at the top; some unknown."""
    return in_batches(*labelled_images(1.0))


def labelled_images(strength: float, count: int = 480) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, clusters and labels: of five cells of cluster k, k + 2 are of class 0."""
    cluster = torch.arange(count) % CLUSTERS
    label = (torch.arange(count) // CLUSTERS % 5 > cluster + 1).long()
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(2))
    x[..., :16] += strength * cluster[:, None, None, None]
    x[..., :16, :] += 2.0 * label[:, None, None, None]
    return x, torch.where(torch.arange(count) < count - 40, cluster, -1), label


def in_batches(*parts: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [dict(zip(("image", "cluster", "label"), some)) for some in zip(*(part.split(80) for part in parts))]


@pytest.mark.parametrize("options", [{}, {"random": None}, {"mixed_latent": "random"}])
def test_erasure_leaves_the_clusters_one_mean_and_the_encoder_as_it_is(options, batches):
    net = network(adversary=None, **options)
    x, given, label = batch()
    optimizer = torch.optim.NAdam(net.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)  # as MONAI's trainers do
        AECLoss()(net.train()(x, given), {"image": x, "label": label, "cluster": given}).backward()
        optimizer.step()

    step()  # the optimizer has momentum from before
    before, cluster = latents(net, batches)
    net.train()
    assert erase_clusters(net, batches) >= 1
    assert net.training and not any(block.training for block in net.fixed.encoder)
    after, _ = latents(net, batches)
    within = [spread(z, cluster, torch.cat([b["label"] for b in batches])) for z in (before, after)]
    assert within[1] < 0.3 * within[0]  # what chance makes may stay
    step()
    step()
    torch.testing.assert_close(latents(net, batches)[0], after)  # the encoder's weights and statistics are as they were
    assert gradients(net.fixed.decoder)


def spread(z: torch.Tensor, cluster: torch.Tensor, label: torch.Tensor) -> float:
    """How far the clusters' mean latents are apart within a class."""
    means = torch.stack([torch.stack([z[(cluster == k) & (label == c)].mean(0) for k in range(3)]) for c in range(2)])
    return float((means - means.mean(1, keepdim=True)).norm())


@pytest.mark.parametrize("given", ["all", "in part", "of one cluster none", "none", "the cluster's"])
def test_what_is_erased_is_within_class_where_it_can_be(given, caplog):
    """Clusters that differ in their share of the class, and in nothing else."""
    x, cluster, label = labelled_images(0.0)
    hidden = {"in part": torch.arange(len(x)) % 7 == 0, "of one cluster none": cluster == 0}
    label = torch.where(hidden.get(given, torch.tensor(given == "none")), -1, label)
    net = network(adversary=None, random=None, image_classifier=None)
    found = erase_clusters(net, in_batches(x, cluster, cluster.clamp(min=0) if given == "the cluster's" else label))
    assert (found > 0) == (given in ("none", "the cluster's"))
    assert ("no class has cells of two clusters" in caplog.text) == (given == "the cluster's")


def test_frames_of_a_cell_do_not_count_as_cells():
    """Eight frames of each of 24 cells, whose clusters differ by chance alone: nothing is to be erased."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.arange(24).repeat_interleave(8)
    x = 0.3 * torch.rand(24, *SHAPE, generator=generator)[cell] + 0.05 * torch.rand(192, *SHAPE, generator=generator)
    frames = {"image": x, "cluster": cell % CLUSTERS, "label": cell % 2}
    net = network(adversary=None, random=None, image_classifier=None)
    by_cell = copy.deepcopy(net)
    assert erase_clusters(by_cell, [{**frames, "cell": [str(i // CLUSTERS) for i in cell.tolist()]}]) == 0
    assert erase_clusters(net, [frames]) > 0


def test_erasure_of_one_cluster_says_so(batches):
    one = [{**b, "cluster": torch.zeros_like(b["cluster"])} for b in batches]
    with pytest.raises(ValueError, match="two known clusters"):
        erase_clusters(network(), one)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"image_classifier": CNN(SHAPE, 5, (4, 4), 8)}, "its image_classifier tells 5 apart"),
        ({"fixed": AEC(SHAPE, norm=("recon", {"num_clusters": CLUSTERS}), **SMALL)}, "has RECON blocks"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    random = AEC(SHAPE, norm=("recon", {"num_clusters": CLUSTERS}), **SMALL)
    fitting = {"fixed": AEC(SHAPE, **SMALL), "random": random, "image_classifier": CNN(SHAPE, CLUSTERS, (4, 4), 8)}
    with pytest.raises(ValueError, match=message):
        ARMEDAEC(num_clusters=CLUSTERS, in_shape=SHAPE, **{**fitting, **parts})
