"""Two hospitals and a server, without a network between them: rounds, erasure, what crosses, one that was killed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader

from monai_armed.bundle import read_record
from monai_armed.federated import Hospital, Message, federate, shared_state
from monai_armed.federated.hospital_config import hospital_config, hospital_training, hospitals_study, part_of
from monai_armed.federated.masks import unmasked_sum
from monai_armed.federated.record import recorded
from monai_armed.federated.sums import sums_to_add
from monai_armed.networks import adapt
from monai_armed.networks.erasure import FeatureSums, fit_eraser, layer_sums

SPIRALS = Path(__file__).parents[2] / "bundles" / "armed_spirals"


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
        assert asked[0] == (lost_at if lost_at[0] == "train" else ("keys", None))
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
    assert counts == [2, 2, 1, 2, 2, 2, 2]
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


def test_no_sum_of_a_hospital_can_be_read_and_their_eraser_is_the_pooled_one(hospital):
    """What is sent is recorded whole: the same sums look otherwise each time, and together fit the same eraser."""
    hospitals, crossed, known = {"a": hospital(0), "b": hospital(1)}, [], {}

    def ask(message: Message):
        answers = ask_all(hospitals)(message)
        if message.kind == "sums":
            known.update({name: own_sums(one, "hidden") for name, one in hospitals.items()})
            crossed.append(answers)
        return answers

    shared = federate(ask, 1, 1)
    for name, answer in crossed[0].items():
        assert set(answer.tensors) == {"masked"}
        numbers = unmasked_sum([answer.tensors["masked"]])
        assert not torch.isclose(numbers, flattened(known[name]), rtol=1e-3).any()
        assert numbers.abs().median() > 2.0**60  # of the 2^63 that there are, where the sums are some thousands
    together = unmasked_sum([answer.tensors["masked"] for answer in crossed[0].values()])
    torch.testing.assert_close(together, flattened(known["a"]) + flattened(known["b"]), rtol=1e-14, atol=0)

    pooled = FeatureSums(8, 5, num_classes=2)
    for table in ("count", "total"):
        both = [getattr(sums, table) for sums in known.values()]
        getattr(pooled, table).copy_(torch.cat([both[0][:-1], both[1]]))
    pooled.second.copy_(sum(sums.second for sums in known.values()))
    wanted = fit_eraser(pooled, keep_label=False).state_dict()
    found = {name: shared[f"erasers.0.{name}"] for name in wanted}
    assert int(wanted["rank"]) >= 1
    torch.testing.assert_close(found, {name: value.to(found[name].dtype) for name, value in wanted.items()})


def own_sums(one, layer: str) -> FeatureSums:
    erasure = one.training.erasure
    return layer_sums(one.network, layer, DataLoader(erasure.dataset, batch_size=erasure.batch_size), num_classes=2)


def flattened(sums: FeatureSums) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in sums_to_add(sums).values()])


def test_a_hospital_that_is_killed_between_its_key_and_its_sums_is_asked_for_both_again(hospital):
    def train(folder: str, killed: int) -> tuple[dict[str, torch.Tensor], list[str]]:
        hospitals, asked = {"a": hospital(0, folder), "b": hospital(1, folder)}, list[str]()

        def ask(message: Message):
            asked.append(message.kind)
            if message.kind == "sums" and asked.count("sums") <= killed:
                hospitals["a"] = hospital(0, folder)
            return ask_all(hospitals)(message)

        return federate(ask, 1, 1), asked

    whole, once = train("whole", 0)
    again, twice = train("killed", 1)
    assert (once[2:], twice[2:]) == (["keys", "sums", "finish"], ["keys", "sums", "keys", "sums", "finish"])
    torch.testing.assert_close(again, whole)
    with pytest.raises(ValueError, match="come or gone in each of 3 sums of layer 'hidden'"):
        train("again", 3)


def test_a_key_hides_one_answer_alone(hospital):
    one = hospital(0)
    one.answer(Message("start"))
    question = Message("sums", {}, {"layer": "hidden", "keys": [one.answer(Message("keys")).about["key"]]})
    assert one.answer(question).tensors and not one.answer(question).tensors
    other = one.answer(Message("keys")).about["key"]
    assert other != question.about["keys"][0] and not one.answer(question).tensors


def test_a_single_cluster_has_nothing_to_be_told_from(overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("monai_armed.federated.hospital.STEPS", 20)
    alone = Hospital(hospital_training(hospital_config(hospitals_study(SPIRALS, overrides), tmp_path, 0, 5)))
    shared = federate(lambda message: {"alone": alone.answer(message)}, 1)
    assert int(shared["erasers.0.rank"]) == 0 and "erased 0 directions" in capsys.readouterr().out


def test_rounds_of_an_earlier_version_are_refused(tmp_path):
    kept = tmp_path / "rounds.pt"
    torch.save({"shared": {}, "about": {"layers": [], "rounds": 1, "hospitals": []}}, kept)
    with pytest.raises(ValueError, match="earlier version of monai_armed"):
        federate(lambda message: {}, 2, 1, kept=kept)
