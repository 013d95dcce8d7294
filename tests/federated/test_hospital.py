"""Two hospitals and a server, without a network between them: rounds, erasure, what crosses, one that was killed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from monai_armed.bundle import read_record
from monai_armed.federated import Message, federate, shared_state
from monai_armed.federated.hospital_config import part_of
from monai_armed.federated.record import recorded
from monai_armed.networks import adapt


def ask_all(hospitals):
    return lambda message: {name: hospital.answer(message) for name, hospital in hospitals.items()}


def test_a_training_shares_named_tensors_alone_and_gives_each_hospital_a_model(hospital, names_that_cross, tmp_path):
    hospitals = {"a": hospital(0), "b": hospital(1)}
    before = {name: one.network.random_effects.loc.detach().clone() for name, one in hospitals.items()}
    shared = federate(recorded(ask_all(hospitals), tmp_path / "messages.csv"), 2, 1)

    with open(tmp_path / "messages.csv", newline="", encoding="utf-8") as file:
        crossed = list(csv.DictReader(file))
    assert {row["name"] for row in crossed} == names_that_cross["tensors"] | names_that_cross["numbers"]
    assert {row["name"] for row in crossed if row["shape"]} < names_that_cross["tensors"]
    assert {row["sender"] for row in crossed} == {"server", "a", "b"}

    assert int(shared["erasers.0.rank"]) >= 1
    clusters = []
    for name, one in hospitals.items():
        torch.testing.assert_close(shared_state(one.network), shared)
        assert not torch.equal(one.network.random_effects.loc, before[name])
        clusters += read_record(one.training.model_path)["clusters"]
    assert clusters == ["0", "1", "2", "3", "4"]

    net = hospitals["a"].network  # a hospital that comes later
    x = torch.randn(20, 2)
    adapted = adapt(net, x, (x[:, :1] > 0).float(), torch.nn.BCEWithLogitsLoss(), steps=5)
    assert adapted.num_clusters == net.num_clusters + 1


def test_hospitals_of_other_sizes_take_the_steps_of_the_pooled_training(hospital):
    """So that each counts by its samples: with whole batches of its own the smaller one would be trained less."""
    hospitals = {"a": hospital(0), "b": hospital(1)}
    batches = {name: list[int]() for name in hospitals}
    for name, one in hospitals.items():
        one.training.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine, name=name: batches[name].append(len(engine.state.batch["image"]))
        )
    federate(ask_all(hospitals), 2, 2)
    samples = {name: one.samples for name, one in hospitals.items()}
    assert samples["a"] > 1.3 * samples["b"]  # three clusters and two
    steps = 4 * (sum(samples.values()) // 16)
    assert {name: len(sizes) for name, sizes in batches.items()} == {"a": steps, "b": steps}
    assert [set(sizes) for sizes in batches.values()] == [{10}, {6}]


def test_a_hospital_that_was_killed_goes_on_to_the_same_bit(hospital):
    def train(folder: str, killed: bool) -> dict[str, torch.Tensor]:
        hospitals = {"a": hospital(0, folder), "b": hospital(1, folder)}
        asked = []

        def ask(message: Message):
            asked.append(message.kind)
            if killed and len(asked) == 3:  # between the first round and the second
                hospitals["a"] = hospital(0, folder)
            return ask_all(hospitals)(message)

        federate(ask, 3, 1)
        return {f"{n} {k}": v for n, one in hospitals.items() for k, v in one.network.state_dict().items()}

    torch.testing.assert_close(train("killed", True), train("whole", False), rtol=0, atol=0)


def test_a_training_that_was_interrupted_goes_on_after_its_last_round(hospital, tmp_path):
    """Of server and hospitals nothing is left but their files."""

    def train(folder: str, lost_at: tuple[str, int | None] | None, kept: Path | None) -> dict[str, torch.Tensor]:
        hospitals = {"a": hospital(0, folder), "b": hospital(1, folder)}

        def ask(message: Message):
            if (message.kind, message.about.get("round")) == lost_at:
                raise ConnectionError
            asked.append((message.kind, message.about.get("round")))
            return ask_all(hospitals)(message)

        asked.clear()
        return federate(ask, 3, 1, kept=kept)

    asked, kept = list[tuple[str, int]](), tmp_path / "rounds.pt"
    whole = train("whole", None, tmp_path / "of_the_whole.pt")
    assert not (tmp_path / "of_the_whole.pt").exists()
    for lost_at in (("train", 2), ("finish", None)):
        with pytest.raises(ConnectionError):
            train("lost", lost_at, kept)
        again = train("lost", None, kept)
        assert asked[0] == (lost_at if lost_at[0] == "train" else ("sums", None))
        torch.testing.assert_close(again, whole, rtol=0, atol=0)
        assert not kept.exists()


def test_a_model_that_is_not_written_is_named(hospital):
    hospitals = {"a": hospital(0), "b": hospital(1)}

    def ask(message: Message):
        return ask_all({"a": hospitals["a"]} if message.kind == "finish" else hospitals)(message)

    with pytest.raises(ValueError, match="no model was written by b"):
        federate(ask, 1, 1)


def test_a_hospital_that_misses_a_round_rejoins(hospital):
    hospitals, counts = {"a": hospital(0), "b": hospital(1)}, []

    def ask(message: Message):
        away = message.kind == "train" and message.about["round"] == 1
        answers = ask_all({"a": hospitals["a"]} if away else hospitals)(message)
        counts.append(len(answers))
        return answers

    shared = federate(ask, 3, 1)
    assert counts == [2, 2, 1, 2, 2, 2]
    torch.testing.assert_close(shared_state(hospitals["b"].network), shared)


def test_an_erasure_without_the_sums_of_a_hospital_is_refused(hospital):
    hospitals = {"a": hospital(0), "b": hospital(1)}

    def ask(message: Message):
        return ask_all({"a": hospitals["a"]} if message.kind == "sums" else hospitals)(message)

    with pytest.raises(ValueError, match="no sums of layer 'hidden' from b"):
        federate(ask, 1, 1)


def test_faults_are_named(hospital):
    with pytest.raises(ValueError, match="got 'steal'"):
        hospital(0).answer(Message("steal"))
    with pytest.raises(ValueError, match="adversary=None"):
        hospital(0, adversary="dense")
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        federate(lambda message: {}, 0)
    with pytest.raises(ValueError, match="no hospital has answered"):
        federate(lambda message: {}, 1)
    with pytest.raises(ValueError, match="hospital 2 of 2 has none of 5 clusters"):
        part_of({"sites": list("abcde")}, 2, 2)


def test_clusters_are_shared_out_whole_and_each_once():
    items = [{"cluster": cluster, "image": cluster} for cluster in (0, 1, 2, 3, 4, 0)]
    whole = {"train": items, "val": [], "test": [], "sites": list("abcde")}
    parts = [part_of(whole, number, 2) for number in range(2)]
    assert [part["sites"] for part in parts] == [["a", "b", "c"], ["d", "e"]]
    assert [[item["cluster"] for item in part["train"]] for part in parts] == [[0, 1, 2, 0], [0, 1]]
    assert [item["image"] for part in parts for item in part["train"]] == [0, 1, 2, 0, 3, 4]


def test_a_single_cluster_has_nothing_to_be_told_from(hospital, capsys):
    alone = hospital(0)
    alone.answer(Message("start"))
    sums = alone.answer(Message("sums", {}, {"layer": "hidden"}))
    sums.tensors["count"], sums.tensors["total"] = sums.tensors["count"][-2:], sums.tensors["total"][-2:]
    answers = {"start": alone.answer(Message("start")), "sums": sums, "finish": Message("finish")}
    answers["train"] = Message(
        "train", shared_state(alone.network), {"samples": 3, "metric": 1.0, "metric_name": "loss"}
    )
    shared = federate(lambda message: {"alone": answers[message.kind]}, 1)
    assert int(shared["erasers.0.rank"]) == 0 and "there is nothing to erase" in capsys.readouterr().out


def test_rounds_of_an_earlier_version_are_refused(tmp_path):
    kept = tmp_path / "rounds.pt"
    torch.save({"shared": {}, "about": {"layers": [], "rounds": 1, "hospitals": []}}, kept)
    with pytest.raises(ValueError, match="earlier version of monai_armed"):
        federate(lambda message: {}, 2, 1, kept=kept)
