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

"""NVFLARE's job of a federated training: to be simulated here, or exported to be run by hospitals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monai.utils import optional_import

from ..compare.study_bundle import BASE_MODEL, StudyBundle
from .hospital_config import check_agreed

__all__ = ["export_job", "simulate"]

FedJob, HAS_NVFLARE = optional_import("nvflare.job_config.api", name="FedJob")
CLIENT = Path(__file__).with_name("nvflare_client.py")


def _job(study: StudyBundle, folder: Path, hospitals: int, simulated: bool, rounds: int, local_epochs: int) -> Any:
    if not HAS_NVFLARE:
        raise ValueError('NVFLARE is not installed: pip install "monai_armed[federated]".')
    from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
    from nvflare.client.config import ExchangeFormat

    from .nvflare_controller import FederatedARMED

    job = FedJob(name="federated_armed", min_clients=hospitals)
    job.set_app_packages(["monai_armed"])  # which every machine has installed: else its source travels in the job
    job.to_server(FederatedARMED(rounds, local_epochs, folder=str(folder)))
    # NVFLARE splits the words at spaces, whatever the quotes: they are encoded, as in a URL
    words = ["--bundle", str(study.root), "--folder", str(folder), "--set", json.dumps(dict(study.overrides))]
    words += ["--model", "+".join(study.variant) or BASE_MODEL]
    words += ["--hospitals", str(hospitals)] if simulated else []
    raw = ExchangeFormat.RAW
    executor = ClientAPIExecutor(
        execution_mode="in_process",
        task_script_path=CLIENT.name,
        task_script_args=" ".join(map(quote, words)),
        params_exchange_format=raw,
        server_expected_format=raw,
    )
    job.to_clients(executor)
    job.to_clients(str(CLIENT))
    return job


def simulate(study: StudyBundle, folder: Path, hospitals: int, rounds: int, local_epochs: int) -> None:
    """
    Run a federated training in NVFLARE's simulator, where every hospital is a process of its own.

    Args:
        study: the bundle, see :py:func:`monai_armed.federated.hospital_config.hospitals_study`.
        folder: where each hospital, ``site-1`` and so on, has a folder for what is its own, and the server writes
            ``messages.csv`` and ``shared.pt``.
        hospitals: how many there are; the bundle's clusters are shared out among them.
        rounds, local_epochs: see :py:func:`monai_armed.federated.federate`.

    Raises:
        ValueError: when NVFLARE is not installed, or the training has failed.
    """
    folder = folder.resolve()
    job = _job(study, folder, hospitals, True, rounds, local_epochs)
    for name in ("shared.pt", "rounds.pt"):
        (folder / name).unlink(missing_ok=True)
    job.simulator_run(str(folder / "nvflare"), n_clients=hospitals, log_config="concise")
    if not (folder / "shared.pt").is_file():
        raise ValueError(
            f"the federated training has failed: error.txt in a hospital's folder in {folder} says why, or a log in "
            f"{folder / 'nvflare'}."
        )


def export_job(study: StudyBundle, folder: Path, hospitals: int, rounds: int, local_epochs: int) -> Path:
    """
    Write the job that NVFLARE's admin submits: the bundle and the overrides are then those of each hospital's machine.

    Args:
        study: the bundle, whose folder is the same on all machines, see
            :py:func:`monai_armed.federated.hospital_config.hospitals_study`.
        folder: folder of each hospital's own files on its machine, the same on all; the job is written here into it.
        hospitals: how many must be there for the training to start.
        rounds, local_epochs: see :py:func:`monai_armed.federated.federate`.

    Returns:
        folder of the job.

    Raises:
        ValueError: when NVFLARE is not installed, or something that hospitals agree on is not given.
    """
    check_agreed(study)
    job = _job(study, folder, hospitals, False, rounds, local_epochs)
    job.export_job(str(folder / "job"))
    return folder / "job" / "federated_armed"
