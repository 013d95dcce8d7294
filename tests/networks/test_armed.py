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
import io
import pickle
import warnings

import pyro
import pytest
import torch
from monai.networks.nets import (
    AttentionUnet,
    AutoEncoder,
    BasicUNet,
    Classifier,
    DenseNet121,
    EfficientNetBN,
    FullyConnectedNet,
    SEResNet50,
    UNet,
    ViT,
    resnet10,
)
from monai.visualize import GradCAM
from torch.func import functional_call, stack_module_state, vmap

from monai_armed.networks import ARMED, CNN, DFNN, ZPredictor
from monai_armed.networks.layers.taps import record_layers

IMAGE = (1, 64, 64)
NETWORKS = {
    "DenseNet121": (lambda: DenseNet121(2, 1, 1), IMAGE, {}),
    "ResNet": (lambda: resnet10(spatial_dims=2, n_input_channels=1, num_classes=3), IMAGE, {}),
    "ResNet 3-D": (lambda: resnet10(spatial_dims=3, n_input_channels=1, num_classes=1), (1, 32, 32, 32), {}),
    "ResNet 3-D, conv": (
        lambda: resnet10(spatial_dims=3, n_input_channels=1, num_classes=1),
        (1, 32, 32, 32),
        {"adversary": "conv"},
    ),
    "EfficientNet": (
        lambda: EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=1, num_classes=2),
        IMAGE,
        {},
    ),
    "SEResNet50": (lambda: SEResNet50(spatial_dims=2, in_channels=1, num_classes=2), IMAGE, {"adversary": "conv"}),
    "ViT": (
        lambda: ViT(
            1,
            IMAGE[1:],
            (16, 16),
            48,
            64,
            2,
            4,
            classification=True,
            num_classes=2,
            spatial_dims=2,
            post_activation=None,
        ),
        IMAGE,
        {},
    ),
    "Classifier": (lambda: Classifier(IMAGE, 2, (8, 16), (2, 2)), IMAGE, {"multiplicative": True}),
    "UNet": (lambda: UNet(2, 1, 2, (8, 16, 32), (2, 2), num_res_units=1), IMAGE, {}),
    "UNet, transposed head": (lambda: UNet(2, 1, 2, (8, 16, 32), (2, 2)), IMAGE, {}),
    "AttentionUnet": (lambda: AttentionUnet(2, 1, 2, (8, 16, 32), (2, 2)), IMAGE, {}),
    "BasicUNet": (lambda: BasicUNet(2, 1, 2, features=(8, 8, 16, 16, 32, 8)), IMAGE, {"multiplicative": True}),
    "AutoEncoder": (lambda: AutoEncoder(2, 1, 1, (8, 16), (2, 2)), IMAGE, {}),
    "CNN": (lambda: CNN(IMAGE, channels=(8, 8, 16, 16), dense_channels=32), IMAGE, {"adversary": "conv"}),
    "DFNN": (lambda: DFNN(4), (4,), {"adversary": "dense", "linear_slopes": True}),
    "FullyConnectedNet": (lambda: FullyConnectedNet(4, 1, (8, 8)), (4,), {"adversary": "dense"}),
}


def _wrapped(name: str, **kwargs) -> tuple[ARMED, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    make, shape, options = NETWORKS[name]
    net = ARMED(make(), 5, shape, **{**options, **kwargs})
    return net, torch.randn(4, *shape), torch.tensor([0, 1, 4, -1])


def _set_random(net: ARMED) -> ARMED:
    with torch.no_grad():
        net.random_effects.loc.normal_()
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_wraps(name):
    net, x, cluster = _wrapped(name)
    plain = net.network(x)
    plain = plain[0] if isinstance(plain, tuple) else plain
    out = net(x, cluster)
    assert set(out) == {"mixed", "fixed", "adversary", "kl"}
    assert out["mixed"].shape == out["fixed"].shape == plain.shape
    assert out["adversary"].shape == (4, 5) and out["kl"].ndim == 0
    # all parts learn: the random effects, too (the published CNN's do not)
    sum(term.pow(2).mean() for term in out.values()).backward()
    for part in (net.network, net.adversary, net.random_slopes):
        grads = [p.grad for p in part.parameters() if p.requires_grad and p.grad is not None]
        assert grads and sum(float(g.abs().sum()) for g in grads) > 0
    assert net.random_effects.loc.grad[0].abs().sum() > 0 and net.random_effects.log_scale.grad.abs().sum() > 0

    net.eval()
    with torch.no_grad():
        fixed, mixed, random = (net(x, cluster, effects=e) for e in ("fixed", "mixed", "random"))
        torch.testing.assert_close(mixed, fixed)  # their means start at zero
        _set_random(net)
        fixed, mixed, random = (net(x, cluster, effects=e) for e in ("fixed", "mixed", "random"))
        torch.testing.assert_close(mixed, fixed + random)
        assert not torch.allclose(mixed[0], fixed[0])
        torch.testing.assert_close(mixed[3], fixed[3])  # unknown: the population
        torch.testing.assert_close(net(x), fixed)


@pytest.mark.parametrize("name", NETWORKS)
def test_taps_leave_nothing_behind(name):
    net, x, cluster = _wrapped(name)
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())  # noqa: E731
    before = hooks()
    net(x, cluster)
    with pytest.raises(ValueError):
        net(x, torch.tensor([0, 1, 5, 0]))
    with pytest.raises(Exception):  # noqa: B017 - whatever the network itself says of a wrong shape
        net(x[:, :, :0] if x.ndim > 2 else x[:, :1])
    assert hooks() == before


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_tapped_can_forget(name):
    """No weights come before a flattened or padded input: an adversary that sees it would always find the cluster."""
    net, x, _ = _wrapped(name)
    with record_layers(net.network, outputs=net.taps) as record:
        net.network(x)
    assert list(record.outputs) == list(net.taps) and all(out.requires_grad for out in record.outputs.values())


