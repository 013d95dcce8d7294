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

"""GroupDRO, V-REx and CORAL: what they make of a batch by hand, and that they train any network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from monai_armed.losses import ARMEDLoss, CORALLoss, GroupDROLoss, VRExLoss
from monai_armed.networks import ARMED, DFNN

LABEL = torch.tensor([0.0, 1, 0, 1, 1, 0, 1, 0])
CLUSTER = torch.tensor([0, 0, 1, 1, 1, 2, 2, -1])
TARGET = {"label": LABEL[:, None], "cluster": CLUSTER}


def plain(weight: float = 2.0) -> torch.nn.Module:
    return torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight))


def logits_and_risks(groups: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(8, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return logits, torch.stack([plain()(logits[rows], LABEL[rows, None]) for rows in groups])


def test_vrex_is_mean_and_variance_of_the_clusters_risks():
    logits, risks = logits_and_risks([[0, 1], [2, 3, 4], [5, 6], [7]])  # the unknown are a cluster of their own
    wanted = risks.mean() + 3 * risks.var(unbiased=False)
    torch.testing.assert_close(VRExLoss(plain(), num_clusters=5, penalty=3.0)(logits, TARGET), wanted)


def test_group_dro_moves_the_weight_to_the_worst_classes_within_clusters():
    rows = [[0], [1], [2], [3, 4], [5], [6], [7]]
    logits, risks = logits_and_risks(rows)
    loss = GroupDROLoss(plain(), num_clusters=3, num_classes=2, step_size=0.5)
    weight = torch.ones(7)
    for _ in range(3):
        weight = weight * torch.exp(0.5 * risks.detach())
        torch.testing.assert_close(loss(logits, TARGET), (weight * risks).sum() / weight.sum())
    grown = loss.log_weight.exp()[[0, 1, 2, 3, 4, 5, 6]]
    assert grown.argmax() == risks.argmax()
    state = copy.deepcopy(loss.state_dict())
    again = GroupDROLoss(plain(), num_clusters=3, num_classes=2, step_size=0.5)
    again.load_state_dict(state)
    torch.testing.assert_close(again(logits, TARGET), loss(logits, TARGET))


def test_groups_that_a_batch_lacks_keep_their_share():
    loss = GroupDROLoss(plain(), num_clusters=3, step_size=1.0)
    logits, _ = logits_and_risks([[0]])
    part = {"label": TARGET["label"][:2], "cluster": CLUSTER[:2]}
    torch.testing.assert_close(loss(logits[:2], part), plain()(logits[:2], part["label"]))  # one group: its mean
    others = loss.log_weight.exp()[1:]
    torch.testing.assert_close(others, others[:1].expand(3))


@pytest.mark.parametrize("make", [lambda: GroupDROLoss(plain(), 3, 2), lambda: VRExLoss(plain(), 3)])
def test_validation_is_by_the_plain_loss(make):
    loss, (logits, _) = make(), logits_and_risks([[0]])
    before = copy.deepcopy(loss.state_dict())
    torch.testing.assert_close(loss(logits.detach(), TARGET), plain()(logits.detach(), TARGET["label"]))
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_coral_is_the_mean_over_pairs_of_clusters():
    torch.manual_seed(0)
    net, x = DFNN(3, hidden_channels=(5, 4)), torch.randn(8, 3)
    loss = CORALLoss(plain(), net, "hidden.1", num_clusters=3, penalty=0.7)
    kept = []
    net.hidden[1].register_forward_hook(lambda module, args, output: kept.append(output))
    logits = net(x)
    terms = loss.terms(logits, TARGET)
    groups = [kept[0][CLUSTER == c] for c in range(3)]
    pairs = [(a, b) for i, a in enumerate(groups) for b in groups[:i]]
    means = [(a.mean(0) - b.mean(0)).square().mean() for a, b in pairs]
    covariances = [(a.T.cov() - b.T.cov()).square().mean() for a, b in pairs]
    torch.testing.assert_close(terms["coral"], torch.stack(means).mean() + torch.stack(covariances).mean())
    torch.testing.assert_close(loss(net(x), TARGET), plain()(logits, TARGET["label"]) + 0.7 * terms["coral"])
    with torch.no_grad():
        assert set(loss.terms(net(x), TARGET)) == {"fixed"}
    alone = {"label": TARGET["label"][:1], "cluster": CLUSTER[:1]}
    assert float(loss.terms(net(x[:1]), alone)["coral"].detach()) == 0  # nothing to compare


@pytest.mark.parametrize("kind", ["dro", "vrex", "coral"])
@pytest.mark.parametrize("armed", [False, True])
def test_any_network_learns_by_them(kind, armed):
    torch.manual_seed(0)
    base = DFNN(2, hidden_channels=(8,))
    net = ARMED(base, 3, (2,), adversary="dense") if armed else base
    inner = torch.nn.BCEWithLogitsLoss()
    loss: ARMEDLoss = {
        "dro": lambda: GroupDROLoss(inner, 3, 2),
        "vrex": lambda: VRExLoss(inner, 3),
        "coral": lambda: CORALLoss(inner, base, "hidden.0", 3),
    }[kind]()
    x, cluster = torch.randn(90, 2), torch.arange(90) % 3
    label = (x[:, :1] > 0).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loss(net(x, cluster) if armed else net(x), {"label": label, "cluster": cluster}).backward()
        optimizer.step()
    assert float(bce(net.eval()(x), label)) < 0.35


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VRExLoss(plain(), 1), "num_clusters must be at least 2, got 1"),
        (lambda: VRExLoss(plain(), 2, penalty=-1), "penalty must not be negative, got -1"),
        (lambda: GroupDROLoss(plain(), 2, num_classes=-1), "num_classes must not be negative, got -1"),
        (lambda: GroupDROLoss(plain(), 2, step_size=0), "step_size must be positive, got 0"),
        (lambda: CORALLoss(plain(), DFNN(2), "hiden.0", 2), "no layer 'hiden.0'"),
        (lambda: CORALLoss(plain(), DFNN(2), "hidden.0", 2, penalty=-1), "penalty must not be negative, got -1"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_target_without_clusters_is_refused():
    logits, _ = logits_and_risks([[0]])
    with pytest.raises(ValueError, match="VRExLoss needs the clusters"):
        VRExLoss(plain(), 2)(logits, {"label": TARGET["label"]})
    net = DFNN(3)
    with pytest.raises(ValueError, match="CORALLoss needs the clusters"):
        CORALLoss(plain(), net, "hidden.0", 2)(net(torch.randn(8, 3)), {"label": TARGET["label"]})


def test_vrex_is_the_same_for_networks_that_are_trained_as_a_stack():
    logits, loss = torch.randn(3, 8, 1, generator=torch.Generator().manual_seed(0)), VRExLoss(plain(), 3)
    stacked = torch.func.vmap(torch.func.grad(lambda one: loss(one, TARGET)))(logits)
    logits.requires_grad_()
    (alone,) = torch.autograd.grad(sum(loss(one, TARGET) for one in logits), logits)
    torch.testing.assert_close(stacked, alone)
    assert not torch.allclose(
        alone, torch.autograd.grad(sum(plain()(one, TARGET["label"]) for one in logits), logits)[0]
    )


@pytest.mark.parametrize("make", [lambda: GroupDROLoss(plain(), 2, 2), lambda: VRExLoss(plain(), 2)])
def test_a_cluster_that_the_loss_does_not_have_is_refused(make):
    logits = torch.zeros(8, 1, requires_grad=True)
    with pytest.raises(ValueError, match="cluster index 2 is out of range: the loss has clusters 0 to 1"):
        make()(logits, TARGET)
