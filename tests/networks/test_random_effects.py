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

import math

import pytest
import torch

from monai_armed.networks.layers import RandomEffects


def _moved(**kwargs) -> RandomEffects:
    torch.manual_seed(0)
    effects = RandomEffects(5, 3, **kwargs)
    with torch.no_grad():
        for name, p in effects.named_parameters():
            if name in ("loc", "log_scale", "lower"):
                p.add_(0.3 * torch.randn_like(p))
            elif name == "prior_lower":
                p.add_(0.2 * torch.randn_like(p))
    return effects


def test_kl_equals_closed_form():
    effects = _moved(prior_scale=torch.tensor([0.1, 0.3, 2.0]))
    s, p, m = effects.scale, effects.prior_scale, effects.loc
    closed = (p.log() - s.log() + (s**2 + m**2) / (2 * p**2) - 0.5).sum()
    torch.testing.assert_close(effects.kl(), closed)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_kl_equals_monte_carlo(covariance):
    effects = _moved(covariance=covariance, learn_prior=True, prior_scale=0.5, posterior_scale=0.4)
    q, p = effects.posterior(), effects.prior()
    u = q.sample((40_000,))
    ratio = q.log_prob(u) - p.log_prob(u)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - effects.kl()) < 4 * error


def test_full_equals_diagonal_where_nothing_correlates():
    diagonal, full = RandomEffects(4, 2, prior_scale=0.7), RandomEffects(4, 2, prior_scale=0.7, covariance="full")
    with torch.no_grad():
        diagonal.loc.normal_()
        full.loc.copy_(diagonal.loc)
    torch.testing.assert_close(full.kl(), diagonal.kl())
    torch.testing.assert_close(full.scale, diagonal.scale)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("sampling", ["cluster", "sample"])
def test_draws_have_the_posterior_moments(covariance, sampling):
    effects = _moved(covariance=covariance, sampling=sampling, posterior_scale=0.5)
    index = torch.tensor([2, 2])
    draws = torch.stack([effects(index) for _ in range(8000)]).detach()
    torch.testing.assert_close(draws.mean(0)[0], effects.loc[2].detach(), atol=0.03, rtol=0)
    torch.testing.assert_close(draws.std(0)[0], effects.scale[2].detach(), atol=0.03, rtol=0.03)
    shared = torch.equal(draws[:, 0], draws[:, 1])
    assert shared == (sampling == "cluster")
    if covariance == "full":
        wanted = effects.posterior().base_dist.covariance_matrix[2].detach()
        torch.testing.assert_close(torch.cov(draws[:, 0].T), wanted, atol=0.03, rtol=0.05)


def test_evaluation_gives_the_mean_and_unknown_is_zero():
    effects = _moved().eval()
    u = effects(torch.tensor([1, -1, 4]))
    torch.testing.assert_close(u, torch.stack([effects.loc[1], torch.zeros(3), effects.loc[4]]))


def test_soft_assignment_mixes():
    effects = _moved().eval()
    z = torch.tensor([[0.25, 0.75, 0, 0, 0], [0, 0, 0, 0, 0]])
    u = effects(z)
    torch.testing.assert_close(u[0], 0.25 * effects.loc[0] + 0.75 * effects.loc[1])
    assert torch.equal(u[1], torch.zeros(3))


def test_one_hot_equals_index():
    effects = _moved().eval()
    index = torch.tensor([0, 3, 4])
    torch.testing.assert_close(effects(index), effects(torch.nn.functional.one_hot(index, 5).float()))


def test_interval_covers_its_level():
    effects = _moved()
    lower, upper = effects.interval(0.9)
    draws = effects.posterior().sample((20_000,))
    inside = ((draws > lower) & (draws < upper)).float().mean()
    assert abs(inside - 0.9) < 0.01


