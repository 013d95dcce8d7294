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

"""The comparison runner on a small copy of the spiral bundle."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from small_study import SPIRALS, change, comparison_of, small_bundle

from monai_armed.__main__ import main
from monai_armed.compare import fold_scoring, fold_training, runner
from monai_armed.compare.runner import Comparison, compare, parse_overrides
from monai_armed.compare.study_bundle import Samples, StudyBundle
from monai_armed.handlers import TrainingCheckpoint
from monai_armed.metrics.comparison import delong_interval
from monai_armed.studies.spirals.simulator import simulate_spirals

IMPORT = ["$from monai_armed.studies.spirals.simulator import spiral_partitions"]
SPLIT = "spiral_partitions(@dataset_dir, @simulation, @data_seed, split_seed=@seed)"
KILL = "$torch.os.kill(torch.os.getpid(), 9) if @seed == 1 else 0.01"


@pytest.fixture
def bundle(tmp_path):
    return small_bundle(tmp_path)


def test_report_and_resuming(bundle, tmp_path, monkeypatch):
    out = tmp_path / "out"
    files = compare(comparison_of(bundle, out))
    results = pd.read_csv(files["results"])
    accuracy = results[results["metric"] == "accuracy"]
    assert set(accuracy["model"]) == {"conventional", "armed", "armed, fixed", "armed, randomized"}
    assert (accuracy.groupby("model")["fold"].nunique() == 2).all()
    assert {"worst_cluster_accuracy"} < set(results["metric"])
    predictions = pd.read_csv(out / "simulation=1" / "armed" / "fold_00" / "predictions.csv")
    own = predictions[predictions["model"] == "armed"]
    value = accuracy[(accuracy["model"] == "armed") & (accuracy["fold"] == 0)]["value"].item()
    assert value == pytest.approx(((own["score"] > 0) == own["label"]).mean())
    assert "Ceiling" in files["report"].read_text() and files["comparison"].is_file()
    page = (out / "simulation=1" / "armed" / "report.html").read_text(encoding="utf-8")
    assert "armed, fixed, test samples of 2 folds" in page and "report.html" in files["report"].read_text()
    delong = pd.read_csv(files["delong"])
    assert (delong["auroc_low"] <= delong["auroc"]).all() and (delong["auroc"] <= delong["auroc_high"]).all()

    # an interrupted run: one fold is missing, and another, whose weights are there, was cut off while it was scored
    shutil.rmtree(out / "simulation=1" / "armed" / "fold_01")
    (out / "simulation=1" / "conventional" / "fold_00" / "result.json").write_text('{"finger')
    trained = []
    train = fold_training._train_stack

    def spy(study, tasks, progress=None):
        trained.extend(task.folder for task in tasks)
        return train(study, tasks, progress)

    monkeypatch.setattr(fold_training, "_train_stack", spy)
    again = pd.read_csv(compare(comparison_of(bundle, out))["results"])
    assert {f"{p.parent.name}/{p.name}" for p in trained} == {"armed/fold_01"}
    pd.testing.assert_frame_equal(results, again)

    # another evaluation scores the weights that are there
    trained.clear()
    figure = {"partition": "seen", "prediction": "mixed", "metric": "accuracy_2", "value": 1}
    change(bundle, "evaluate", scores=[figure])
    change(bundle, "compare", metrics=["accuracy", "accuracy_2"])
    more = pd.read_csv(compare(comparison_of(bundle, out))["results"])
    assert not trained and set(more["metric"]) == {"accuracy", "accuracy_2", "worst_cluster_accuracy"}
    pd.testing.assert_frame_equal(more[more["metric"] == "accuracy"], results[results["metric"] == "accuracy"])

    # nothing of another config is taken for this one's
    trained.clear()
    change(bundle, "train", learning_rate=0.01)
    compare(comparison_of(bundle, out))
    assert len(trained) == 4


def test_an_override_may_concern_evaluation_alone(bundle):
    change(bundle, "evaluate", shown=1)
    study = StudyBundle(bundle, overrides={"shown": 2, "max_epochs": 7})
    train, evaluate = (study.config(kind, "armed") for kind in ("train", "evaluate"))
    assert evaluate["shown"] == 2 and "shown" not in train and train["max_epochs"] == 7
    for kind in ("train", "evaluate"):
        with pytest.raises(
            ValueError, match=r"no id 'shwon' .* neither .*train.json nor .*evaluate.json .*mean 'shown'"
        ):
            StudyBundle(bundle, overrides={"shwon": 2}).config(kind, "armed")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"max_epoch": 3}, "no id 'max_epoch' .* did you mean 'max_epochs'"),
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1, got 0"),
        ({"learning_rate": "abc"}, "learning_rate must be a number, got 'abc'"),
        ({"batch_size": 0}, "batch_size must be above 0, got 0"),
    ],
)
def test_an_override_that_is_none_is_refused_before_anything_is_trained(bundle, overrides, says):
    with pytest.raises(ValueError, match=says):
        StudyBundle(bundle, overrides=overrides).config("train", "armed")


def test_a_fold_says_what_a_part_says_against_its_arguments(bundle, tmp_path):
    study = StudyBundle(bundle, overrides={"learning_rate": -1})
    comparison = Comparison(study, ["conventional"], tmp_path / "out", num_folds=2)
    with pytest.raises(ValueError, match=r"every fold failed, the first with: .*Invalid learning rate: -1"):
        compare(comparison)


def test_figures_of_the_bundles_own(bundle, tmp_path):
    """A bundle with ``scores`` and no ``predictions`` is asked for these, and not for logits."""
    rows = [
        {"partition": "seen", "prediction": "mixed", "metric": "mse", "value": "$float(@seed)"},
        {"partition": "seen", "prediction": "fixed", "metric": "mse", "value": 0.25},
        {"partition": "unseen", "prediction": "mixed", "metric": "mse", "value": 0.5},
        {"partition": "seen", "model": "ceiling", "metric": "mse", "value": 0.125},
    ]
    change(bundle, "evaluate", scores=rows, predictions=None)
    change(bundle, "compare", metrics=["mse"])
    files = compare(comparison_of(bundle, tmp_path / "out", seed=3))
    results = pd.read_csv(files["results"]).set_index(["partition", "model", "fold"])["value"]
    assert set(results.index.get_level_values("model")) == {
        *("armed", "armed, fixed", "conventional", "conventional, fixed", "ceiling")
    }
    assert (results.loc["seen", "ceiling"] == 0.125).all() and len(results.loc["seen", "ceiling"]) == 2  # kept once
    assert results["seen", "armed", 1] == 4  # what is evaluated is the fold's own config
    assert results["seen", "armed, fixed", 0] == 0.25 and results["unseen", "conventional", 1] == 0.5
    assert "armed, fixed" in files["report"].read_text()


def test_folds_are_stratified_and_disjoint(bundle, tmp_path):
    comparison = comparison_of(bundle, tmp_path / "out", num_folds=4)
    tasks, samples = comparison.plan()
    (known,) = samples.values()
    folds = [t.parts for t in tasks if t.model == "armed"]
    assert np.array_equal(np.sort(np.concatenate([f["test"] for f in folds])), np.arange(120))
    for fold in folds:
        assert np.array_equal(np.sort(np.concatenate(list(fold.values()))), np.arange(120))
        cells = pd.crosstab(known.cluster[fold["test"]], known.label[fold["test"]])
        assert (cells.to_numpy() == 5).all()
    other = [t.parts for t in tasks if t.model == "conventional"]
    assert all(np.array_equal(a[n], b[n]) for a, b in zip(folds, other) for n in a)


@pytest.mark.parametrize("split", ["grouped", "monte_carlo"])
def test_groups_stay_together(bundle, tmp_path, split):
    change(bundle, "compare", split=split, group_key="cluster")
    partitions = "$spiral_partitions(None, @simulation, @data_seed)"  # ten clusters
    change(bundle, "train", imports=IMPORT, partitions=partitions)
    with pytest.raises(ValueError, match="samples of one cluster into training and test: give --split grouped"):
        comparison_of(bundle, tmp_path / "out", num_folds=3, split="stratified").plan()
    tasks, samples = comparison_of(bundle, tmp_path / "out", num_folds=3, split=split).plan()
    (known,) = samples.values()
    for task in tasks:
        groups = [set(known.group[index]) for index in task.parts.values()]
        assert not groups[0] & groups[2] and not groups[1] & groups[2] and not groups[0] & groups[1]


@pytest.mark.parametrize("split", ["stratified", "grouped", "monte_carlo"])
def test_a_few_samples_without_a_label_are_divided_with_the_others(bundle, tmp_path, split):
    label, cluster = np.arange(120) % 2, np.arange(120) // 40
    label[[3, 50]] = -1
    group = None if split == "stratified" else np.arange(120) // 4
    comparison = comparison_of(bundle, tmp_path / "out", num_folds=4, split=split)
    for part in comparison.folds(Samples({}, label, cluster, group), np.arange(120), 4):
        assert sorted(np.concatenate(list(part.values()))) == list(range(120))
        assert all({0, 1} <= set(label[index]) for index in part.values())


def test_samples_without_a_label_are_taken_and_not_measured(bundle):
    change(bundle, "train", imports=[*IMPORT, "$import numpy as np"], label=[-1])
    some = f"$dict({SPLIT}, val=[dict(d, label=np.array(@label)) for d in {SPLIT}['val']])"
    change(bundle, "train", partitions=some)
    study = StudyBundle(bundle)
    assert set(study.samples({"simulation": 1}).label) == {-1, 0, 1}
    with pytest.raises(ValueError, match=r"labels must be 0 or 1 \(-1 where not known\), .* have \[0, 1, 2\]"):
        study.samples({"simulation": 1, "label": [2]})
    table = pd.DataFrame({"label": [0, 1, 0, 1, -1], "score": [-1.0, 1, -2, 2, 9], "cluster": 0})
    assert fold_scoring._metrics(study, table) == fold_scoring._metrics(study, table[:4])


def test_one_by_one_and_unseen_clusters(bundle, tmp_path):
    unseen = f"$dict({SPLIT}, unseen=[dict(d, cluster=-1) for d in {SPLIT}['test']])"
    dataset = {"_target_": "Dataset", "data": "$@partitions['unseen']", "transform": "@validate#preprocessing"}
    change(bundle, "train", imports=IMPORT, partitions=unseen)
    change(bundle, "evaluate", unseen_dataloader={"_target_": "DataLoader", "dataset": dataset}, ceiling={})
    change(bundle, "compare", stacked=False, models=["armed"])
    study = StudyBundle(bundle, overrides={"learning_rate": 0.011})
    files = compare(Comparison(study, ["armed"], tmp_path / "out", num_folds=2))
    assert "Not as the bundle has it: learning_rate=0.011." in files["report"].read_text()
    results = pd.read_csv(files["results"])
    assert set(results["partition"]) == {"seen", "unseen"}
    new = results[(results["partition"] == "unseen") & (results["metric"] == "accuracy")]
    wide = new.pivot(index="fold", columns="model", values="value")
    assert (wide["armed"] == wide["armed, fixed"]).all()  # a new cluster has no random effects

    change(bundle, "train", partitions=f"$dict({SPLIT}, unseen=[])")
    results = pd.read_csv(compare(comparison_of(bundle, tmp_path / "none_unseen"))["results"])
    assert set(results["partition"]) == {"seen"} and not results.empty


def test_one_test_set_has_delongs_interval(bundle, tmp_path):
    simulate_spirals(1, num_clusters=10, samples_per_cluster=20, seed=5).save(tmp_path / "sim1.npz")
    change(bundle, "compare", models=["conventional"], group_key="cluster", metrics=["auroc"])
    comparison = comparison_of(bundle, tmp_path / "out", num_folds=1, split="monte_carlo")
    files = compare(comparison)
    scored = pd.read_csv(tmp_path / "out" / "simulation=1" / "conventional" / "fold_00" / "predictions.csv")
    low, high = (f"{v:.3f}" for v in delong_interval(scored["label"].to_numpy(), scored["score"].to_numpy())[1:])
    assert f"[{low}, {high}]" in files["report"].read_text()


def test_a_failing_fold_does_not_lose_the_others(bundle, tmp_path, monkeypatch, capsys):
    train = fold_training._train_stack

    def fail(study, tasks, progress=None):
        if any(t.folder.name == "fold_01" and t.model == "armed" for t in tasks):
            raise RuntimeError("out of memory")
        return train(study, tasks, progress)

    monkeypatch.setattr(fold_training, "_train_stack", fail)
    arguments = ["compare", "--bundle", str(bundle), "--folds", "2", "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert "armed/fold_01: RuntimeError: out of memory" in shown.err and "1 folds failed" in shown.out
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    counts = results[results["metric"] == "accuracy"].groupby("model")["fold"].nunique()
    assert counts["conventional"] == 2 and counts["armed"] == 1
    assert "out of memory" in (tmp_path / "out" / "simulation=1" / "armed" / "fold_01" / "error.txt").read_text()
    monkeypatch.undo()
    assert main(arguments) == 0
    assert "failed" not in capsys.readouterr().out


def test_an_interrupted_fold_goes_on_from_its_last_epoch(bundle, tmp_path, monkeypatch):
    change(bundle, "compare", stacked=False, models=["armed"])
    change(bundle, "train", max_epochs=5)
    expected = compare(comparison_of(bundle, tmp_path / "one"))["results"].read_bytes()
    save, epochs = TrainingCheckpoint.save, []

    def interrupt(self, engine):
        save(self, engine)
        epochs.append(engine.state.epoch)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingCheckpoint, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare(comparison_of(bundle, tmp_path / "two"))
    files = compare(comparison_of(bundle, tmp_path / "two"))
    assert epochs[:5] == [1, 2, 3, 4, 5] and files["results"].read_bytes() == expected

    # of another config: anew
    change(bundle, "train", max_epochs=4)
    epochs[:] = [0] * 3
    compare(comparison_of(bundle, tmp_path / "two"))
    assert epochs[3:7] == [1, 2, 3, 4]


def test_nested_search_chooses_what_learns(bundle, tmp_path):
    change(bundle, "compare", models=["conventional"])
    change(bundle, "train", max_epochs=60, batch_size=8)
    (bundle / "configs" / "search.json").write_text(json.dumps({"all": {"learning_rate": [1e-30, 0.03]}}))
    out = tmp_path / "out"
    compare(comparison_of(bundle, out, inner_folds=2))
    for fold in ("fold_00", "fold_01"):
        record = json.loads((out / "simulation=1" / "conventional" / fold / "search.json").read_text())
        assert record["chosen"] == 1 and record["scores"][1] > record["scores"][0]
        history = json.loads((out / "simulation=1" / "conventional" / fold / "history.json").read_text())
        assert len(history["val_loss"]) == 60
        inner = json.loads((out / "simulation=1" / "conventional" / fold / "search" / "0_0" / "parts.json").read_text())
        outer = json.loads((out / "simulation=1" / "conventional" / fold / "parts.json").read_text())
        assert not set(outer["test"]) & {i for part in inner.values() for i in part}


def test_folds_of_repeated_data(bundle, tmp_path):
    change(bundle, "train", dataset_dir=None)
    change(bundle, "compare", models=["conventional"])
    tasks, samples = comparison_of(bundle, tmp_path / "out", repeat="data_seed").plan()
    assert [t.overrides for t in tasks] == [{"data_seed": 0}, {"data_seed": 1}]
    assert len({t.samples for t in tasks}) == 2
    first, second = samples.values()
    assert not np.array_equal(first.partitions["data"].radius, second.partitions["data"].radius)


def expect_error(arguments, capsys, *words):
    assert main(["compare", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


def test_bad_input_is_named_before_anything_is_trained(bundle, tmp_path, monkeypatch, capsys):
    def never(*_args):
        raise AssertionError("something was trained")

    monkeypatch.setattr(runner, "train_and_score", never)
    out = tmp_path / "out"
    good = ["--bundle", bundle, "--out", out, "--folds", "2"]
    expect_error([*good, "--models", "armed,resnet"], capsys, "no model 'resnet'", "conventional")
    expect_error(["--bundle", tmp_path / "nothing", "--out", out], capsys, "not a bundle", "train.json")
    expect_error([*good, "--variant", "huge"], capsys, "no variant 'huge'")
    expect_error([*good, "--set", "epochs=3"], capsys, "no id 'epochs'")
    expect_error([*good, "--set", "epochs"], capsys, "id=value")
    expect_error([*good, "--only", "simulation=4"], capsys, "no setting", "simulation")
    expect_error([*good, "--folds", "30"], capsys, "too few for 30 stratified folds")
    expect_error([*good, "--set", f"dataset_dir={tmp_path}/none"], capsys, "no spiral data at")
    expect_error([*good, "--split", "grouped"], capsys, "subject")

    blocked = tmp_path / "file"
    blocked.write_text("")
    expect_error(["--bundle", bundle, "--out", blocked / "out"], capsys, "cannot be written to")

    change(bundle, "compare", cluster_key="hospital")
    expect_error(good, capsys, "no clusters", "hospital")
    change(bundle, "compare", cluster_key="cluster")
    kept = "[d for d in v if d['label'][0] == 0] if k in ('train', 'val', 'test') else v"
    one = f"$dict((k, {kept}) for k, v in {SPLIT}.items())"
    change(bundle, "train", imports=IMPORT, partitions=one)
    expect_error(good, capsys, "class")
    change(bundle, "train", imports=IMPORT, partitions=one.replace("d['label'][0]", "d['cluster']"))
    expect_error(good, capsys, "is the only seen cluster of the bundle")
    change(bundle, "train", partitions=[])
    expect_error(good, capsys, "no id 'partitions'")
    change(bundle, "compare", colour="red")
    expect_error(good, capsys, "unknown keys ['colour']")


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("folds", "0", 1), ("processes", "0", 1), ("processes", "-2", 1), ("inner-folds", "1", 2), ("seed", "-1", 0)],
)
def test_numbers_that_are_too_small_are_named(option, value, least, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--bundle", str(SPIRALS), "--out", str(tmp_path), f"--{option}={value}"])
    assert f"--{option}: must be at least {least}, got {value}" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "bundle"), [("spirals", "armed_mci"), ("mci", "armed_spirals")])
def test_the_bundle_of_another_study_is_refused(command, bundle, tmp_path, capsys):
    words = [command, "--bundle", str(SPIRALS.with_name(bundle)), "--out", str(tmp_path), "--models", "conventional"]
    assert main(words) == 2
    assert f"{bundle} is of another study: this command needs armed_{command}" in capsys.readouterr().err


def test_overrides_are_json_or_text():
    assert parse_overrides(["a=1", "b#c=[1, 2]", "d=text", "e=x=y"]) == {"a": 1, "b#c": [1, 2], "d": "text", "e": "x=y"}
    for wrong in ("a", "=3", " =3"):
        with pytest.raises(ValueError, match="an override is written id=value, got"):
            parse_overrides([wrong])


@pytest.mark.slow
def test_processes_share_the_work_without_changing_it(bundle, tmp_path):
    alone = pd.read_csv(compare(comparison_of(bundle, tmp_path / "one"))["results"])
    shared = pd.read_csv(compare(comparison_of(bundle, tmp_path / "two", processes=2))["results"])
    pd.testing.assert_frame_equal(alone, shared)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_a_killed_process_costs_its_fold_alone(bundle, tmp_path):
    change(bundle, "compare", stacked=False)
    change(bundle, "conventional", learning_rate=KILL)
    comparison = comparison_of(bundle, tmp_path / "out", processes=2, num_folds=3)
    results = pd.read_csv(compare(comparison)["results"])
    folds = results[results["metric"] == "accuracy"].groupby("model")["fold"].unique()
    assert sorted(folds["conventional"]) == [0, 2] and sorted(folds["armed"]) == [0, 1, 2]
    (failed,) = comparison.failures
    assert failed.name == "fold_01" and "was killed" in comparison.failures[failed]