def test_slopes_and_intercept_are_those_of_the_equations():
    net, x, cluster = _wrapped("DFNN")
    _set_random(net).eval()
    u = net.random_effects.loc
    nonlinear, linear, intercept = (net.random_slopes.split(u)[g] for g in ("nonlinear", "linear", "intercept"))
    h = net.network.hidden(x)
    for i, z in enumerate(cluster[:3]):
        by_hand = h[i] @ nonlinear[z, :, 0] + x[i] @ linear[z, :, 0] + intercept[z, 0, 0]
        torch.testing.assert_close(net(x, cluster, effects="random")[i, 0], by_hand)


def test_multiplicative_slopes_rescale_the_latent():
    net, x, cluster = _wrapped("Classifier")
    _set_random(net).eval()
    parts = net.random_slopes.split(net.random_effects.loc)
    h = net.network.final[0](net.network.net(x))
    by_hand = net.network.final[1](h[:1] * (1 + parts["nonlinear"][0])) + parts["intercept"][0]
    torch.testing.assert_close(net(x, cluster)[:1], by_hand)


def test_single_pass_reversal_equals_two_explicit_losses():
    net, x, cluster = _wrapped("CNN")
    x, cluster = x[:3], cluster[:3]
    cce = torch.nn.functional.cross_entropy
    cce(net(x, cluster)["adversary"], cluster).backward()
    single = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    trunk, adversary = list(net.network.parameters()), list(net.adversary.parameters())
    from monai_armed.networks.layers.taps import record_layers

    with record_layers(net.network, outputs=net.taps) as record:
        net.network(x)
    loss = cce(net.adversary([record.outputs[n] for n in net.taps]), cluster)
    explicit_trunk = torch.autograd.grad(-loss, trunk, retain_graph=True, allow_unused=True)
    explicit_adversary = torch.autograd.grad(loss, adversary)
    for (n, _), g in zip(net.network.named_parameters(), explicit_trunk):
        if g is not None:
            torch.testing.assert_close(single["network." + n], g, msg=n)
    for (n, _), g in zip(net.adversary.named_parameters(), explicit_adversary):
        torch.testing.assert_close(single["adversary." + n], g, msg=n)


@pytest.mark.parametrize("confusion", [False, True])
def test_reversal_strength_scales_only_the_features(confusion):
    net, x, cluster = _wrapped("DFNN", confusion=confusion)
    grads = []
    for strength in (1.0, 0.25):
        net.zero_grad()
        net.set_reversal_strength(strength)
        outputs = net(x, cluster)
        sum(outputs[name].pow(2).sum() for name in ("adversary", "confusion") if name in outputs).backward()
        grads.append([net.network.hidden[0][0].weight.grad.clone(), net.adversary.layers[0].weight.grad.clone()])
    torch.testing.assert_close(grads[1][0], 0.25 * grads[0][0])
    torch.testing.assert_close(grads[1][1], grads[0][1])


def test_confusion_trains_features_and_adversary_apart():
    net, x, cluster = _wrapped("DFNN", confusion=True)
    out = net(x, cluster)
    torch.testing.assert_close(out["confusion"], out["adversary"])
    out["adversary"].pow(2).sum().backward(retain_graph=True)
    assert net.network.hidden[0][0].weight.grad is None and net.adversary.layers[0].weight.grad.abs().sum() > 0
    net.zero_grad()
    out["confusion"].pow(2).sum().backward()
    assert net.network.hidden[0][0].weight.grad.abs().sum() > 0 and net.adversary.layers[0].weight.grad is None


