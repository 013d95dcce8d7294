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

"""The GPU benchmark itself, in small and on the CPU: what it measures there tells nothing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    Path(os.environ.get("MONAI_ARMED_TEST_DATA", ".")).resolve().parent / "tools",
    ROOT.parent / "shared" / "tools",
)


@pytest.fixture(scope="module")
def modules():
    """The benchmark's modules by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield {
            name: importlib.import_module(name)
            for name in ("gpu", "gpu_parts.audits", "gpu_parts.floor", "gpu_parts.steps")
        }


def test_work_of_a_step_is_what_its_matrices_say(modules):
    batch, inputs, outputs = 8, 6, 4
    layer, x = torch.nn.Linear(inputs, outputs, bias=False), torch.rand(8, 6)

    def step() -> None:
        y = layer(x)
        (y * y).sum().backward()

    work = modules["gpu_parts.floor"].work_of(step, layer)
    assert work["flops"] == 2 * (2 * batch * inputs * outputs)  # forward, and the gradient of the weights
    kept = 4 * batch * (inputs + outputs)
    assert work["bytes"] == 2 * kept + 10 * 4 * inputs * outputs


def test_floor_is_the_larger_of_both(modules, monkeypatch):
    floor = modules["gpu_parts.floor"]
    monkeypatch.setattr(floor, "PEAKS", {"Card": (1e6, 1e6, 1e9)})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Card 80GB")
    for work, milliseconds in (({"flops": 6e5, "bytes": 1.0}, 1000.0), ({"flops": 1.0, "bytes": 8e8}, 1000.0)):
        monkeypatch.setattr(floor, "work_of", lambda step, network, work=work: dict(work))
        found = floor.floor_of(lambda: None, torch.nn.Linear(1, 1), torch.device("cuda"), amp=False)
        assert found["floor_ms"] == pytest.approx(milliseconds)


def results() -> dict:
    step = {"network": "CNN", "option": "bf16", "training": "one pass", "ms": 12.0, "ratio": 1.07, "images_per_s": 99.0}
    return {
        **dict.fromkeys(("device", "torch", "cuda", "monai"), "x"),
        "tests": {"passed": 7, "failures": [], "note": "ok"},
        "steps": [step, {**step, "note": "OutOfMemoryError: no room"}],
        "bundles": [{"bundle": "mci", "train_s": 3.0, "resume_s": 2.0, "note": "ok"}],
        "audits": [{"command": "audit", "device": "cuda", "images": 9, "seconds": 4.0, "leak": 0.75, "note": "ok"}],
        "data_wait": {"ad_mri": 0.25},
        "nondeterministic": {"CNN, one pass": ["index_add_cuda_"]},
    }


def test_tables_have_what_was_measured_and_failures_are_named(modules):
    gpu, found = modules["gpu"], results()
    text = gpu.markdown(found)
    for word in (
        "| CNN | bf16 | one pass | 12 | 1.07 | 99 |",
        "OutOfMemoryError",
        "ad_mri 25%",
        "| audit | cuda | 9 | 4.00 | 0.75 | ok |",
        "index_add_cuda_",
    ):
        assert word in text
    assert gpu.failed(found) == ["CNN, bf16: OutOfMemoryError: no room"]
    found["tests"]["note"], found["bundles"][0]["note"] = "exit code 1", "resume failed: no"
    found["audits"][0]["note"] = "not what the CPU gives"
    assert len(gpu.failed(found)) == 4


def test_what_fails_or_comes_too_late_is_a_row(modules, monkeypatch):
    steps, cpu = modules["gpu_parts.steps"], torch.device("cpu")
    assert {row["note"] for row in steps.rows(True, cpu, lambda: 0.0)} == {"left out: the time was up"}

    def fail(*_args):
        raise RuntimeError("no kernel\nsecond line")

    monkeypatch.setattr(steps, "_measured", fail)
    assert {row["note"] for row in steps.rows(True, cpu, lambda: 999.0)} == {"RuntimeError: no kernel"}


def test_without_a_gpu_it_says_so(modules, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        modules["gpu"].main(["--out", str(tmp_path)])
    assert "there is no CUDA device: give --small" in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_is_audited_and_erased(modules, tmp_path):
    audits, cpu = modules["gpu_parts.audits"], torch.device("cpu")
    found = list(audits.rows(tmp_path / "a", cpu, True, lambda: 999.0))
    assert [(row["command"], row["device"], row["note"]) for row in found] == [
        ("erase", "cpu", "ok"),
        ("audit", "cpu", "ok"),
    ]
    assert 0.5 <= found[1]["leak"] <= 1
    late = list(audits.rows(tmp_path / "b", cpu, True, lambda: -1.0))
    assert {row["note"] for row in late} == {"left out: the time was up"}


EMULATED = """
import torch, emulated_cuda
from gpu_parts import steps
workload, device = steps.workloads(small=True)[0], torch.device("cuda:0")
with emulated_cuda.Cuda():
    for kind in steps.KINDS:
        step, network = steps.step_of(kind, workload, steps.options(small=True)[0], device)
        assert steps.seconds_of(step, device, 0, 1) > 0
        assert all(parameter.device == device for parameter in network.parameters())
"""


@pytest.mark.slow
def test_steps_run_on_an_emulated_device():
    found = [folder for folder in TOOLS if (folder / "emulated_cuda.py").is_file()]
    if not found:
        pytest.skip("the emulation of a device is not at hand; it is looked for beside MONAI_ARMED_TEST_DATA")
    path = os.pathsep.join(
        [str(ROOT), str(ROOT / "benchmarks"), str(found[0])]
    )  # it changes torch: a process of its own
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", EMULATED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_everything_in_small(modules, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert modules["gpu"].main(["--small", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["note"] for row in found["bundles"]] == ["ok"] * 4
    assert all(row["ms"] > 0 and row["flops"] > 0 for row in found["steps"]) and len(found["steps"]) == 12
    assert [row["note"] for row in found["audits"]] == ["ok"] * 2
    assert set(found["data_wait"]) == {"ad_mri", "cell_aec"}
    assert "| conventional |" in (tmp_path / "gpu.md").read_text()
