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

import json

import pandas as pd
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd
from monai.utils import set_determinism

from monai_armed.engines import PrepareBatchCluster
from monai_armed.handlers import PredictionWriter
from monai_armed.metrics.calibration import Calibration
from monai_armed.metrics.calibration_file import write_calibrations
from monai_armed.metrics.prediction_sets import set_columns
from monai_armed.networks import ARMED, DFNN
from monai_armed.networks.nets import ZPredictor
from monai_armed.networks.training_distance import fit_training_distance

CLUSTERS = ["a", "b", "c", "d"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = ARMED(DFNN(3), 4, (3,), random_effects={"prior_scale": 1.0})
    torch.nn.init.normal_(net.random_effects.loc)
    return net.eval()


def rows_of(network, folder, cluster: int, pass_cluster: bool = True, ckpt_path=None) -> list[dict]:
    set_determinism(0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    data = [{"image": x[i], "label": -1, "cluster": cluster, "file": f"{i}.nii"} for i in range(5)]
    writer = PredictionWriter(folder, network, CLUSTERS, ckpt_path=ckpt_path)
    evaluator = SupervisedEvaluator(
        "cpu", DataLoader(Dataset(data), batch_size=2), network, decollate=False,
        prepare_batch=PrepareBatchCluster(pass_cluster=pass_cluster), val_handlers=[writer],
    )  # fmt: skip
    evaluator.run()
    evaluator.run()  # the rows of a second run replace the first's
    rows = json.loads((folder / "predictions.json").read_text())
    assert len(pd.read_csv(folder / "predictions.csv")) == len(rows) == 5
    wanted = network(x, torch.full((5,), cluster)) if pass_cluster else network(x)
    assert [row["probability"] for row in rows] == pytest.approx(wanted.sigmoid().flatten().tolist())
    return rows


def test_known_cluster(network, tmp_path):
    rows = rows_of(network, tmp_path / "new", cluster=2)
    assert all(row["low"] < row["probability"] < row["high"] for row in rows)
    assert not any("like_1" in row for row in rows)


def test_unknown_cluster_has_the_wide_interval_of_the_prior(network, tmp_path):
    known, unknown = (rows_of(network, tmp_path / str(c), cluster=c) for c in (2, -1))
    width = [sum(row["high"] - row["low"] for row in rows) for rows in (known, unknown)]
    assert width[1] > 2 * width[0]
    assert [row["probability"] for row in unknown] == pytest.approx([row["population_probability"] for row in unknown])


def test_inferred_clusters_are_named_by_weight(network, tmp_path):
    network.attach_z_predictor(ZPredictor(DFNN(3, 4), 4))
    for row in rows_of(network, tmp_path, cluster=-1):
        weights = [row[f"like_{k}_weight"] for k in (1, 2, 3)]
        assert weights == sorted(weights, reverse=True) and 0.75 < sum(weights) < 1
        assert len({row[f"like_{k}"] for k in (1, 2, 3)} & set(CLUSTERS)) == 3


def test_other_networks_get_a_probability_alone(tmp_path):
    rows = rows_of(DFNN(3).eval(), tmp_path, cluster=-1, pass_cluster=False)
    assert set(rows[0]) == {"file", "probability"}


def calibration(seed: int) -> Calibration:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (90,), generator=generator)
    return Calibration(torch.randn(90, 1, generator=generator), label, [i % 15 for i in range(90)])


def test_samples_of_new_clusters_have_sets_by_what_predicted_them(network, tmp_path):
    model = tmp_path / "model.pt"
    torch.save(network.state_dict(), model)
    kept = {"mixed": calibration(0), "fixed": calibration(1)}
    write_calibrations(kept, model, tmp_path)
    assert not any("prediction_set" in row for row in rows_of(network, tmp_path / "seen", 2, ckpt_path=model))
    population = rows_of(network, tmp_path / "population", -1, ckpt_path=model)
    plain = rows_of(DFNN(3).eval(), tmp_path / "plain", -1, pass_cluster=False, ckpt_path=model)
    network.attach_z_predictor(ZPredictor(DFNN(3, 4), 4))
    inferred = rows_of(network, tmp_path / "inferred", -1, ckpt_path=model)
    for rows, used in ((population, kept["fixed"]), (inferred, kept["mixed"]), (plain, kept["mixed"])):
        logits = torch.tensor([[row["probability"]] for row in rows]).logit()
        wanted = set_columns(used.probabilities(logits), used.sets(logits))
        assert [row["prediction_set"] for row in rows] == wanted["prediction_set"]
        assert [row["calibrated_probability"] for row in rows] == pytest.approx(
            wanted["calibrated_probability"], abs=1e-5
        )


def test_of_rows_that_are_unlike_the_training_data_no_set_is_promised(network, tmp_path):
    data = [{"image": torch.randn(200, 3, generator=torch.Generator().manual_seed(1))}]
    network.training_distance = fit_training_distance(network, data, data)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))  # of `rows_of`
    network.training_distance.threshold = float(network.training_distance(network, x).median())
    model = tmp_path / "model.pt"
    torch.save(network.state_dict(), model)
    write_calibrations({"mixed": calibration(0), "fixed": calibration(1)}, model, tmp_path)
    with pytest.warns(UserWarning, match="unlike"):
        rows = rows_of(network, tmp_path / "out", -1, ckpt_path=model)
    unlike = [row["unlike_training"] for row in rows]
    assert ["prediction_set" not in row for row in rows] == unlike and sum(unlike) == 2
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["prediction_set"].isna().tolist() == unlike


