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

from monai_armed.losses import (
    ARMEDLoss,
    ClusterConfusionLoss,
    ClusterCrossEntropyLoss,
    GaussianLikelihoodLoss,
    ZPredictorLoss,
)
from monai_armed.networks import ARMED, DFNN


def _batch(**kwargs):
    torch.manual_seed(0)
    net = ARMED(DFNN(3), 4, (3,), adversary="dense", random_effects={"posterior_scale": 1e-6}, **kwargs)
    with torch.no_grad():
        net.random_effects.loc.normal_()
    x, label, cluster = torch.randn(6, 3), torch.randint(2, (6,)), torch.tensor([0, 1, 2, 3, 3, -1])
    return net, x, {"label": label, "cluster": cluster}


def test_total_is_equation_14():
    net, x, target = _batch()
    pred = net(x, target["cluster"])
    bce = torch.nn.BCEWithLogitsLoss()
    loss = ARMEDLoss(bce, lambda_fixed=0.3, lambda_adversary=0.7, lambda_kl=0.01)
    y = target["label"].float().unsqueeze(1)
    cce = torch.nn.functional.cross_entropy(pred["adversary"][:5], target["cluster"][:5])
    by_hand = bce(pred["mixed"], y) + 0.3 * bce(pred["fixed"], y) + 0.7 * cce + 0.01 * pred["kl"]
    torch.testing.assert_close(loss(pred, target), by_hand)
    assert set(loss.terms(pred, target)) == {"mixed", "fixed", "adversary", "kl"}
    loss.set_kl_strength(0.5)
    torch.testing.assert_close(loss(pred, target), by_hand - 0.005 * pred["kl"])


def test_gradients_have_the_signs_of_equation_14():
    """The features climb L_CCE, the adversary descends it (in the published CNN both descend)."""
    net, x, target = _batch()
    loss = ARMEDLoss(lambda logits, label: 0.0 * logits.sum(), lambda_kl=0.0, lambda_adversary=1.0)

    def cce() -> float:
        with torch.no_grad():
            return float(loss.terms(net(x, target["cluster"]), target)["adversary"])

    for part, sign in ((net.network.hidden, 1), (net.adversary, -1)):
        start = {n: p.detach().clone() for n, p in net.named_parameters()}
        before = cce()
        optimizer = torch.optim.SGD(part.parameters(), lr=1e-2)
        net.zero_grad()
        loss(net(x, target["cluster"]), target).backward()
        optimizer.step()
        assert sign * (cce() - before) > 0
        with torch.no_grad():
            for n, p in net.named_parameters():
                p.copy_(start[n])


def test_other_predictions():
    bce = torch.nn.BCEWithLogitsLoss()
    logits, label = torch.randn(6, 1), torch.randint(2, (6,))
    target = {"label": label, "cluster": torch.zeros(6, dtype=torch.long)}
    loss = ARMEDLoss(bce, lambda_fixed=0.3)
    wanted = bce(logits, label.float().unsqueeze(1))
    torch.testing.assert_close(loss(logits, target), wanted)  # a conventional network
    torch.testing.assert_close(loss({"fixed": logits}, target), wanted)  # Eq. 5: weight 1 without random effects
    classes = torch.randn(6, 3)
    cross_entropy = torch.nn.CrossEntropyLoss()
    torch.testing.assert_close(ARMEDLoss(cross_entropy)(classes, target), cross_entropy(classes, label))
    maps, mask = torch.randn(2, 1, 8, 8), torch.randint(2, (2, 1, 8, 8))
    torch.testing.assert_close(
        ARMEDLoss(bce)(maps, {"label": mask, "cluster": target["cluster"][:2]}), bce(maps, mask.float())
    )


def test_class_conditional_adversary_is_judged_within_the_class():
    net, x, target = _batch(num_classes=2)
    logits = net(x, target["cluster"])["adversary"]
    own = logits[torch.arange(6), :, target["label"]]
    loss = ClusterCrossEntropyLoss()
    torch.testing.assert_close(loss(logits, target["cluster"], target["label"]), loss(own, target["cluster"]))
    with pytest.raises(ValueError, match="one class label for each sample"):
        loss(logits, target["cluster"])


