"""The same training by NVFLARE: messages survive the way, and its simulator comes to the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

pytest.importorskip("nvflare", reason="needs the federated extra")

from monai_armed.federated import Message
from monai_armed.federated.local import run_locally
from monai_armed.federated.nvflare_job import export_job, simulate
from monai_armed.federated.nvflare_messages import from_flare, to_flare

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
    job = export_job(SPIRALS, tmp_path, {"dataset_dir": "/my data"}, 3, 5, 1)
    meta = json.loads((job / "meta.json").read_text(encoding="utf-8"))
    assert meta["min_clients"] == 3
    assert [path.name for path in job.rglob("*.py")] == ["nvflare_client.py"]  # nothing else travels
    (client,) = job.rglob("config_fed_client.json")
    text = client.read_text(encoding="utf-8")
    words = [unquote(word) for word in find_args(json.loads(text)).split()]  # as NVFLARE splits them
    assert json.loads(words[words.index("--set") + 1]) == {"dataset_dir": "/my data"} and "--hospitals" not in words
    assert str(Path(__file__).parents[2] / "monai_armed") not in text


@pytest.mark.slow
def test_the_simulator_comes_to_the_same_as_one_process(overrides, tmp_path):
    job = (overrides, 2, 2, 1)
    simulate(SPIRALS, tmp_path / "nvflare", *job)
    there = torch.load(tmp_path / "nvflare" / "shared.pt", weights_only=True)
    here = run_locally(SPIRALS, tmp_path / "local", *job)
    torch.testing.assert_close(there, here)
    crossed = [
        sorted(set((tmp_path / place / "messages.csv").read_text(encoding="utf-8").splitlines()))
        for place in ("nvflare", "local")
    ]
    assert crossed[0] == crossed[1]
    for number in (1, 2):
        assert (tmp_path / "nvflare" / f"site-{number}" / "model.pt").is_file()