def test_class_conditional_adversary():
    net, x, cluster = _wrapped("DFNN", num_classes=2)
    assert net(x, cluster)["adversary"].shape == (4, 5, 2)


def test_parts_can_be_left_out():
    da, x, cluster = _wrapped("CNN", nonlinear_slopes=False, intercept=False)
    assert set(da(x, cluster)) == {"fixed", "adversary"}
    mixed, x, cluster = _wrapped("CNN", adversary=None)
    assert set(mixed(x, cluster)) == {"mixed", "fixed", "kl"} and mixed.taps == ()
    assert da.eval()(x, cluster).shape == (4, 1)


def test_adversary_only_has_no_gradient_in_the_network():
    net, x, cluster = _wrapped("CNN")
    out = net(x, cluster, adversary_only=True)
    assert set(out) == {"adversary", "taps"}
    out["adversary"].sum().backward()
    assert all(p.grad is None for p in net.network.parameters())
    again = net(out["taps"], adversary_only=True)  # a further step of the adversary needs no run of the network
    torch.testing.assert_close(again["adversary"], out["adversary"])


def test_network_in_any_mode_is_left_as_it_was():
    network = CNN(IMAGE, channels=(8, 8), dense_channels=8)
    network.blocks[0].eval()
    before = copy.deepcopy(network.state_dict())
    ARMED(network, 3, IMAGE)
    assert not network.blocks[0].training and network.blocks[1].training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", ["DenseNet121", "DFNN", "UNet"])
def test_copies_pickles_and_saves(name):
    net, x, cluster = _wrapped(name)
    _set_random(net).eval()
    wanted = net(x, cluster)
    torch.testing.assert_close(copy.deepcopy(net)(x, cluster), wanted)
    torch.testing.assert_close(pickle.loads(pickle.dumps(net))(x, cluster), wanted)
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    stream.seek(0)
    other = _wrapped(name)[0]
    other.load_state_dict(torch.load(stream, weights_only=True))
    torch.testing.assert_close(other.eval()(x, cluster), wanted)


@pytest.mark.parametrize("name", ["DenseNet121", "CNN", "ViT", "UNet"])
def test_traces_and_exports(name):
    net, x, cluster = _wrapped(name)
    _set_random(net).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, x)
        torch.testing.assert_close(traced(x[:2]), net(x[:2]))
        exported = torch.export.export(net, (x, cluster))
    torch.testing.assert_close(exported.module()(x, cluster), net(x, cluster))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_compiles(mode):
    net, x, cluster = _wrapped("CNN", random_effects={"posterior_scale": 1e-12})
    getattr(net, mode)()
    compiled = torch.compile(net, backend="eager")(x, cluster)
    plain = net(x, cluster)
    for key in plain if mode == "train" else ():
        torch.testing.assert_close(compiled[key], plain[key], rtol=1e-4, atol=1e-5)
    if mode == "eval":
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("sampling", ["cluster", "sample"])
def test_stacks_under_vmap(sampling):
    nets = [_set_random(_wrapped("DFNN", random_effects={"sampling": sampling})[0]) for _ in range(3)]
    _, x, cluster = _wrapped("DFNN")
    params, buffers = stack_module_state(nets)

    def call(p, b, mode):
        out = functional_call(nets[0], (p, b), (x, cluster))
        return out["mixed"] if mode == "train" else out

    out = vmap(lambda p, b: call(p, b, "train"), randomness="different")(params, buffers)
    assert out.shape == (3, 4, 1)
    for net in nets:
        net.eval()
    out = vmap(lambda p, b: call(p, b, "eval"))(params, buffers)
    for i, net in enumerate(nets):
        torch.testing.assert_close(out[i], net(x, cluster))