def test_cluster_cross_entropy():
    logits, cluster = torch.randn(4, 3), torch.tensor([0, 2, -1, 1])
    known = cluster >= 0
    torch.testing.assert_close(
        ClusterCrossEntropyLoss()(logits, cluster), torch.nn.functional.cross_entropy(logits[known], cluster[known])
    )
    p = logits.sigmoid()
    one_hot = torch.nn.functional.one_hot(cluster.clamp(min=0), 3)
    equation4 = -(one_hot * p.log() + (1 - one_hot) * (1 - p).log()).sum(1)[known].mean()
    torch.testing.assert_close(ClusterCrossEntropyLoss("binary")(logits, cluster), equation4)
    assert ClusterCrossEntropyLoss()(logits, torch.full((4,), -1)) == 0
    with pytest.raises(ValueError, match="'categorical' or 'binary', got 'hinge'"):
        ClusterCrossEntropyLoss("hinge")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float64])
def test_labels_and_clusters_may_be_of_any_type(dtype):
    logits, cluster, label = torch.randn(4, 3, 2), torch.tensor([0, 2, -1, 1]), torch.tensor([0, 1, 1, 0])
    for loss, given in ((ClusterCrossEntropyLoss(), [cluster]), (ClusterConfusionLoss(), [])):
        narrow = [index.int() for index in given]
        torch.testing.assert_close(loss(logits, *narrow, label.to(dtype)), loss(logits, *given, label))


@pytest.mark.parametrize("kind", ["uniform", "entropy"])
def test_confusion_is_bounded_and_zero_without_opinion(kind):
    loss = ClusterConfusionLoss(kind)
    assert abs(loss(torch.full((5, 4), 2.0))) < 1e-6
    opinions = [loss(scale * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))) for scale in (0.1, 1, 10)]
    assert 0 < opinions[0] < opinions[1] < opinions[2]
    if kind == "entropy":
        assert opinions[2] < math.log(4)


def test_confusion_term_has_the_adversarys_weight():
    net, x, target = _batch(confusion=True)
    pred = net(x, target["cluster"])
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=0.7)
    terms = loss.terms(pred, target)
    plain = loss.total({k: v for k, v in terms.items() if k != "confusion"})
    torch.testing.assert_close(loss(pred, target), plain + 0.7 * terms["confusion"])


def test_gaussian_likelihood():
    loss = GaussianLikelihoodLoss(2.0)
    x, y = torch.randn(5, 1), torch.randn(5, 1)
    wanted = ((x - y) ** 2 / 8 + math.log(2 * math.sqrt(2 * math.pi))).mean()
    torch.testing.assert_close(loss(x, y), wanted)
    with pytest.raises(ValueError, match="scale must be positive"):
        GaussianLikelihoodLoss(0.0)


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match=r"lambda_adversary must not be negative, got -0\.1"):
        ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=-0.1)


@pytest.mark.parametrize("loss", [ClusterCrossEntropyLoss(), ClusterConfusionLoss()])
def test_samples_of_unknown_class_do_not_count_for_a_class_conditional_adversary(loss):
    logits = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0))
    label, cluster = torch.tensor([0, 1, -1, 1, -1, 0]), torch.arange(6) % 4
    known = label >= 0
    given = (cluster,) if isinstance(loss, ClusterCrossEntropyLoss) else ()
    fewer = (cluster[known],) if given else ()
    torch.testing.assert_close(loss(logits, *given, label), loss(logits[known], *fewer, label[known]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["image", "label", "weights"])
def test_a_loss_that_is_not_finite_is_said_before_it_spoils_the_weights(value, where):
    net, x, target = _batch()
    target["label"] = target["label"].float()
    if where == "image":
        x[2, 1] = value
    elif where == "label":
        target["label"][2] = value
    else:
        net.adversary.classifier.layers[-1].bias.data[1] = value
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss())
    named = "adversary" if where == "weights" else "mixed"
    with pytest.raises(
        ValueError, match=rf"the loss is .*\(.*{named} -?(nan|inf).*\): lower the learning rate or lambda"
    ):
        loss(net(x, target["cluster"]), target)
    with torch.no_grad():  # to validate with it is no harm
        assert not loss(net(x, target["cluster"]), target).isfinite()


