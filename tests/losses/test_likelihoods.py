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

"""Losses that are likelihoods: against SciPy's densities, and with the offset and weight of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from monai_armed.engines import PrepareBatchCluster
from monai_armed.losses import (
    ARMEDLoss,
    BinomialLikelihoodLoss,
    GaussianLikelihoodLoss,
    NegativeBinomialLikelihoodLoss,
    OrdinalLikelihoodLoss,
    PoissonLikelihoodLoss,
)

ETA = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.double)
WEIGHT = torch.tensor([4.0, 1.0, 10.0], dtype=torch.double)
MEAN, SHARE = np.exp(ETA.numpy()[:, 0]), ETA.sigmoid().numpy()[:, 0]
COUNTS = np.array([0.0, 3.0, 9.0])


@pytest.mark.parametrize(
    "loss, target, weight, wanted",
    [
        (GaussianLikelihoodLoss(0.5), COUNTS, None, stats.norm(ETA[:, 0], 0.5).logpdf(COUNTS)),
        (GaussianLikelihoodLoss(0.5), COUNTS, WEIGHT, stats.norm(ETA[:, 0], 0.5 / WEIGHT**0.5).logpdf(COUNTS)),
        (BinomialLikelihoodLoss(), [0.0, 1.0, 1.0], None, stats.bernoulli(SHARE).logpmf([0, 1, 1])),
        (BinomialLikelihoodLoss(), [0.25, 1.0, 0.7], WEIGHT, stats.binom(WEIGHT, SHARE).logpmf([1, 1, 7])),
        (PoissonLikelihoodLoss(), COUNTS, None, stats.poisson(MEAN).logpmf(COUNTS)),
        (PoissonLikelihoodLoss(), COUNTS, WEIGHT, WEIGHT.numpy() * stats.poisson(MEAN).logpmf(COUNTS)),
        (NegativeBinomialLikelihoodLoss(2.5), COUNTS, None, stats.nbinom(2.5, 2.5 / (2.5 + MEAN)).logpmf(COUNTS)),
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_equals_the_density_of_scipy(loss, target, weight, wanted, flat):
    target = torch.tensor(np.asarray(target))
    value = loss.double()(ETA, target if flat else target[:, None], weight)
    assert value.item() == pytest.approx(-np.mean(wanted), rel=1e-6)


def test_ordinal_levels_have_the_logistic_distribution_between_thresholds():
    loss = OrdinalLikelihoodLoss(4).double()
    with torch.no_grad():
        loss.log_gaps.copy_(torch.tensor([0.5, -1.0]))
    edges = np.concatenate([[-np.inf], loss.thresholds.detach(), [np.inf]])
    wanted = np.diff(stats.logistic(ETA.numpy()).cdf(edges), axis=1)
    np.testing.assert_allclose(loss.mean(ETA).detach(), wanted, rtol=1e-6)
    level = torch.tensor([3, 0, 2])
    assert loss(ETA, level).item() == pytest.approx(-np.log(wanted[range(3), level]).mean())
    far = torch.tensor([[50.0], [-50.0]], dtype=torch.double, requires_grad=True)
    value = loss(far, torch.tensor([0, 3]))
    value.backward()
    assert value.item() == pytest.approx(50, abs=3) and bool(far.grad.isfinite().all())
    assert bool(loss.log_gaps.grad.isfinite().all())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: NegativeBinomialLikelihoodLoss(0.0), "shape must be positive, got 0"),
        (lambda: OrdinalLikelihoodLoss(1), "num_levels must be at least 2, got 1"),
        (lambda: OrdinalLikelihoodLoss(3)(ETA, torch.tensor([1, 2, 3])), "from 0 to 2, got 3: R counts them from 1"),
        (lambda: OrdinalLikelihoodLoss(3)(ETA, torch.tensor([0.0, -1, 2])), "from 0 to 2, got -1"),
        (lambda: OrdinalLikelihoodLoss(3)(ETA, torch.tensor([0, 0.5, 2])), "from 0 to 2, got 0.5"),
        (lambda: PoissonLikelihoodLoss()(ETA, torch.zeros(2)), r"logits have shape \(3, 1\) and the target \(2,\)"),
        (lambda: PoissonLikelihoodLoss()(ETA, torch.zeros(3), torch.ones(1, 3)), r"the weight \(1, 3\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_offset_and_weight_of_a_batch_reach_the_loss():
    batch = {"image": torch.zeros(3, 2), "label": torch.tensor(COUNTS), "cluster": torch.zeros(3, dtype=torch.long)}
    batch |= {"offset": torch.tensor([0.1, 0.2, 0.3]), "weight": WEIGHT}
    _, target, _, _ = PrepareBatchCluster(target_keys=["offset", "weight"])(batch)
    terms = ARMEDLoss(PoissonLikelihoodLoss()).terms({"mixed": ETA, "fixed": 0 * ETA}, target)
    for name, eta in (("mixed", ETA), ("fixed", 0 * ETA)):
        mean = np.exp(eta[:, 0] + batch["offset"])
        wanted = -(WEIGHT.numpy() * stats.poisson(mean).logpmf(COUNTS)).mean()
        assert terms[name].item() == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(ValueError, match="BCEWithLogitsLoss takes no weights"):
        ARMEDLoss(torch.nn.BCEWithLogitsLoss())({"fixed": ETA}, target)
    del batch["offset"]
    with pytest.raises(ValueError, match="a batch has no 'offset'"):
        PrepareBatchCluster(target_keys=["offset"])(batch)
