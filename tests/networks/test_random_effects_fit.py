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

"""Random effects that are fitted around a trained network are those that made the data."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from sklearn.metrics import roc_auc_score
from torch import nn

from monai_armed.engines import PrepareBatchCluster
from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.networks import ARMED, CNN, DFNN, fit_random_effects
from monai_armed.networks.erasure import ClusterEraser, fit_erasers

CLUSTERS, SLOPE_SD, INTERCEPT_SD = 40, 0.8, 0.5
BCE = nn.BCEWithLogitsLoss()


def _net(**options) -> ARMED:
    """A network whose fixed effects are known: 2 columns, weights 1 and -0.5, slopes of both, and an intercept."""
    options = {"learn_prior": True, "sampling": "sample", **options}
    net = ARMED(DFNN(2, hidden_channels=()), CLUSTERS, (2,), adversary=None, random_effects=options)
    with torch.no_grad():
        net.network.head.weight.copy_(torch.tensor([[1.0, -0.5]]))
        net.network.head.bias.zero_()
    return net.eval()


def _mixed_model(per_cluster: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (N, 2), cluster (N,), logits (N, 1) and the effects (C, 3) of the clusters: two slopes and the intercept."""
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(CLUSTERS, 3, generator=torch.Generator().manual_seed(7))
    effects = effects * torch.tensor([SLOPE_SD, SLOPE_SD, INTERCEPT_SD])
    cluster = torch.arange(CLUSTERS).repeat_interleave(per_cluster)
    x = torch.randn(len(cluster), 2, generator=generator)
    design = torch.cat([x, torch.ones(len(x), 1)], 1)
    logits = x @ torch.tensor([[1.0], [-0.5]]) + (effects[cluster] * design).sum(1, keepdim=True)
    return x, cluster, logits, effects


@torch.no_grad()
def _miss(net: ARMED, effects: torch.Tensor) -> float:
    """Root mean square of what the posterior means miss the true effects by."""
    return float((net.random_effects.mean - effects).square().mean().sqrt())


def test_slopes_intercepts_and_prior_of_a_gaussian_model_are_found():
    x, cluster, logits, effects = _mixed_model(25, seed=0)
    torch.manual_seed(0)
    label = logits + 0.5 * torch.randn_like(logits)
    likelihood = GaussianLikelihoodLoss(scale=0.5)
    net = _net()
    before = {name: tensor.clone() for name, tensor in net.network.state_dict().items()}
    fit_random_effects(net, [{"image": x, "label": label, "cluster": cluster}], likelihood)
    # what least squares in one cluster misses the truth by is 0.5 / sqrt(25) = 0.1
    assert _miss(net, effects) == pytest.approx(0.1, rel=0.25)
    assert float(net.random_effects.scale.detach().mean()) == pytest.approx(0.1, rel=0.1)
    torch.testing.assert_close(net.random_effects.prior_scale.detach(), effects.std(0), rtol=0.15, atol=0)
    for name, tensor in net.network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert not net.training and not net.random_slopes.training


@pytest.mark.parametrize("batch_size", [4096, 500])
def test_of_binary_labels_too_in_batches_or_whole(batch_size):
    x, cluster, logits, effects = _mixed_model(60, seed=1)
    torch.manual_seed(0)
    label = torch.bernoulli(logits.sigmoid())
    net = _net()
    fit_random_effects(net, [{"image": x, "label": label, "cluster": cluster}], BCE, batch_size=batch_size)
    # binary labels say less: it misses the truth by what its posteriors say, which are a little too narrow
    assert _miss(net, effects) == pytest.approx(float(net.random_effects.scale.detach().mean()), rel=0.25)
    assert _miss(net, effects) < 0.6 * float(effects.square().mean().sqrt())
    torch.testing.assert_close(net.random_effects.prior_scale.detach(), effects.std(0), rtol=0.2, atol=0)


@torch.no_grad()
def test_on_held_out_samples_of_seen_clusters_mixed_is_not_below_fixed():
    """With effects it is above; where there are none (the labels are of the fixed logits alone) it is as good."""
    for strength in (1.0, 0.0):
        (x, cluster, logits, _), (new_x, new_cluster, new_logits, _) = (_mixed_model(n, n) for n in (20, 100))
        fixed, new_fixed = (x_ @ torch.tensor([[1.0], [-0.5]]) for x_ in (x, new_x))
        torch.manual_seed(3)
        label, new_label = (
            torch.bernoulli((f + strength * (logit - f)).sigmoid())
            for f, logit in ((fixed, logits), (new_fixed, new_logits))
        )
        net = _net()
        fit_random_effects(net, [{"image": x, "label": label, "cluster": cluster}], BCE)
        without = BCE(net(new_x, effects="fixed"), new_label)
        gain = float(without - BCE(net(new_x, new_cluster), new_label))
        most = float(without - BCE(new_logits, new_label))  # what one who knew the effects would gain, 0.09
        assert gain > most / 3 if strength else gain > -0.01


