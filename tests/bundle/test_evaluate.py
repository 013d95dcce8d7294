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

import pandas as pd
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from monai_armed.bundle.evaluate import collect_predictions, evaluate_partitions, partition_metrics, with_samples
from monai_armed.engines import PrepareBatchCluster, PrepareBatchRandomCluster
from monai_armed.handlers import PredictionWriter
from monai_armed.metrics.calibration import Calibration
from monai_armed.metrics.calibration_file import read_calibrations
from monai_armed.metrics.youden import youden_metrics
from monai_armed.networks import ARMED, DFNN

GE = "General Electric"


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = ARMED(DFNN(3), 4, (3,))
    torch.nn.init.normal_(net.random_effects.loc)
    return net.eval()


def loader_of(count=20, seed=0) -> DataLoader:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    data = [
        {
            "image": x[i],
            "label": i % 2,
            "cluster": i % 4,
            "site": f"s{i % 4}",
            "manufacturer": GE if i % 3 else "Siemens",
        }
        for i in range(count)
    ]
    return DataLoader(Dataset(data), batch_size=8)


def evaluator_of(network) -> SupervisedEvaluator:
    return SupervisedEvaluator("cpu", loader_of(), network, prepare_batch=PrepareBatchCluster(), decollate=False)


def test_predictions_are_the_networks(network):
    evaluator = evaluator_of(network)
    usual = evaluator.prepare_batch, evaluator.data_loader, evaluator.state.epoch_length
    loader = loader_of(30, seed=1)
    mixed = collect_predictions(evaluator, loader, PrepareBatchCluster())
    fixed = collect_predictions(evaluator, loader, PrepareBatchCluster(effects="fixed"))
    assert (evaluator.prepare_batch, evaluator.data_loader, evaluator.state.epoch_length) == usual
    batch = list(loader.dataset)
    assert len(mixed) == 30
    x, cluster = torch.stack([d["image"] for d in batch]), torch.tensor([d["cluster"] for d in batch])
    assert mixed["score"].to_list() == pytest.approx(network(x, cluster).flatten().tolist())
    assert fixed["score"].to_list() == pytest.approx(network(x, effects="fixed").flatten().tolist())
    assert mixed["label"].to_list() == [d["label"] for d in batch]
    assert mixed["cluster"].to_list() == cluster.tolist()
    assert mixed["site"].to_list() == [d["site"] for d in batch] and "subject" not in mixed


def test_the_evaluator_is_left_as_it_was_after_an_error(network):
    evaluator = evaluator_of(network)
    usual = evaluator.prepare_batch
    with pytest.raises(ValueError, match="no 'nosuch'"):
        collect_predictions(evaluator, loader_of(), PrepareBatchCluster(cluster_key="nosuch"))
    assert evaluator.prepare_batch is usual


def test_metrics_of_a_partition():
    table = pd.DataFrame({"label": [0, 0, 0, 0, 1, 1], "score": [0, 3, 1, 2, 4, 1.5]})
    table["manufacturer"] = ["Siemens", GE, "Siemens", GE, GE, GE]
    metrics = partition_metrics(table)
    assert metrics["samples"] == 6 and metrics["leak"] == 1.0
    assert metrics["auroc"] == youden_metrics(table["label"], table["score"])["auroc"]
    table["manufacturer"] = ["SIEMENS", "GE MEDICAL SYSTEMS", "Siemens", "", "ge", "GEneric"]
    assert partition_metrics(table)["leak"] == 1.0  # without the score of 2, whose maker is not known
    assert "auroc" not in partition_metrics(table[table["label"] == 0])
    assert math.isnan(partition_metrics(table.drop(columns="manufacturer"))["leak"])


def test_files_and_rows(network, tmp_path, capsys):
    loaders, audited = {"seen": loader_of(), "unseen": loader_of(10, seed=1)}, []
    predictions = {"mixed": PrepareBatchCluster(), "randomized": PrepareBatchRandomCluster(num_clusters=4)}
    evaluator = evaluator_of(network)
    folder, ceiling = tmp_path / "new" / "folder", {"auroc": 0.9}
    frame = evaluate_partitions(evaluator, loaders, predictions, folder, audited.append, ceiling)
    assert audited == [evaluator]
    written = pd.read_csv(tmp_path / "new" / "folder" / "metrics.csv")
    pd.testing.assert_frame_equal(written, frame)
    assert list(zip(frame["partition"], frame["prediction"])) == [
        ("seen", "mixed"), ("seen", "randomized"), ("unseen", "mixed"), ("unseen", "randomized"),
    ]  # fmt: skip
    table = pd.read_csv(tmp_path / "new" / "folder" / "evaluated_predictions.csv")
    assert len(table) == 2 * (20 + 10)
    again = table[(table["partition"] == "unseen") & (table["prediction"] == "mixed")]
    assert frame["auroc"][2] == pytest.approx(youden_metrics(again["label"], again["score"])["auroc"])
    printed = capsys.readouterr().out
    assert "mixed predictions of seen samples" in (folder / "report.html").read_text(encoding="utf-8")
    assert "metrics.csv" in printed and "best attainable on seen: auroc 0.900" in printed