def test_ddp(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net, x, cluster = _wrapped("CNN")
        ddp = torch.nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
        out = ddp(x, cluster)
        sum(term.mean() for term in out.values()).backward()
        assert net.random_effects.loc.grad.abs().sum() > 0
        first = ddp(x, cluster, adversary_only=True)
        first["adversary"].sum().backward()
        ddp(first["taps"], adversary_only=True)["adversary"].sum().backward()
    finally:
        torch.distributed.destroy_process_group()


def test_grad_cam_of_the_fixed_part():
    net, x, cluster = _wrapped("CNN")
    _set_random(net).eval()
    cam = GradCAM(net, target_layers="network.blocks.2")
    mixed = cam(x[:1], class_idx=0, cluster=cluster[:1])
    fixed = cam(x[:1], class_idx=0, cluster=cluster[:1], effects="fixed")
    assert mixed.shape == fixed.shape == (1, *IMAGE)


def test_pyro_predictive():
    net, x, _ = _wrapped("DFNN", random_effects={"prior_scale": 0.7})
    _set_random(net).eval()
    cluster = torch.tensor([0, 0, 1, -1])
    draws = pyro.infer.Predictive(net.pyro_model, guide=net.pyro_guide, num_samples=2000)(x, cluster)
    logits = draws["logits"].squeeze(-1)
    assert logits.shape == (2000, 4) and draws["u"].shape == (2000, 5, net.random_effects.num_effects)
    torch.testing.assert_close(logits.mean(0), net(x, cluster).squeeze(-1).detach(), atol=0.1, rtol=0)
    # the effects of a new cluster are a draw from the prior: its interval is wider by far
    assert logits[:, 3].std() > 3 * logits[:, 0].std()
    ours = net.sample_logits(x, cluster, 2000).squeeze(-1)
    torch.testing.assert_close(ours.mean(0), logits.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(ours.std(0), logits.std(0), atol=0.02, rtol=0.1)


def test_unknown_clusters_by_policy():
    net, x, _ = _wrapped("DFNN")
    _set_random(net).eval()
    cluster = torch.tensor([0, 1, -1, -1])
    with pytest.raises(ValueError, match="cluster of 2 of 4 samples is not known"):
        net(x, cluster, unknown="error")
    with pytest.raises(ValueError, match="no cluster was given"):
        net(x, unknown="error")
    with pytest.raises(ValueError, match="needs a Z-predictor"):
        net(x, cluster, unknown="infer")
    z_predictor = ZPredictor(DFNN(4, 5), 5).eval()
    net.attach_z_predictor(z_predictor)
    z = z_predictor(x)
    torch.testing.assert_close(z.sum(1), torch.ones(4))
    z[:2] = torch.nn.functional.one_hot(cluster[:2], 5).float()
    torch.testing.assert_close(net(x, cluster), net(x, z))
    torch.testing.assert_close(net(x), net(x, z_predictor(x)))
    torch.testing.assert_close(net(x, unknown="population"), net(x, effects="fixed"))
    net.attach_z_predictor(z_predictor, max_entropy=0.0)  # nothing is sure enough
    torch.testing.assert_close(net(x), net(x, effects="fixed"))


@pytest.mark.parametrize(
    "cluster, message",
    [
        (torch.tensor([0, 1, 2, 5]), "cluster index 5 is out of range: the network has clusters 0 to 4"),
        (torch.tensor([0, 1, 2, -2]), "cluster index -2 is out of range"),
        (torch.tensor([0, 1, 2]), r"must have shape \(batch,\) = \(4,\), got \(3,\)"),
        (torch.rand(4, 6), r"\(4, 5\), got \(4, 6\)"),
        (torch.rand(4), "a cluster index must be an integer tensor"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_bad_clusters(cluster, message, training):
    net, x, _ = _wrapped("DFNN")
    net.train(training)
    with pytest.raises(ValueError, match=message):
        net(x, cluster)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"head": "outputs"}, "CNN has no layer 'outputs'; the most similar names are"),
        ({"head": "dense.0"}, "is not the network's output"),
        ({"taps": ["blocks.9"]}, "CNN has no layer 'blocks.9'"),
        ({"adversary": "big"}, "a module or None, got 'big'"),
        ({"linear_slopes": True}, "linear slopes are for tables"),
        ({"unknown": "guess"}, "unknown must be one of"),
        ({"taps": []}, "taps must not be empty"),
        ({"random_effects": {"prior_scale": {"slopes": 1.0}}}, "prior_scale must have the keys"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        _wrapped("CNN", **kwargs)


def test_another_input_shape_is_named():
    with pytest.raises(ValueError, match=r"CNN does not take input_shape \(3, 64, 64\)"):
        ARMED(CNN(IMAGE, channels=(8, 8), dense_channels=8), 5, (3, 64, 64))


@pytest.mark.parametrize("adversary", ["pooled", None])
def test_a_network_with_effects_of_the_cluster_is_refused(adversary):
    recon = UNet(2, 1, 1, (4, 8), (2,), norm=("recon", {"num_clusters": 5}))
    with pytest.raises(ValueError, match=r"UNet has layers with random effects .*'recon'.*: build it with another"):
        ARMED(recon, 5, IMAGE, adversary=adversary)


def test_probability_networks_are_refused():
    with pytest.raises(ValueError, match="a Sigmoid: random effects are added to the logits"):
        ARMED(Classifier(IMAGE, 2, (8, 16), (2, 2), last_act="sigmoid"), 5, IMAGE)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_index_of_any_integer_type(dtype):
    net, x, cluster = _wrapped("DFNN")
    net.eval()
    torch.testing.assert_close(net(x, cluster.to(dtype)), net(x, cluster))


def test_cluster_that_is_no_tensor():
    net, x, cluster = _wrapped("DFNN")
    with pytest.raises(ValueError, match="must be a tensor of indices or a dict of such by factor, got list"):
        net(x, cluster.tolist())
