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

"""Errors of a network's pictures against what the simulator of cells knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from monai_armed.networks.layers.image_light import measure_light
from monai_armed.networks.nets.armed_aec import ARMEDAEC
from monai_armed.studies.cells.cell_features import HAS_SKIMAGE, cell_mask
from monai_armed.studies.cells.ghosts import ghost_energy
from monai_armed.studies.cells.image_corrections import ImageCorrections
from monai_armed.studies.cells.latent_separation import batch_probes
from monai_armed.studies.cells.outputs import CELL, CellOutputs, split
from monai_armed.studies.cells.simulator import SimulatedCells

__all__ = ["errors_against_truth"]


@torch.no_grad()
def errors_against_truth(
    network: ARMEDAEC, train: CellOutputs, test: CellOutputs, folder: Path, batches: Sequence[str], device: torch.device
) -> dict[str, float]:
    """
    Errors against what the simulator knows: against the batch-free cell those of the fixed reconstruction, of the image
    as it is, and of the image without its batch by the network (``population``), by its decoder's random effects
    (``population_decoder``) and by each of :py:class:`~monai_armed.studies.cells.image_corrections.ImageCorrections`;
    of the cell shown as if from another batch, in the same ways, against that batch's image of it, with the ghosts that
    each paints; and how well the batch-free images tell the batch.

    Args:
        network: the network, in evaluation mode.
        train: its outputs on the training cells.
        test: its outputs on the test cells, of seen batches.
        folder: of the simulated study.
        batches: names of the seen batches in the order of their index.
        device: where the network is.

    Returns:
        the figures by name: mean squared errors, but for the probes.
    """
    study, corrections = SimulatedCells(folder), ImageCorrections(train.images, train.rows["cluster"].to_numpy())
    clean = []
    for part in (train, test):
        free = np.stack([study.render_as(Path(f).name, None) for f in part.rows["file"]]).astype(np.float32)[:, None]
        encoded = [network.encode(x.to(device)).cpu() for x in split(free)]
        clean.append(replace(part, latent=torch.cat(encoded).numpy(), images=free))
    found = batch_probes(clean[0], clean[1], "batch_free_probe")
    free, own = clean[1].images, test.rows["cluster"].to_numpy()
    fixed = torch.cat([network.decode_fixed(z.to(device)).cpu() for z in split(test.latent)])
    shown = {
        "fixed": fixed.numpy(),
        "real": test.images,
        **_shown_as(network, corrections, test.images, own, -1, device),
    }
    names = {"as_if": "population", "as_if_decoder": "population_decoder"}
    for name, made in shown.items():
        name = names.get(name, name.removeprefix("as_if_"))
        found[f"{name}_truth_error"] = float(((made - free) ** 2).mean())
    if network.shows_clusters:
        found |= _as_if_errors(network, corrections, test, free, study, batches, device)
    return found


def _shown_as(
    network: ARMEDAEC, corrections: ImageCorrections, images: NDArray, own: NDArray, target: int, device: torch.device
) -> dict[str, NDArray]:
    """The images (N, 1, H, W) as if from a batch, -1: without theirs, by each way to do it."""
    ways: dict[str, list[NDArray]] = defaultdict(list)
    for x, z in zip(split(images), split(own)) if network.shows_clusters else ():
        x, cluster, other = x.to(device), z.to(device), torch.full_like(z, target).to(device)
        ways["as_if"].append(network.show_as(x, cluster, other).cpu().numpy())
        if network.random is not None:
            ways["as_if_decoder"].append(network.reconstruct(x, cluster, as_cluster=other).cpu().numpy())
    shown = {name: np.concatenate(parts) for name, parts in ways.items()}
    return shown | {f"as_if_{way}": corrections(way, images, own, target) for way in corrections.ways}


def _as_if_errors(
    network: ARMEDAEC,
    corrections: ImageCorrections,
    test: CellOutputs,
    free: NDArray,
    study: SimulatedCells,
    batches: Sequence[str],
    device: torch.device,
) -> dict[str, float]:
    """
    Mean squared errors, over one frame of every third test cell and all other batches, of ways to change batch. The
    truth has the frame's own draws (its brightness and noise within the batch), or not (``_expected``): no method can
    know those of the other batch's image, but an image that is kept brings its own with it. And the mean square of what
    each paints outside the cell (``_ghost``), beside the noise of the real images there.
    """
    rows = test.rows.drop_duplicates(CELL).iloc[::3]
    x, own = test.images[rows.index], rows["cluster"].to_numpy()
    masks = np.stack([cell_mask(image) for image in free[rows.index, 0]]) if HAS_SKIMAGE else None
    errors: dict[str, list[float]] = defaultdict(list)
    for j, batch in enumerate(batches):
        if not (other := own != j).any():
            continue
        files = [Path(f).name for f in rows["file"][other]]
        shown = _shown_as(network, corrections, x[other], own[other], j, device) | {"as_if_input": x[other]}
        if network.random is not None:
            shown["as_if_decoded"] = _decoded(network, x[other], own[other], j, device)
        for end, noise in (("error", True), ("expected_error", False)):
            truth = np.stack([study.render_as(file, batch, noise) for file in files])[:, None]
            for name, made in shown.items():
                errors[f"{name}_{end}"] += ((made - truth) ** 2).mean((1, 2, 3)).tolist()
                if noise and masks is not None:
                    errors[f"{name}_ghost"].append(ghost_energy(made[:, 0], truth[:, 0], masks[other]))
    found = {name: float(np.mean(values)) for name, values in errors.items()}
    return found | {"real_noise_ghost": float(measure_light(torch.from_numpy(x)).noise.square().mean())}


def _decoded(network: ARMEDAEC, images: NDArray, own: NDArray, target: int, device: torch.device) -> NDArray:
    """The images as the decoder paints them for a batch, without their own detail."""
    shown = [
        network.reconstruct(
            x.to(device), z.to(device), as_cluster=torch.full_like(z, target).to(device), keep_detail=False
        )
        for x, z in zip(split(images), split(own))
    ]
    return torch.cat(shown).cpu().numpy()
