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

"""Handlers and readers find the network inside what trains it on several devices, or compiles it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch.nn.parallel import DataParallel, DistributedDataParallel

from monai_armed.engines import PrepareBatchCluster
from monai_armed.handlers import ClusterAudit, PredictionWriter, RandomEffectsWriter, ReversalWarmUp, TrainingCheckpoint
from monai_armed.metrics.audit import collect_features
from monai_armed.metrics.mixed_model import VarCorr, fixef, ranef, to_arviz
from monai_armed.networks import ARMED, DFNN, adapt

WRAPPERS = {
    "DataParallel": DataParallel,
    "DistributedDataParallel": lambda net: DistributedDataParallel(net, find_unused_parameters=True),
    "compiled": lambda net: torch.compile(net, backend="eager"),
}


@pytest.fixture(params=WRAPPERS)
def pair(request, tmp_path):
    """A network, and the same inside a wrapper."""
    torch.manual_seed(0)
    net = ARMED(DFNN(3, hidden_channels=(8,)), 4, (3,))
    torch.nn.init.normal_(net.random_effects.loc)
    net.eval()
    if request.param == "DistributedDataParallel":
        torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield net, WRAPPERS[request.param](net)
    if request.param == "DistributedDataParallel":
        torch.distributed.destroy_process_group()


def _loader(count: int = 40) -> DataLoader:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    items = [{"image": x[i], "label": i % 2, "cluster": i % 4, "file": f"{i}.nii"} for i in range(count)]
    return DataLoader(Dataset(items), batch_size=20)


def test_warm_up_raises_the_pressure(pair):
    net, wrapped = pair
    engine, seen = Engine(lambda e, b: seen.append(float(net.adversary.reversal_strength))), []
    ReversalWarmUp(wrapped).attach(engine)
    engine.run(range(4))
    assert seen[0] == 0 and seen[1] < seen[2] < seen[3]


def test_readers_read_the_same(pair):
    net, wrapped = pair
    for read in (ranef, VarCorr, fixef):
        pd.testing.assert_frame_equal(read(wrapped), read(net))
    pytest.importorskip("arviz_base")
    assert to_arviz(wrapped, num_draws=3)["posterior"].equals(to_arviz(net, num_draws=3)["posterior"])


def test_features_are_those_that_the_adversary_sees(pair):
    net, wrapped = pair
    found, right = collect_features(wrapped, _loader()), collect_features(net, _loader())
    assert list(found.layers) == list(right.layers) == list(net.feature_layers)
    assert all((found.layers[name] == right.layers[name]).all() for name in right.layers)


def test_the_audit_is_of_the_wrapped_network(pair, tmp_path):
    net, wrapped = pair
    ClusterAudit(tmp_path, wrapped, _loader(), _loader())(Engine(lambda e, b: None))
    assert set(pd.read_csv(tmp_path / "audit.csv")["layer"]) == set(net.feature_layers)


def test_a_new_cluster_is_adapted_to(pair):
    net, wrapped = pair
    x = torch.randn(6, 3)
    found, right = (adapt(n, x, torch.ones(6), torch.nn.BCEWithLogitsLoss(), steps=5) for n in (wrapped, net))
    assert isinstance(found, ARMED) and torch.equal(found.random_effects.loc, right.random_effects.loc)


def test_predictions_and_random_effects_are_written_whole(pair, tmp_path):
    net, wrapped = pair
    writer = PredictionWriter(tmp_path, wrapped, list("abcd"), num_draws=20)
    options = {"decollate": False, "prepare_batch": PrepareBatchCluster(), "val_handlers": [writer]}
    SupervisedEvaluator("cpu", _loader(), wrapped, **options).run()
    assert {"low", "high", "population_probability"} <= set(writer.kept.rows[0])
    RandomEffectsWriter(tmp_path, wrapped)(Engine(lambda e, b: None))
    assert len(pd.read_csv(tmp_path / "ranef.csv")) == 4 * net.random_effects.num_effects


def test_checkpoints_have_the_networks_own_names(pair, tmp_path):
    net, wrapped = pair
    engine = Engine(lambda e, b: None)
    TrainingCheckpoint(tmp_path, {"network": wrapped}).attach(engine)
    engine.run([0])
    assert torch.load(tmp_path / "model.pt", weights_only=True).keys() == net.state_dict().keys()
