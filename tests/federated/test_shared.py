"""What leaves a hospital, and what the averages and sums of several come to."""

from __future__ import annotations

import pytest
import torch

from monai_armed.federated import average, load_shared, shared_state
from monai_armed.federated.masks import Masks, unmasked_sum
from monai_armed.federated.sums import fit_added_up, sums_to_add
from monai_armed.networks.erasure import ClusterEraser, FeatureSums, fit_eraser
from monai_armed.networks.nets import ARMED, DFNN


def network(clusters: int = 2, adversary: str | None = None, **options) -> ARMED:
    torch.manual_seed(clusters)
    options = {"learn_prior": True, "covariance": "full", **options}
    erasers = {"hidden": ClusterEraser(4)}
    base = DFNN(3, hidden_channels=(4,))
    return ARMED(base, clusters, (3,), adversary=adversary, random_effects=options, erasers=erasers)


def test_only_the_fixed_part_the_prior_and_the_erasers_are_shared():
    net = network()
    names = set(shared_state(net))
    assert names == {
        "network.hidden.0.0.weight",
        "network.hidden.0.0.bias",
        "network.head.weight",
        "network.head.bias",
        "random_slopes.cluster.effects.log_prior_scale",
        "random_slopes.cluster.effects.prior_lower",
        "erasers.0.matrix",
        "erasers.0.offset",
        "erasers.0.rank",
    }
    rows = [value for name, value in net.state_dict().items() if name not in names]
    assert rows and all(value.shape[0] == net.num_clusters or value.ndim == 1 for value in rows)


def test_what_is_shared_fits_hospitals_with_other_numbers_of_clusters_and_leaves_their_rows():
    one, other = network(2), network(5)
    before = other.random_effects.loc.detach().clone()
    load_shared(other, shared_state(one))
    torch.testing.assert_close(shared_state(other), shared_state(one))
    torch.testing.assert_close(other.random_effects.loc.detach(), before)


def test_a_stretch_is_in_the_shared_scale():
    net = network()
    with torch.no_grad():
        net.random_effects.log_stretch.fill_(0.7)
    scale = net.random_effects.log_prior_scale.detach().clone()
    shared = shared_state(net)["random_slopes.cluster.effects.log_prior_scale"]
    torch.testing.assert_close(shared, scale + 0.7)


def test_an_average_is_weighted_by_samples_and_is_the_joint_gradient_step():
    """One step of gradient descent in each hospital, averaged, is the step on the mean over all samples."""
    torch.manual_seed(0)
    x, label = torch.rand(30, 3), torch.randint(2, (30, 1)).float()
    start = shared_state(network())

    def step(rows: slice) -> dict[str, torch.Tensor]:
        net = network()
        load_shared(net, start)
        logits = net.network(x[rows])
        torch.nn.functional.binary_cross_entropy_with_logits(logits, label[rows]).backward()
        torch.optim.SGD(net.network.parameters(), lr=0.5).step()
        return shared_state(net)

    states = {"a": step(slice(0, 10)), "b": step(slice(10, 30))}
    torch.testing.assert_close(average(states, {"a": 10, "b": 20}), step(slice(None)))


def test_hospitals_kl_terms_add_up_to_the_pooled_one():
    pooled = network(5, covariance="diagonal")
    with torch.no_grad():
        pooled.random_effects.loc.normal_()
    parts = []
    for rows, samples in ((slice(0, 2), 20), (slice(2, 5), 60)):
        own = network(rows.stop - rows.start, covariance="diagonal")
        load_shared(own, shared_state(pooled))
        with torch.no_grad():
            own.random_effects.loc.copy_(pooled.random_effects.loc[rows])
        parts.append(samples / 80 * own.random_effects.kl() / samples)
    torch.testing.assert_close(torch.stack(parts).sum(), pooled.random_effects.kl() / 80)


@pytest.mark.parametrize("values", [{}, {"num_classes": 2}, {"num_values": 1}])
def test_masked_sums_of_two_hospitals_give_the_pooled_eraser(values):
    """Also with labels that are not known, and with clusters that are not known in one of the hospitals."""
    generator = torch.Generator().manual_seed(1)
    cluster = torch.randint(-1, 5, (400,), generator=generator)
    label = torch.randint(-1, 2, (400,), generator=generator)
    features = torch.randn(400, 6, generator=generator, dtype=torch.double)
    features[:, 0] += cluster
    features[:, 1] += label
    value = torch.where(label < 0, torch.nan, label.double())
    given = value if "num_values" in values else label if values else None
    pooled = FeatureSums(6, 5, **values)
    pooled.update(features, cluster, given)
    hospitals, parts = [Masks(), Masks()], []
    for masks, own in zip(hospitals, ([-1, 0, 1], [2, 3, 4])):
        here = torch.isin(cluster, torch.tensor(own))
        sums = FeatureSums(6, 3, **values)
        index = torch.where(cluster[here] < 0, -1, cluster[here] - max(own[0], 0))
        sums.update(features[here], index, None if given is None else given[here])
        parts.append((masks, sums_to_add(sums)))
    keys = [masks.key for masks in hospitals]
    hidden = [masks.hide(torch.cat([t.reshape(-1) for t in sums.values()]), keys) for masks, sums in parts]
    split = unmasked_sum(hidden).split([tensor.numel() for tensor in parts[0][1].values()])
    added = {name: flat.reshape(tensor.shape) for flat, (name, tensor) in zip(split, parts[0][1].items())}
    wanted = fit_eraser(pooled, keep_label=False).state_dict()
    found = fit_added_up(added, values.get("num_values", 0)).state_dict()
    assert int(wanted["rank"]) >= 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_sums_to_add_say_nothing_of_one_cluster():
    """Clusters that have changed their names, and means that have changed sides, add the same."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(90, 4, generator=generator, dtype=torch.double)
    cluster, label = torch.arange(90) % 3, torch.arange(90) // 3 % 2
    added = []
    for names in ([0, 1, 2], [2, 0, 1]):
        sums = FeatureSums(4, 3, num_classes=2)
        sums.update(features, torch.tensor(names)[cluster], label)
        added.append(sums_to_add(sums))
    torch.testing.assert_close(added[0], added[1])
    assert all(len(tensor) in (2, 4) for tensor in added[0].values())  # by class, number or feature: none by cluster


def test_faults_are_named():
    with pytest.raises(ValueError, match="adversary=None"):
        shared_state(network(adversary="dense"))
    good = shared_state(network())
    with pytest.raises(ValueError, match=r"'b' sent 'network.head.bias' with NaN"):
        average({"a": good, "b": {**good, "network.head.bias": torch.tensor([torch.nan])}}, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="'b' has 0 samples"):
        average({"a": good, "b": good}, {"a": 1, "b": 0})
    lacks = {name: value for name, value in good.items() if name != "network.head.bias"}
    with pytest.raises(ValueError, match=r"'network.head.bias' is missing"):
        load_shared(network(), lacks)
    with pytest.raises(ValueError, match="none has answered"):
        average({}, {})
    diverged = FeatureSums(2, 2)
    diverged.update(torch.full((4, 2), torch.inf), torch.arange(4) % 2)
    with pytest.raises(ValueError, match="did the training diverge"):
        sums_to_add(diverged)