@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [0.0, 1.0, 2.0, 1.0]])
@pytest.mark.parametrize("loss", [ClusterCrossEntropyLoss(), ClusterConfusionLoss()])
def test_class_labels_beyond_the_adversarys_classes_are_refused(loss, labels):
    arguments = [torch.arange(4) % 3] if isinstance(loss, ClusterCrossEntropyLoss) else []
    with pytest.raises(ValueError, match=r"class label 2 is out of range: .* num_classes=2, whose labels are 0 to 1"):
        loss(torch.randn(4, 3, 2), *arguments, torch.tensor(labels))


@pytest.mark.parametrize("loss", [ClusterCrossEntropyLoss(), ClusterConfusionLoss()])
def test_labels_that_are_no_classes_are_refused_by_a_class_conditional_adversary(loss):
    """Smoothed labels, 0.05 and 0.95, would all be class 0."""
    arguments = [torch.arange(4) % 3] if isinstance(loss, ClusterCrossEntropyLoss) else []
    with pytest.raises(ValueError, match="needs classes, but labels have fractions"):
        loss(torch.randn(4, 3, 2), *arguments, torch.tensor([0.05, 0.95, 0.95, 0.05]))
    assert loss(torch.randn(4, 3, 2), *arguments, torch.tensor([0.0, 1.0, torch.nan, -1.0])).isfinite()


@pytest.mark.parametrize("kind", ["categorical", "binary"])
@pytest.mark.parametrize("index", [3, -2])
def test_clusters_that_the_adversary_does_not_have_are_refused(kind, index):
    with pytest.raises(ValueError, match=f"cluster index {index} is out of range: the adversary has clusters 0 to 2"):
        ClusterCrossEntropyLoss(kind)(torch.randn(4, 3), torch.tensor([0, 1, index, -1]))


def test_gaussian_likelihood_of_one_column_and_of_other_shapes():
    loss, predicted, target = GaussianLikelihoodLoss(0.7), torch.randn(8, 1), torch.randn(8)
    torch.testing.assert_close(loss(predicted, target), loss(predicted, target.unsqueeze(1)))
    for shapes in ((8, 2), (8,)), ((8,), (8, 1)), ((8, 1), (8, 8)), ((8, 3), (3,)):
        with pytest.raises(ValueError, match=r"the logits have shape .* and the target"):
            loss(*(torch.zeros(shape) for shape in shapes))


def test_a_kl_term_of_each_device_is_one_term():
    net, x, target = _batch()
    pred = dict(net(x, target["cluster"]))
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss())
    whole = loss(pred, target)
    torch.testing.assert_close(loss({**pred, "kl": pred["kl"].expand(2)}, target), whole)


@pytest.mark.parametrize("kind", ["categorical", "binary"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8])
def test_clusters_of_any_integer_type_count_alike(dtype, kind):
    logits, cluster = torch.randn(4, 3), torch.tensor([0, 2, 1, 2])
    loss = ClusterCrossEntropyLoss(kind)
    assert torch.equal(loss(logits, cluster.to(dtype)), loss(logits, cluster))
    of_new = ZPredictorLoss()
    assert torch.equal(of_new(logits, {"cluster": cluster.to(dtype)}), of_new(logits, {"cluster": cluster}))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64])
def test_classes_of_any_type_condition_the_adversary_alike(dtype):
    logits, cluster, label = torch.randn(4, 3, 2), torch.tensor([0, 2, 1, 2]), torch.tensor([0, 1, 1, 0])
    assert torch.equal(
        ClusterCrossEntropyLoss()(logits, cluster, label.to(dtype)), ClusterCrossEntropyLoss()(logits, cluster, label)
    )
    assert torch.equal(ClusterConfusionLoss()(logits, label.to(dtype)), ClusterConfusionLoss()(logits, label))