def test_evaluation_and_inference_may_have_one_folder(network, tmp_path):
    evaluator = evaluator_of(network)
    evaluate_partitions(evaluator, {"seen": loader_of()}, {"mixed": PrepareBatchCluster()}, tmp_path)
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    samples = [{"file": str(i), "image": torch.ones(3), "label": 0, "cluster": i} for i in range(3)]
    evaluator.data_loader, evaluator.state.epoch_length = DataLoader(samples, batch_size=3), 1
    PredictionWriter(tmp_path, network, list("abcd")).attach(evaluator)
    evaluator.run()
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 3
    assert written == {name: (tmp_path / name).read_bytes() for name in written}


def new_sites(count: int) -> DataLoader:
    """Six samples of each of some sites that no network has seen."""
    x = torch.randn(6 * count, 3, generator=torch.Generator().manual_seed(2))
    data = [{"image": x[i], "label": i % 2, "cluster": -1, "site": f"new {i // 6}"} for i in range(len(x))]
    return DataLoader(Dataset(data), batch_size=8)


def test_predictions_of_unseen_clusters_are_calibrated(network, tmp_path, capsys):
    model = tmp_path / "model.pt"
    torch.save(network.state_dict(), model)
    loaders, predictions = {"seen": loader_of(), "unseen": new_sites(12)}, {"mixed": PrepareBatchCluster()}
    frame = evaluate_partitions(evaluator_of(network), loaders, predictions, tmp_path, ckpt_path=model)
    table = pd.read_csv(tmp_path / "evaluated_predictions.csv")
    unseen, seen = (table[table["partition"] == name] for name in ("unseen", "seen"))
    assert seen["prediction_set"].isna().all() and seen["calibrated_probability"].isna().all()
    assert set(unseen["prediction_set"]) <= {"{}", "{0}", "{1}", "{0, 1}"}
    covered = [str(label) in words for label, words in zip(unseen["label"], unseen["prediction_set"])]
    row = frame.set_index("partition").loc["unseen"]
    assert row["coverage"] == pytest.approx(pd.Series(covered).mean())  # the sites are of one size
    assert row["set_size"] == pytest.approx(unseen["prediction_set"].str.count(r"\d").mean())
    assert row["calibrated_error"] < row["calibration_error"]
    logits, label = torch.tensor(unseen["score"].tolist())[:, None], torch.tensor(unseen["label"].tolist())
    calibration = read_calibrations(model)["mixed"]
    assert vars(calibration) == vars(Calibration(logits, label, unseen["site"].tolist(), classification=True))
    assert "calibrated for new clusters" in capsys.readouterr().out


def test_too_few_unseen_clusters_are_said_not_to_be_enough(network, tmp_path, capsys):
    loaders = {"unseen": new_sites(9)}
    frame = evaluate_partitions(
        evaluator_of(network), loaders, {"mixed": PrepareBatchCluster()}, tmp_path, ckpt_path="m"
    )
    assert "coverage" not in frame and not (tmp_path / "calibration.json").exists()
    assert "not calibrated, each unseen site by all others: 8 held-out clusters are too few" in capsys.readouterr().out


def test_data_without_any_sample_to_evaluate(network, tmp_path):
    with pytest.raises(ValueError, match="none of the data can be evaluated: they hold no sample that is test and"):
        evaluate_partitions(evaluator_of(network), {"test": loader_of(0)}, {"mixed": PrepareBatchCluster()}, tmp_path)


def test_a_partition_without_samples_is_left_out(network, tmp_path, capsys):
    """Data in which every site is seen have no unseen one."""
    loaders = {"seen": loader_of(), "unseen": loader_of(0)}
    assert list(with_samples(loaders)) == ["seen"]
    frame = evaluate_partitions(evaluator_of(network), loaders, {"mixed": PrepareBatchCluster()}, tmp_path)
    assert frame["partition"].to_list() == ["seen"]
    assert set(pd.read_csv(tmp_path / "evaluated_predictions.csv")["partition"]) == {"seen"}
    assert "no sample that is unseen" in capsys.readouterr().out
