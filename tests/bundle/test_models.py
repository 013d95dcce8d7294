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

import pytest
import torch

from monai_armed.bundle.model_file import write_model
from monai_armed.bundle.models import (
    load_fitting,
    load_model,
    load_part,
    predictions_of,
    takes_cluster,
    with_z_predictor,
)
from monai_armed.engines import PrepareBatchCluster, PrepareBatchRandomCluster
from monai_armed.networks import ARMED, DFNN, ClusterInput
from monai_armed.networks.nets import ZPredictor


def armed(**options) -> ARMED:
    return ARMED(DFNN(3), 3, (3,), **options)


NETWORKS = {
    "armed": (armed, ["mixed", "fixed", "randomized"]),
    "subjects": (lambda: ARMED(DFNN(3), {"site": 3, "subject": 9}, (3,)), ["mixed", "fixed", "randomized"]),
    "cluster_input": (lambda: ClusterInput(DFNN(3), 3, "hidden.0.0"), ["mixed", "randomized"]),
    "domain_adversarial": (lambda: armed(nonlinear_slopes=False, intercept=False), ["fixed"]),
    "conventional": (lambda: DFNN(3), ["fixed"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_predictions_and_the_z_predictor_that_it_has_a_use_for(name, tmp_path):
    make, predictions = NETWORKS[name]
    network, own = make(), PrepareBatchCluster()
    found = predictions_of(network, own)
    assert list(found) == predictions and next(iter(found.values())) is own
    if "randomized" in found:
        assert isinstance(found["randomized"], PrepareBatchRandomCluster)
    assert takes_cluster(network) == (len(predictions) > 1)
    z_predictor = ZPredictor(DFNN(3, 3), 3)
    assert with_z_predictor(network, z_predictor) is network
    assert any(key.startswith("clusters.z_predictor.") for key in network.state_dict()) == takes_cluster(network)

    torch.save(network.state_dict(), tmp_path / "model.pt")
    other = load_model(make(), tmp_path / "model.pt", z_predictor=ZPredictor(DFNN(3, 3), 3)).eval()
    x = torch.randn(5, 3)
    torch.testing.assert_close(other(x), network.eval()(x))


def test_a_model_that_is_not_there_or_of_another_network(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no model .*: train first, or give the path .* --ckpt_path"):
        load_model(armed(), tmp_path / "model.pt")
    torch.save(DFNN(3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is of another network"):
        load_model(armed(), tmp_path / "model.pt")


def test_one_part_is_taken_from_another_model(tmp_path):
    torch.manual_seed(0)
    other, net = ARMED(DFNN(3), 3, (3,), adversary="dense"), armed()
    torch.save(other.state_dict(), tmp_path / "model.pt")
    effects = net.random_effects.loc.clone()
    assert load_part(net, "network", tmp_path / "model.pt") is net
    assert all(torch.equal(a, b) for a, b in zip(net.network.parameters(), other.network.parameters()))
    assert torch.equal(net.random_effects.loc, effects)


def test_a_part_that_cannot_be_taken_is_named(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match=r"no model .*model\.pt to take the part 'network' .*--network_path"):
        load_part(armed(), "network", path)
    torch.save({"head.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"model\.pt has no part 'network'"):
        load_part(armed(), "network", path)
    torch.save(ARMED(DFNN(4), 3, (4,)).state_dict(), path)
    with pytest.raises(ValueError, match=r"model\.pt is of another shape"):
        load_part(armed(), "network", path)


def written(path, net: ARMED, clusters: list[str]):
    return write_model(
        net.state_dict(), {"clusters": clusters, "provenance": {"clusters": clusters}, "features": None}, path
    )


def test_what_fits_another_network_is_taken_but_not_random_effects_of_other_clusters(tmp_path, capsys):
    torch.manual_seed(0)
    other = armed()
    torch.nn.init.normal_(other.random_effects.loc)
    path = written(tmp_path / "model.pt", other, ["a", "b", "c"])
    for clusters, same in ((["a", "b", "c"], True), (["x", "y", "z"], False)):
        net = load_fitting(armed(), path, clusters)
        assert all(torch.equal(a, b) for a, b in zip(net.network.parameters(), other.network.parameters()))
        assert torch.equal(net.random_effects.loc, other.random_effects.loc) == same
    assert "what is left of random_slopes" in capsys.readouterr().out
    five = load_fitting(ARMED(DFNN(3), 5, (3,)), path, list("vwxyz"))
    assert torch.equal(five.network.head.weight, other.network.head.weight)
    with pytest.raises(ValueError, match=r"nothing of model .* fits this network"):
        load_fitting(torch.nn.Linear(4, 4), path, ["a", "b", "c"])
