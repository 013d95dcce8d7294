"""A hospital in a process of its own: the same answers, also where it is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest
import torch

from monai_armed.federated import Message, federate
from monai_armed.federated.hospital_config import hospitals_study
from monai_armed.federated.hospital_process import HospitalProcess
from monai_armed.federated.local import run_locally

SPIRALS = Path(__file__).parents[2] / "bundles" / "armed_spirals"
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")


def kill(hospital: HospitalProcess) -> None:
    assert hospital.pool is not None
    (process,) = hospital.pool._processes.values()
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.slow
@POSIX
def test_one_that_is_killed_between_rounds_goes_on_to_the_same_bit(overrides, tmp_path):
    study = hospitals_study(SPIRALS, overrides)
    here = run_locally(study, tmp_path / "local", 2, 2, 1)
    hospitals = {
        f"site-{number + 1}": HospitalProcess(study, tmp_path / f"site-{number + 1}", number, 2) for number in range(2)
    }

    def ask(message: Message) -> dict[str, Message]:
        if message.about.get("round") == 1:
            kill(hospitals["site-1"])
        return {name: hospital.answer(message) for name, hospital in hospitals.items()}

    there = federate(ask, 2, 1)
    torch.testing.assert_close(there, here, rtol=0, atol=0)
    for hospital in hospitals.values():
        hospital.close()


@pytest.mark.slow
@POSIX
def test_one_that_is_killed_while_it_trains_starts_the_round_again(overrides, tmp_path):
    hospital = HospitalProcess(hospitals_study(SPIRALS, overrides), tmp_path, 0, 2)
    start = hospital.answer(Message("start"))
    of_all = {"samples": start.about["samples"]}

    def kill_once_an_epoch_is_done() -> None:
        while not (tmp_path / "network" / "checkpoint.pt").is_file():
            time.sleep(0.002)
        kill(hospital)

    killer = Thread(target=kill_once_an_epoch_is_done)
    killer.start()
    first = hospital.pool
    answer = hospital.answer(Message("train", start.tensors, {"round": 0, "epochs": 60, **of_all}))
    killer.join()
    assert hospital.pool is not first and answer.about["samples"] > 0
    assert answer.tensors.keys() == start.tensors.keys()
    hospital.close()


def test_what_goes_wrong_in_it_is_said(overrides, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="hospital 4 of 2 has none"):
        (lost := HospitalProcess(hospitals_study(SPIRALS, overrides), tmp_path, 4, 2)).answer(Message("start"))
    lost.close()
