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
"""The tables of the real-data benchmark are what the README says, and models can be fitted to them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gpboost", reason="needs the extra 'benchmark'")
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "real_data"
sys.path.insert(0, str(FOLDER))

import models  # noqa: E402
import network_models  # noqa: E402
import run  # noqa: E402
import stacked_training  # noqa: E402
import table_of_results  # noqa: E402
import tables  # noqa: E402

from monai_armed.losses import ARMEDLoss  # noqa: E402
from monai_armed.networks import ARMED, DFNN  # noqa: E402

# rows, columns, clusters
SIZES = {
    "impac": (816, 207, 24),
    "guPrenat": (2449, 11, 161),
    "guImmun": (2159, 9, 161),
    "Contraception": (1934, 3, 60),
    "respiratory": (444, 6, 111),
    "cdisc_pilot": (254, 9, 17),
    "bdf": (2287, 14, 131),
    "Hsb82": (7185, 5, 160),
    "sleepstudy": (180, 1, 18),
}


def table_or_skip(name: str) -> tables.Table:
    try:
        return tables.read_table(name)
    except (ImportError, FileNotFoundError) as e:
        pytest.skip(f"{name}: {e}")


def test_sizes_are_of_all_tables():
    assert set(SIZES) == set(tables.TABLES)


@pytest.mark.parametrize("name", list(SIZES))
def test_tables_have_the_stated_size(name):
    table = table_or_skip(name)
    assert (*table.x.shape, table.num_clusters) == SIZES[name]
    assert len(table.y) == len(table.cluster) == SIZES[name][0] and np.isfinite(table.y).all()
    assert set(np.unique(table.y)) == {0, 1} if table.binary else len(np.unique(table.y)) > 20


def test_missing_files_and_unknown_names_get_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="--impac"):
        tables.read_table("impac", tmp_path)
    with pytest.raises(ValueError, match="choose from"):
        tables.read_table("iris")


def test_folds_are_of_rows_groups_or_clusters():
    table = table_or_skip("guPrenat")
    for partition in run.partitions(table):
        folds = run.outer_folds(table, partition, 10, 0)
        assert len(folds) == 10
        np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(table.y)))
        for train, test in folds:
            shared = set(table.cluster[train]) & set(table.cluster[test])
            assert (not shared) if partition == "unseen" else len(shared) > 100
            assert bool(set(table.group[train]) & set(table.group[test])) == (partition == "seen")


def test_two_models_on_a_small_table(tmp_path):
    table = table_or_skip("sleepstudy")
    names = ("mixed model", "without adversary")
    for partition in ("seen", "unseen"):
        for k, (train, test) in enumerate(run.outer_folds(table, partition, 10, 1)[:2]):
            files = {m: run.fold_file(tmp_path, table.name, partition, m, k) for m in names}
            assert list(run.run_fold(table, partition, k, train, test, files)) == list(names)
    results = table_of_results.fold_results([table], tmp_path)
    error = results[results["metric"] == "RMSE"].groupby(["partition", "model"])["value"].mean()
    # a linear network with random effects is a mixed model, whose random slopes are worth 10 ms here
    for partition in ("seen", "unseen"):
        assert abs(error[partition, "without adversary"] / error[partition, "mixed model"] - 1) < 0.05
    assert error["seen", "without adversary"] < error["seen", "without adversary, fixed part"] - 5
    assert (results[results["metric"] == "CPU seconds"]["value"] > 0).all()


def test_the_networks_of_a_stack_have_each_their_own_weights_of_the_loss():
    torch.manual_seed(0)
    x, y, z = torch.randn(60, 4), torch.randint(2, (60,)), torch.arange(60) % 5
    build = {"adversary": "dense", "nonlinear_slopes": False, "intercept": False}  # no draws: each alone is the same
    networks = [ARMED(DFNN(4, hidden_channels=(8,)), 5, (4,), **build) for _ in range(2)]
    losses = [ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=weight) for weight in (0.01, 3.0)]

    def trained(members):
        data = (d.expand(len(members), *d.shape) for d in (x, y, z))
        chosen = [networks[m] for m in members], [losses[m] for m in members], [0.01] * len(members)
        return stacked_training.train_penalised(*chosen, *data, steps=10)

    for together, (alone,) in zip(trained([0, 1]), (trained([0]), trained([1]))):
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-5)


def test_the_simplest_choice_within_one_standard_error_of_the_best():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(50), 20)
    noise = rng.normal(size=1000)
    error = noise.std() / np.sqrt(1000)
    assert network_models._within_one_error(noise - noise.mean() + 0.8 * error, cluster)
    assert not network_models._within_one_error(noise - noise.mean() + 2 * error, cluster)
    # what a whole cluster shares counts once: the error is that of a mean of 50
    shared = np.repeat(noise[:50], 20) - noise[:50].mean()
    assert network_models._within_one_error(shared + 0.8 * shared.std() / np.sqrt(50), cluster)
    # on a table without clusters or curves, the first levels are taken
    x, z = rng.normal(size=(400, 3)), np.repeat(np.arange(20), 20)
    y = x[:, 0] + rng.normal(size=400)
    inner = [(np.flatnonzero(z % 3 != k), np.flatnonzero(z % 3 == k)) for k in range(3)]
    part = models.TrainingPart(x, y, z, 20, False, inner)
    chosen = network_models.Network("ARMED").fit(part).options
    assert chosen["act"] == network_models.LINEAR and chosen["lambda_adversary"] == 0.003
    assert not chosen["linear_slopes"]


def test_the_correction_of_the_t_test_is_nadeau_and_bengios(tmp_path):
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    values = {"ARMED": rng.normal(0.02, 0.05, 10), "conventional": np.zeros(10)}
    key = {"table": "t", "partition": "seen", "metric": "AUROC"}
    rows = [{**key, "model": m, "fold": k, "value": v} for m, vs in values.items() for k, v in enumerate(vs)]
    (test,) = table_of_results.corrected_tests(pd.DataFrame(rows)).to_dict("records")
    difference = values["ARMED"]
    expected = difference.mean() / np.sqrt((1 / 10 + 1 / 9) * difference.var(ddof=1))
    assert test["against"] == "conventional" and test["t"] == pytest.approx(expected)
