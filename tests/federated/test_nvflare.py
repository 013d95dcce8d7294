"""The same training by NVFLARE: messages survive the way, and its simulator comes to the same weights."""

from __future__ import annotations

import csv
import json
import time
import traceback
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import pytest
import torch

pytest.importorskip("nvflare", reason="needs the federated extra")

from monai_armed.federated import Message
from monai_armed.federated.hospital_config import hospitals_study
from monai_armed.federated.local import run_locally
from monai_armed.federated.nvflare_client import answer_without_names
from monai_armed.federated.nvflare_job import export_job, simulate
from monai_armed.federated.nvflare_messages import from_flare, to_flare

psutil = pytest.importorskip("psutil", reason="comes with NVFLARE")
SPIRALS = Path(__file__).parents[2] / "bundles" / "armed_spirals"


def test_a_message_survives_the_way():
    tensors = {"a": torch.rand(2, 3), "rank": torch.tensor(4), "sums": torch.rand(3, dtype=torch.double)}
    sent = Message("train", tensors, {"samples": 5, "layers": ["hidden"]})
    got = from_flare(to_flare(sent))
    assert (got.kind, got.about) == (sent.kind, sent.about)
    torch.testing.assert_close(got.tensors, sent.tensors, rtol=0, atol=0)


def find_args(config: dict) -> str:
    return config["executors"][0]["executor"]["args"]["task_script_args"]


def test_an_exported_job_shares_no_clusters_out(tmp_path):
    job = export_job(hospitals_study(SPIRALS, {"dataset_dir": "/my data"}), tmp_path, 3, 5, 1)
    meta = json.loads((job / "meta.json").read_text(encoding="utf-8"))
    assert meta["min_clients"] == 3
    assert [path.name for path in job.rglob("*.py")] == ["nvflare_client.py"]  # nothing else travels
    (client,) = job.rglob("config_fed_client.json")
    text = client.read_text(encoding="utf-8")
    words = [unquote(word) for word in find_args(json.loads(text)).split()]  # as NVFLARE splits them
    assert json.loads(words[words.index("--set") + 1]) == {"dataset_dir": "/my data"} and "--hospitals" not in words
    assert words[words.index("--model") + 1] == "without_adversary+erased"
    assert str(Path(__file__).parents[2] / "monai_armed") not in text


def read_record(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_simulator_comes_to_the_same_as_one_process(overrides, names_that_cross, tmp_path):
    study, job = hospitals_study(SPIRALS, overrides), (2, 2, 1)
    simulate(study, tmp_path / "nvflare", *job)
    there = torch.load(tmp_path / "nvflare" / "shared.pt", weights_only=True)
    here = run_locally(study, tmp_path / "local", *job)
    torch.testing.assert_close(there, here)
    for number in (1, 2):
        assert (tmp_path / "nvflare" / f"site-{number}" / "model.pt").is_file()

    crossed, expected = (read_record(tmp_path / place / "messages.csv") for place in ("nvflare", "local"))
    assert sorted(crossed, key=str) == sorted(expected, key=str)
    assert {row["name"] for row in crossed} == names_that_cross["tensors"] | names_that_cross["numbers"]
    for site in ("site-1", "site-2"):  # what each hospital itself saw
        own = read_record(tmp_path / "nvflare" / site / "messages.csv")
        assert own == [row for row in crossed if row["sender"] in ("server", site)]


def test_what_is_wrong_with_a_hospitals_data_stays_there(tmp_path):
    """NVFLARE's client sends its error log, which has the exception with all that it comes from, to the server."""

    class Wrong:
        def answer(self, message):
            raise ValueError("PTID 013_S_0027 belongs to two RIDs")

    with pytest.raises(RuntimeError, match="no answer to 'start'") as caught:
        answer_without_names(Wrong(), Message("start"), tmp_path / "site-2")
    assert "013_S_0027" not in "".join(traceback.format_exception(caught.value))
    assert "013_S_0027" in (tmp_path / "site-2" / "error.txt").read_text(encoding="utf-8")


def kill_while_it_trains(site: str, folder: Path, killed: list[int]) -> None:
    """Kill the process in which a simulated hospital trains, once it has trained an epoch."""
    while not (folder / site / "network" / "checkpoint.pt").is_file():
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(process.cmdline()) and site in process.parent().cmdline():
            process.kill()
            killed.append(process.pid)


@pytest.mark.slow
def test_a_hospital_that_is_killed_rejoins(overrides, tmp_path):
    killed: list[int] = []
    killer = Thread(target=kill_while_it_trains, args=("site-1", tmp_path, killed))
    killer.start()
    simulate(hospitals_study(SPIRALS, overrides), tmp_path, 2, 2, 60)
    killer.join()
    assert len(killed) == 1 and not psutil.pid_exists(killed[0])
    crossed = read_record(tmp_path / "messages.csv")
    senders = [row["sender"] for row in crossed if row["kind"] == "train" and row["name"] == "samples"]
    answers = [sender for sender in senders if sender != "server"]  # which says how many samples all have
    assert sorted(answers) == ["site-1", "site-1", "site-2", "site-2"]  # two rounds, and none without it
    assert (tmp_path / "site-1" / "model.pt").is_file()
