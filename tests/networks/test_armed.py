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

import pyro
import pytest
import torch
from monai.networks.nets import Classifier, UNet
from monai.visualize import GradCAM
from wrapped_networks import IMAGE, NETWORKS, set_random, wrapped

from monai_armed.networks import ARMED, CNN, DFNN


@pytest.mark.parametrize("name", NETWORKS)
def test_wraps(name):
    net, x, cluster = wrapped(name)
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
        set_random(net)
        fixed, mixed, random = (net(x, cluster, effects=e) for e in ("fixed", "mixed", "random"))
        torch.testing.assert_close(mixed, fixed + random)
        assert not torch.allclose(mixed[0], fixed[0])
        torch.testing.assert_close(mixed[3], fixed[3])  # unknown: the population
        torch.testing.assert_close(net(x), fixed)


def test_slopes_and_intercept_are_those_of_the_equations():
    net, x, cluster = wrapped("DFNN")
    set_random(net).eval()
    u = net.random_effects.loc
    nonlinear, linear, intercept = (
        net.random_slopes["cluster"].split(u)[g] for g in ("nonlinear", "linear", "intercept")
    )
    h = net.network.hidden(x)
    for i, z in enumerate(cluster[:3]):
        by_hand = h[i] @ nonlinear[z, :, 0] + x[i] @ linear[z, :, 0] + intercept[z, 0, 0]
        torch.testing.assert_close(net(x, cluster, effects="random")[i, 0], by_hand)


def test_multiplicative_slopes_rescale_the_latent():
    net, x, cluster = wrapped("Classifier")
    set_random(net).eval()
    parts = net.random_slopes["cluster"].split(net.random_effects.loc)
    h = net.network.final[0](net.network.net(x))
    by_hand = net.network.final[1](h[:1] * (1 + parts["nonlinear"][0])) + parts["intercept"][0]
    torch.testing.assert_close(net(x, cluster)[:1], by_hand)


def test_parts_can_be_left_out():
    da, x, cluster = wrapped("CNN", nonlinear_slopes=False, intercept=False)
    assert set(da(x, cluster)) == {"fixed", "adversary"}
    mixed, x, cluster = wrapped("CNN", adversary=None)
    assert set(mixed(x, cluster)) == {"mixed", "fixed", "kl"} and mixed.feature_layers == ()
    assert da.eval()(x, cluster).shape == (4, 1)


def test_network_in_any_mode_is_left_as_it_was():
    network = CNN(IMAGE, channels=(8, 8), dense_channels=8)
    network.blocks[0].eval()
    before = copy.deepcopy(network.state_dict())
    ARMED(network, 3, IMAGE)
    assert not network.blocks[0].training and network.blocks[1].training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_grad_cam_of_the_fixed_part():
    net, x, cluster = wrapped("CNN")
    set_random(net).eval()
    cam = GradCAM(net, target_layers="network.blocks.2")
    mixed = cam(x[:1], class_idx=0, cluster=cluster[:1])
    fixed = cam(x[:1], class_idx=0, cluster=cluster[:1], effects="fixed")
    assert mixed.shape == fixed.shape == (1, *IMAGE)


def test_pyro_predictive():
    net, x, _ = wrapped("DFNN", random_effects={"prior_scale": 0.7})
    set_random(net).eval()
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


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"head": "outputs"}, "CNN has no layer 'outputs'; the most similar names are"),
        ({"head": "dense.0"}, "is not the network's output"),
        ({"feature_layers": ["blocks.9"]}, "CNN has no layer 'blocks.9'"),
        ({"adversary": "big"}, "a module or None, got 'big'"),
        ({"linear_slopes": True}, "linear slopes are for tables"),
        ({"unknown": "guess"}, "unknown must be one of"),
        ({"feature_layers": []}, "feature_layers must not be empty"),
        ({"random_effects": {"prior_scale": {"slopes": 1.0}}}, "prior_scale must have the keys"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        wrapped("CNN", **kwargs)


@pytest.mark.parametrize("value", [["x0"], [4], [-1], [0, 0], [True], "age", 1])
def test_linear_slopes_of_no_columns_are_refused(value):
    with pytest.raises(ValueError, match=r"linear_slopes (must be True, False or columns between 0 and 3|names a col)"):
        wrapped("DFNN", linear_slopes=value)
    with pytest.raises(ValueError, match="linear_slopes"):
        ARMED(DFNN(4), {"site": 3, "subject": 5}, (4,), random_effects={"subject": {"linear_slopes": value}})


@pytest.mark.parametrize("name", ["nonlinear_slopes", "intercept", "multiplicative"])
@pytest.mark.parametrize("value", [["x0"], [0], (), "age", 1])
def test_slopes_of_some_features_are_refused(name, value):
    """They would be slopes of all features, whatever they name."""
    with pytest.raises(ValueError, match=f"{name} must be True or False, got .*: slopes are of all features"):
        wrapped("DFNN", **{name: value})
    with pytest.raises(ValueError, match=f"{name} must be True or False"):
        ARMED(DFNN(4), {"site": 3, "subject": 5}, (4,), random_effects={"subject": {name: value}})


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