def test_rows_that_are_unlike_the_training_data_are_marked_and_named_once(network, tmp_path):
    data = [{"image": 0.1 * torch.randn(200, 3, generator=torch.Generator().manual_seed(1))}]  # rows are further out
    network.training_distance = fit_training_distance(network, data, data)
    with pytest.warns(UserWarning, match="samples are unlike what the model was trained on") as warned:
        rows = rows_of(network, tmp_path, cluster=2)
    far = [row["file"] for row in rows if row["unlike_training"]]
    assert far == [row["file"] for row in rows if row["distance"] > network.training_distance.threshold] and far
    said = [str(one.message) for one in warned if "unlike" in str(one.message)]
    assert said[0].startswith(f"{len(far)} of 5 samples") and ", ".join(far) in said[0] and len(said) == 2  # two runs


@pytest.mark.parametrize("options", [{}, {"postprocessing": Activationsd("pred", sigmoid=True), "decollate": False}])
def test_what_an_evaluator_does_with_its_predictions_later_plays_no_part(network, tmp_path, options):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    data = [{"image": x[i], "label": 0, "cluster": 2, "file": f"{i}.nii"} for i in range(5)]
    SupervisedEvaluator(
        "cpu", DataLoader(Dataset(data), batch_size=2), network, prepare_batch=PrepareBatchCluster(),
        val_handlers=[PredictionWriter(tmp_path, network, CLUSTERS)], **options,
    ).run()  # fmt: skip
    rows = pd.read_csv(tmp_path / "predictions.csv")
    wanted = network(x, torch.full((5,), 2)).sigmoid().flatten().tolist()
    assert rows["probability"].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("logits", "name_key", "match"), [(3, "file", r"one logit, got \(2, 3\)"), (1, "name", "no 'name', its keys are")]
)
def test_networks_of_several_logits_and_samples_without_names_are_refused(tmp_path, logits, name_key, match):
    data = [{"image": torch.randn(3), "label": 0, "cluster": 2, "file": f"{i}.nii"} for i in range(4)]
    network = ARMED(DFNN(3, logits), 4, (3,))
    evaluator = SupervisedEvaluator(
        "cpu", DataLoader(Dataset(data), batch_size=2), network, prepare_batch=PrepareBatchCluster(),
        val_handlers=[PredictionWriter(tmp_path, network, CLUSTERS, name_key)],
    )  # fmt: skip
    with pytest.raises(ValueError, match=match):
        evaluator.run()


def written(network, folder, prepare_batch, **options) -> pd.DataFrame:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    rows = [{"image": x[i], "label": 0, "cluster": i % 4, "subject": i % 5, "file": f"{i}"} for i in range(8)]
    options = {"decollate": False, "val_handlers": [PredictionWriter(folder, network, CLUSTERS)], **options}
    loader = DataLoader(Dataset(rows), batch_size=3)
    SupervisedEvaluator("cpu", loader, network, prepare_batch=prepare_batch, **options).run()
    return pd.read_csv(folder / "predictions.csv")


def test_intervals_are_of_all_factors(tmp_path):
    torch.manual_seed(0)
    net = ARMED(DFNN(3), {"site": 4, "subject": 5}, (3,), nonlinear_slopes=False)
    for name in net.clusters.factors:
        torch.nn.init.normal_(net.random_slopes[name].effects.loc, std=3)
    factors = PrepareBatchCluster(cluster_key={"site": "cluster", "subject": "subject"})
    table = written(net.eval(), tmp_path, factors)
    width = table["probability"] - table["population_probability"]
    assert width.abs().max() > 0.3  # the subjects tell much
    assert table["probability"].between(table["low"], table["high"]).all()
    logit = torch.tensor(table[["low", "probability", "high"]].to_numpy()).logit()
    assert ((logit[:, 2] - logit[:, 0]) / 2).allclose(logit[:, 2] - logit[:, 1], rtol=0.2)  # in their middle


def test_intervals_are_of_what_was_predicted(network, tmp_path):
    torch.nn.init.constant_(network.random_effects.loc, 3.0)
    without = written(network, tmp_path, PrepareBatchCluster(pass_cluster=False))
    assert without["probability"].between(without["low"], without["high"]).all()
    fixed = written(network, tmp_path, PrepareBatchCluster(effects="fixed"))
    assert "low" not in fixed
    assert fixed["probability"].tolist() == pytest.approx(fixed["population_probability"].tolist())