def test_prior_is_fixed_or_learned():
    for learn in (False, True):
        effects = RandomEffects(4, 2, learn_prior=learn)
        assert effects.log_prior_scale.requires_grad == learn
    effects.kl().backward()
    assert effects.log_prior_scale.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"num_clusters": 0}, "num_clusters must be at least 1, got 0"),
        ({"num_effects": 0}, "num_effects must be at least 1"),
        ({"covariance": "banded"}, "covariance must be 'diagonal' or 'full', got 'banded'"),
        ({"sampling": "batch"}, "sampling must be"),
        ({"prior_scale": -1.0}, "prior_scale must be positive, got -1.0"),
        ({"posterior_scale": 0.0}, "posterior_scale must be positive"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RandomEffects(**{"num_clusters": 3, "num_effects": 2, **kwargs})


@pytest.mark.parametrize(
    "cluster, message",
    [
        (torch.tensor([0, 3]), "cluster index 3 is out of range: the random effects have clusters 0 to 2"),
        (torch.tensor([[0], [1]]), r"integer index \(B,\) or a soft assignment \(B, 3\), got a torch.int64 tensor"),
        (torch.rand(2, 4), r"got a torch.float32 tensor of shape \(2, 4\)"),
        (torch.tensor([0.0, 1.0]), r"got a torch.float32 tensor of shape \(2,\)"),
    ],
)
def test_clusters_that_do_not_fit_are_refused(cluster, message):
    with pytest.raises(ValueError, match=message):
        RandomEffects(3, 2)(cluster)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_any_integer_type_is_an_index(dtype):
    effects = RandomEffects(3, 2).eval()
    torch.nn.init.normal_(effects.loc)
    index = torch.tensor([0, 2, 1])
    torch.testing.assert_close(effects(index.to(dtype)), effects(index))


@pytest.mark.parametrize("posterior_scale, prior_scale", [(0.05, 0.25), (1.0, 1.0)])
def test_a_learned_prior_is_found_from_any_start(posterior_scale, prior_scale):
    """Binary answers, random slopes: from the default start, too, where the slopes were .1 without the stretch."""
    generator = torch.Generator().manual_seed(0)
    cluster = torch.arange(200).repeat_interleave(12)
    x = torch.randn(len(cluster), generator=generator)
    slope, intercept = (sd * torch.randn(200, generator=generator) for sd in (0.7, 1.0))
    logit = x * (1 + slope[cluster]) + intercept[cluster]
    label = (torch.rand(len(x), generator=generator) < logit.sigmoid()).float()
    torch.manual_seed(0)
    effects = RandomEffects(200, 2, prior_scale, True, posterior_scale, sampling="sample")
    fixed = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([fixed, *effects.parameters()], lr=0.03)
    for _ in range(500):
        optimizer.zero_grad()
        u = effects(cluster) + fixed
        loss = torch.nn.functional.binary_cross_entropy_with_logits(u[:, 0] * x + u[:, 1], label)
        (loss + effects.kl() / len(x)).backward()
        optimizer.step()
    found = effects.eval().prior_scale.tolist()
    assert found == pytest.approx([slope.std().item(), intercept.std().item()], rel=0.15)


def test_the_stretch_is_folded_in_evaluation_and_changes_nothing():
    effects = _moved(covariance="full", learn_prior=True)
    with torch.no_grad():
        effects.log_stretch.copy_(torch.tensor([0.5, -1.0, 0.2]))
    index = torch.tensor([0, 4])
    before = effects.mean, effects.scale, effects.prior_scale, effects.kl(), effects.cluster_prior().covariance_matrix
    torch.testing.assert_close(before[3], torch.distributions.kl_divergence(effects.posterior(), effects.prior()))
    effects.eval()
    assert not effects.log_stretch.any()
    after = effects.loc, effects.scale, effects.prior_scale, effects.kl(), effects.cluster_prior().covariance_matrix
    torch.testing.assert_close(before, after)
    torch.testing.assert_close(effects(index), before[0][index])


def test_an_effect_without_use_stays_where_it_is():
    effects = _moved(learn_prior=True)
    (effects(torch.tensor([0, 1]))[:, 0].sum() + effects.kl()).backward()
    assert effects.log_stretch.grad[0] != 0 and not effects.log_stretch.grad[1:].any()


def test_weights_of_before_there_was_a_stretch_are_loaded():
    effects = RandomEffects(5, 3, learn_prior=True)
    old = {name: value + 1 for name, value in effects.state_dict().items() if name != "log_stretch"}
    effects.load_state_dict(old)
    assert torch.equal(effects.mean, old["loc"])
