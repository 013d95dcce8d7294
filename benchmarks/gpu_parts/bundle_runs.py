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

"""Each bundle trained and resumed on the device by command, and how long its training waits for data."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from campaign.commands import BUNDLES, SHORT, bundle_command
from campaign.execution import run_command
from campaign.study_data import DATA
from ignite.engine import Engine, Events

from monai_armed.compare.study_bundle import StudyBundle

from .steps import synchronize

LIMIT = 120.0  # seconds of a command


def _on_cuda(folder: Path) -> list[str]:
    """An override file that puts any bundle on the GPU, with mixed precision."""
    path = folder / "on_cuda.json"
    path.write_text(json.dumps({"device": "$torch.device('cuda')", "train#trainer#amp": True}), encoding="utf-8")
    return [str(path)]


def rows(folder: Path, device: torch.device, left: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """A row for each bundle: seconds of two epochs and of two more after resuming, and whether all went well."""
    for bundle in BUNDLES:
        place = folder / bundle
        place.mkdir(parents=True)
        row: dict[str, Any] = {"bundle": bundle}
        if left() < LIMIT / 2:
            yield {**row, "note": "left out: the time was up"}
            continue
        data, further = DATA[bundle](place / "data"), _on_cuda(place) if device.type == "cuda" else []
        settings = {"dataset_dir": data, "output_dir": place / "out", **SHORT[bundle]}
        for step, change in (("train", {}), ("resume", {"max_epochs": "4", "resume": "true"})):
            command = bundle_command(bundle, "train", {**settings, **change}, further=further)
            start = time.perf_counter()
            code, text = run_command(command, place, {}, min(LIMIT, max(1.0, left())))
            row[f"{step}_s"] = time.perf_counter() - start
            if code != 0:
                row["note"] = f"{step} failed: {text.strip().splitlines()[-1][:200] if text.strip() else code}"
                break
        else:
            row["note"] = _note(place / "out")
        yield row


def _note(folder: Path) -> str:
    """``"ok"``, or what is wrong with the weights and the number of epochs."""
    state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    wrong = [name for name, value in state.items() if not value.isfinite().all()]
    checkpoint = next(iter(sorted(folder.rglob("checkpoint.pt"))))
    epochs = torch.load(checkpoint, map_location="cpu", weights_only=True)["progress"]["epoch"]
    if wrong:
        return f"weights are NaN or infinite: {wrong[0]}"
    return "ok" if epochs == 4 else f"{epochs} epochs, not 4"


class DataWait:
    """Ignite handler that measures how long an engine waits for its batches, from the second epoch on."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.waited, self.total, self.start, self.asked = device, 0.0, 0.0, 0.0, 0.0

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._got)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._done)

    def _ask(self, engine: Engine) -> None:
        synchronize(self.device)
        self.asked = time.perf_counter()

    def _got(self, engine: Engine) -> None:
        if engine.state.epoch > 1:  # the first one reads the files
            self.waited += time.perf_counter() - self.asked

    def _done(self, engine: Engine) -> None:
        synchronize(self.device)
        if engine.state.epoch > 1:
            self.total += time.perf_counter() - self.asked

    @property
    def share(self) -> float:
        """Share of an iteration that is waiting."""
        return self.waited / self.total


def data_waits(folder: Path, device: torch.device, small: bool) -> dict[str, float]:
    """Share of the time that the training of the image bundles waits for data: small data, the bundle's own batches."""
    shares = {}
    for bundle in ("ad_mri", "cell_aec"):
        place = folder / f"{bundle}_wait"
        place.mkdir(parents=True)
        settings: dict[str, Any] = {"dataset_dir": str(DATA[bundle](place / "data")), "output_dir": str(place / "out")}
        settings |= {"max_epochs": 2 if small else 20, "val_interval": 100, "batch_size": 8}
        parser = StudyBundle(BUNDLES[bundle]).config("train", "armed", settings)
        parser["train#handlers"] = []
        trainer = parser.get_parsed_content("train#trainer")
        wait = DataWait(device)
        wait.attach(trainer)
        trainer.run()
        shares[bundle] = wait.share
    return shares
