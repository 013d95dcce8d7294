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

from monai_armed.losses import AECLoss

WEIGHTS = {"lambda_class": 0.2, "lambda_adversary": 0.5, "lambda_cluster": 0.3, "lambda_kl": 0.1}
OF_CLUSTER = ("adversary", "latent_cluster", "image_cluster", "reconstruction_cluster")


def output(count: int = 5, clusters: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    pred = {name: draw(count, 1) for name in ("mixed", "fixed")}
    pred |= {name: draw(count, 1, 4, 4) for name in ("fixed_reconstruction", "mixed_reconstruction")}
    pred |= {name: draw(count, clusters) for name in OF_CLUSTER}
    return pred | {"kl": torch.tensor(7.0)}


def target() -> dict[str, torch.Tensor]:
    image = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return {"image": image, "label": torch.tensor([0, 1, -1, 1, 0]), "cluster": torch.tensor([0, 1, 2, -1, 0])}


def test_terms_by_hand():
    pred, wanted = output(), target()
    terms = AECLoss(**WEIGHTS).terms(pred, wanted)
    assert set(terms) == set(pred)
    labelled, known = [0, 1, 3, 4], [0, 1, 2, 4]
    for name in ("mixed", "fixed"):
        p = pred[name][labelled, 0].sigmoid()
        y = wanted["label"][labelled]
        by_hand = -torch.where(y == 1, p, 1 - p).log().mean()
        torch.testing.assert_close(terms[name], by_hand)
    for name in ("fixed_reconstruction", "mixed_reconstruction"):
        torch.testing.assert_close(terms[name], ((pred[name] - wanted["image"]) ** 2).mean())
    for name in OF_CLUSTER:
        chosen = pred[name].log_softmax(1)[known, wanted["cluster"][known]]
        torch.testing.assert_close(terms[name], -chosen.mean())
    assert terms["kl"] == 7


def test_total_is_equation_s5():
    loss, pred, wanted = AECLoss(**WEIGHTS), output(), target()
    t = loss.terms(pred, wanted)
    reconstruction = t["fixed_reconstruction"] + t["mixed_reconstruction"]
    phenotype = 0.2 * (t["fixed"] + t["mixed"])
    cluster = t["latent_cluster"] + t["image_cluster"] + t["reconstruction_cluster"]
    by_hand = reconstruction + phenotype + 0.3 * cluster + 0.5 * t["adversary"]
    torch.testing.assert_close(loss(pred, wanted), by_hand + 0.1 * 7)
    loss.set_kl_strength(0.5)
    torch.testing.assert_close(loss(pred, wanted), by_hand + 0.05 * 7)


def test_samples_without_label_or_cluster_do_not_count():
    loss, pred, wanted = AECLoss(), output(), target()
    before = loss.terms(pred, wanted)
    pred["fixed"][2] += 5  # not labelled
    for name in OF_CLUSTER:
        pred[name][3] += torch.tensor([3.0, 0.0, -3.0])  # of unknown cluster
    after = loss.terms(pred, wanted)
    assert all(torch.equal(after[name], before[name]) for name in before)
    pred["fixed_reconstruction"][2:4] += 1  # but they train the reconstruction
    assert loss.terms(pred, wanted)["fixed_reconstruction"] > before["fixed_reconstruction"]


def test_a_batch_without_any_label_or_cluster():
    pred, wanted = output(), target()
    for name in ("fixed", "latent_cluster"):
        pred[name].requires_grad_()
    wanted |= {"label": torch.full((5,), -1), "cluster": torch.full((5,), -1)}
    loss = AECLoss()
    terms = loss.terms(pred, wanted)
    assert all(terms[name] == 0 for name in ("mixed", "fixed", *OF_CLUSTER))
    loss.total(terms).backward()
    assert not pred["fixed"].grad.any() and not pred["latent_cluster"].grad.any()


def test_networks_with_fewer_parts_have_fewer_terms():
    pred, wanted = output(), target()
    conventional = {name: pred[name] for name in ("fixed", "fixed_reconstruction")}
    loss = AECLoss(lambda_class=2.0)
    terms = loss.terms(conventional, wanted)
    assert set(terms) == set(conventional)
    torch.testing.assert_close(loss(conventional, wanted), terms["fixed_reconstruction"] + 2 * terms["fixed"])


def test_chance_is_ln_c():
    pred = output() | {"latent_cluster": torch.zeros(5, 3)}
    assert float(AECLoss().terms(pred, target())["latent_cluster"]) == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize("name", WEIGHTS)
def test_negative_weights(name):
    with pytest.raises(ValueError, match=f"{name} must not be negative, got -0.1"):
        AECLoss(**{name: -0.1})


def test_target_without_the_cluster():
    wanted = target()
    del wanted["cluster"]
    with pytest.raises(ValueError, match="the target must be a dict with"):
        AECLoss()(output(), wanted)