@torch.no_grad()
def test_mixed_gives_back_what_the_erasure_took():
    """The cluster tells the label: the conventional network uses it, the erased one does not, the mixed one does."""
    generator = torch.Generator().manual_seed(0)

    def draw(num: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        cluster = torch.arange(num) % 2
        label = torch.bernoulli(torch.tensor([0.1, 0.6])[cluster], generator=generator)[:, None]
        x = torch.randn(num, 6, generator=generator)
        x[:, :1] += 1.5 * label
        x[:, 2:] += 2.0 * cluster[:, None]
        return x, label, cluster

    (x, label, cluster), (new_x, new_label, new_cluster) = draw(1500), draw(3000)
    torch.manual_seed(0)
    network = DFNN(6, hidden_channels=(12,))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    with torch.enable_grad():
        for _ in range(60):
            optimizer.zero_grad()
            BCE(network(x), label).backward()
            optimizer.step()
    options = {"learn_prior": True, "sampling": "sample"}
    erasers = {"hidden.0": ClusterEraser(12)}
    net = ARMED(network.eval(), 2, (6,), adversary=None, erasers=erasers, random_effects=options).eval()
    batches = [{"image": x, "label": label, "cluster": cluster}]
    fit_erasers(net, batches, num_classes=2)
    fit_random_effects(net, batches, BCE)
    conventional, fixed, mixed = (
        roc_auc_score(new_label, logits)
        for logits in (network(new_x), net(new_x, effects="fixed"), net(new_x, new_cluster))
    )
    assert fixed < conventional - 0.02
    assert mixed > conventional - 0.005


def test_the_seed_makes_it_the_same_and_the_callers_random_numbers_go_on():
    x, cluster, logits, _ = _mixed_model(5, seed=2)
    batch = {"image": x, "label": (logits > 0).float()[:, 0], "cluster": cluster}  # labels (N,) of one logit
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        net, expected = _net(), torch.random.get_rng_state()
        value = fit_random_effects(net, [batch], BCE, steps=5, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), expected)
        assert all(parameter.grad is None for parameter in net.parameters())
        found.append((value, net.random_effects.loc.detach()))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
    assert found[0][0] != found[2][0]


def test_several_factors_unknown_clusters_and_offsets():
    torch.manual_seed(0)
    site, subject = torch.arange(600) % 3, torch.arange(600) % 20
    effects = torch.tensor([-1.0, 0.0, 1.0])
    x, offset = torch.randn(600, 2), torch.randn(600)
    label = x[:, :1] + offset[:, None] + effects[site][:, None] + 0.1 * torch.randn(600, 1)
    net = ARMED(
        DFNN(2, hidden_channels=()), {"site": 3, "subject": 20}, (2,), adversary=None, nonlinear_slopes=False,
        random_effects={name: {"learn_prior": True, "sampling": "sample"} for name in ("site", "subject")},
    )  # fmt: skip
    with torch.no_grad():
        net.network.head.weight.copy_(torch.tensor([[1.0, 0.0]]))
        net.network.head.bias.zero_()
    site[:30] = -1
    batch = {"image": x, "label": label, "site": site, "subject": subject, "offset": offset}
    prepare = PrepareBatchCluster(cluster_key=["site", "subject"], target_keys=["offset"])
    fit_random_effects(net, [batch], GaussianLikelihoodLoss(scale=0.3), prepare_batch=prepare)
    torch.testing.assert_close(net.random_effects.mean[:, 0], effects, rtol=0, atol=0.12)
    assert float(net.random_slopes["subject"].effects.mean.detach().abs().max()) < 0.15


def test_maps_have_slopes_of_their_means_and_only_those_are_kept():
    torch.manual_seed(0)
    images, cluster = torch.randn(80, 1, 16, 16), torch.arange(80) % 2
    net = ARMED(
        CNN((1, 16, 16), channels=(4, 6), dense_channels=5), 2, (1, 16, 16), adversary=None,
        erasers={"blocks.0": ClusterEraser(4)}, random_effects={"learn_prior": True},
    ).eval()  # fmt: skip
    sign = torch.tensor([1.0, -1.0])[cluster]
    with torch.no_grad():
        means = net.fixed_and_latent(images)[1].mean((2, 3))
        unit = (means[:, 0] - means[:, 0].mean()) / means[:, 0].std()
    label = (sign * unit > 0).float()[:, None]
    rows = [{"image": MetaTensor(images[i : i + 16]), "label": label[i : i + 16], "cluster": cluster[i : i + 16]}
            for i in range(0, 80, 16)]  # fmt: skip
    first = fit_random_effects(net, rows, BCE, steps=10)
    assert fit_random_effects(net, rows, BCE, steps=200) < first - 0.05
    parts = net.random_slopes["cluster"].split(net.random_effects.mean)["nonlinear"][:, 0, 0]
    assert parts[0] > 0 > parts[1]


def test_slopes_that_rescale_the_latent_leave_no_gradient_in_the_last_layer():
    torch.manual_seed(0)
    net = ARMED(DFNN(2, hidden_channels=(4,)), 3, (2,), adversary=None, multiplicative=True)
    batch = {"image": torch.randn(30, 2), "label": torch.ones(30, 1), "cluster": torch.arange(30) % 3}
    fit_random_effects(net, [batch], BCE, steps=3)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.training


def test_what_cannot_be_fitted_is_said():
    x, cluster, logits, _ = _mixed_model(3, seed=3)
    batch = {"image": x, "label": (logits > 0).float(), "cluster": cluster}
    net, plain = _net(), ARMED(DFNN(2), 2, (2,), nonlinear_slopes=False, intercept=False)
    bad = batch["label"].clone()
    bad[3] = torch.nan
    for broken, batches, loss, options, message in (
        (plain, [batch], BCE, {}, "no random effects to fit"),
        (_net().requires_grad_(False), [batch], BCE, {}, "are frozen: let them learn"),
        (net, [], BCE, {}, "the loader gave no batch"),
        (net, [batch], BCE, {"steps": 0}, "steps must be at least 1, got 0"),
        (net, [{**batch, "label": bad}], BCE, {}, "label: there are values that are not finite"),
        (net, [{**batch, "cluster": cluster + 9}], BCE, {}, "cluster index 40 is out of range"),
        (net, [batch], ARMEDLoss(BCE), {}, "pass its base loss"),
        (net, [batch], nn.BCEWithLogitsLoss(reduction="none"), {}, "must be the mean over the samples"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_random_effects(broken, batches, loss, **options)
    assert not net.training and not net.random_slopes.training
