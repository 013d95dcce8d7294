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

"""``audit`` and ``erase`` of an exported network on the device, beside the same on the CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.networks.nets import DenseNet121
from PIL import Image

from monai_armed.__main__ import main

NEAR = 0.02  # what rounding on another device may change an AUROC by


def _images(folder: Path, number: int, size: int) -> Path:
    """A data list of noise of three simulated sites, each of a brightness of its own."""
    rng, rows = np.random.default_rng(0), []
    for i in range(number):
        pixels = rng.normal(90 + 30 * (i % 3), 20, (size, size))
        Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "label": i // 3 % 2, "site": f"site {i % 3}"})
    pd.DataFrame(rows).to_csv(folder / "list.csv", index=False)
    return folder / "list.csv"


def _network(path: Path, size: int) -> Path:
    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1).eval()
    sizes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(network, (torch.rand(2, 1, size, size),), dynamic_shapes=sizes), path)
    return path


def rows(folder: Path, device: torch.device, small: bool, left: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """A row for each command on the CPU and on the device: seconds, the leak, and whether all went well."""
    number, size = (36, 32) if small else (1000, 64)
    folder.mkdir(parents=True)
    data, network = _images(folder, number, size), _network(folder / "network.pt2", size)
    inputs = ["--network", network, "--data", data, "--image_size", size, size]
    known: dict[str, float] = {}
    for place in dict.fromkeys(["cpu", device.type]):
        commands = {
            "erase": ["erase", *inputs, "--layer", "features", "--out", folder / f"erased_{place}.pt2"],
            "audit": ["audit", *inputs, "--layers", "features", "--out", folder / place],
        }
        for name, command in commands.items():
            row: dict[str, Any] = {"command": name, "device": place, "images": number}
            if left() < 0:
                yield {**row, "note": "left out: the time was up"}
                continue
            start = time.perf_counter()
            code = main([*map(str, command), "--device", place])
            row["seconds"] = time.perf_counter() - start
            if code == 0 and name == "audit":
                row["leak"] = _leak(folder / place)
            near = abs(row.get("leak", 0.0) - known.setdefault(name, row.get("leak", 0.0))) <= NEAR
            yield {**row, "note": f"exit code {code}" if code else "ok" if near else f"not what the CPU gives, {known}"}


def _leak(folder: Path) -> float:
    """AUROC with which the predictions tell the site."""
    leaks = json.loads((folder / "audit.json").read_text(encoding="utf-8"))["tables"]["leaks"]
    return next(row["leak"] for row in leaks if row["attribute"] == "site")
