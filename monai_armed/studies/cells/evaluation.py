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

"""What an autoencoder-classifier of cells makes of images: Table 5, Fig. 6, and latents and pictures of new images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from monai_armed.audit.of_predictions import report_predictions
from monai_armed.bundle.evaluate import EVALUATED
from monai_armed.data.replaced_file import write_csv, write_text
from monai_armed.metrics.comparison import delong_interval
from monai_armed.networks.nets.armed_aec import ARMEDAEC
from monai_armed.studies.cells.cell_features import HAS_SKIMAGE
from monai_armed.studies.cells.figures import plot_latents, plot_recon_scales, plot_reconstructions
from monai_armed.studies.cells.known_features import known_features
from monai_armed.studies.cells.latent_separation import fresh_auroc, latent_separation
from monai_armed.studies.cells.new_batches import calibrate_cells
from monai_armed.studies.cells.outputs import CELL, CellOutputs, run_cells

__all__ = ["PREDICTIONS", "evaluate_cells"]

PREDICTIONS = ("mixed", "fixed", "randomized")
KEPT_IMAGES = 6  # rows of Fig. 6


def _phenotype(outputs: CellOutputs, prediction: str) -> dict[str, float]:
    """AUROC by cell with DeLong's interval; NaN where there are not two labelled cells of each class."""
    cells = outputs.cells
    cells = cells[cells["label"] >= 0]
    try:
        values = delong_interval(cells["label"].to_numpy(), cells[prediction].to_numpy())
    except ValueError:
        values = (float("nan"),) * 3
    return dict(zip(("auroc", "low", "high"), values))


def _known_features(
    network: ARMEDAEC,
    outputs: Mapping[str, CellOutputs],
    folder: Path,
    simulated_dir: str | Path | None,
    device: torch.device,
) -> dict[str, float]:
    """What the fixed latent holds of known features: printed, written to ``features.csv``, and as figures."""
    if not HAS_SKIMAGE:
        print("known features of cells are not measured: they need scikit-image, pip install 'monai_armed[cells]'.")
        return {}
    table = known_features(network, outputs, simulated_dir, device)
    table.to_csv(folder / "features.csv", index=False)
    print(
        "how well known features of a cell are read from its fixed latent (r), and kept by its reconstruction (slope):"
    )
    print(table.to_string(index=False, float_format="%.2f"))
    long = table.melt(["partition", "feature"], ["r", "slope"]).dropna()
    return {f"{row.partition}_fixed_{row.feature}_{row.variable}": float(row.value) for row in long.itertuples()}


def effect_scales(network: ARMEDAEC) -> pd.DataFrame:
    """
    Learned s.d. of the random scales and biases of each RECON layer, the root mean square over its channels.

    Args:
        network: with random effects.

    Returns:
        columns ``layer``, ``effect`` (``"scale"`` or ``"bias"``) and ``sd``.
    """
    rows = []
    for layer, effects in network.effects_by_layer.items():
        for effect, sd in zip(("scale", "bias"), effects.prior_scale.detach().chunk(2)):
            rows.append(
                {
                    "layer": layer.removesuffix(".adn.N").removesuffix(".N"),
                    "effect": effect,
                    "sd": float(sd.square().mean().sqrt()),
                }
            )
    return pd.DataFrame(rows)


def _pictures(network: ARMEDAEC, test: CellOutputs, batches: Sequence[str], folder: Path, device: torch.device) -> None:
    cells = test.rows.drop_duplicates(CELL)
    chosen = cells.iloc[np.linspace(0, len(cells) - 1, min(KEPT_IMAGES, len(cells))).astype(int)]
    x = torch.from_numpy(test.images[chosen.index]).to(device)
    images = {"real image": x, "decoded, without\ncluster effects": network.reconstruct(x, effects="fixed")}
    cluster = torch.tensor(chosen["cluster"].to_numpy()).to(device)
    if network.random is not None:
        images["decoded, with\ncluster effects"] = network.reconstruct(x, cluster)
        plot_recon_scales(effect_scales(network), folder / "recon_scales.png")
    if network.shows_clusters:
        for j, batch in enumerate(["population", *batches[:8]], start=-1):
            images[f"real image,\nas {batch}"] = network.show_as(x, cluster, torch.full_like(cluster, j))
    plot_reconstructions(
        {name: i[:, 0].clamp(0, 1).cpu().numpy() for name, i in images.items()}, folder / "as_batches.png"
    )
    labels = test.cells["label"].astype(int).map({-1: "unlabelled", 0: "low", 1: "high"}).to_numpy()
    if len(labels) > 2:
        plot_latents({"fixed effects": test.latents()}, test.clusters(), labels, batches, folder / "latents.png")


def _held_out_metrics(
    outputs: Mapping[str, CellOutputs], predictions: Sequence[str], folder: Path, ckpt_path: str | Path | None
) -> list[dict[str, Any]]:
    """A row of metrics for each prediction in each held-out partition; the unseen one gets its sets' columns."""
    table: list[dict[str, Any]] = []
    for partition in [name for name in ("test", "unseen") if name in outputs]:
        own = outputs[partition]
        sets: dict[str, dict[str, float]] = {}
        if partition == "unseen":
            own.rows, sets = calibrate_cells(own.rows, predictions, folder, ckpt_path)
        for prediction in predictions:
            row = {"mse": float(own.rows[f"{prediction}_error"].mean())}
            row |= _phenotype(own, prediction) | sets.get(prediction, {})
            table.append({"partition": partition, "prediction": prediction, **row})
        if np.isnan(row["auroc"]):
            print(f"the AUROC of {partition} cells is not measured: it needs two labelled cells of each class or more.")
    return table


def _write(
    outputs: Mapping[str, CellOutputs], first: str, table: pd.DataFrame, figures: Mapping[str, float], folder: Path
) -> None:
    """Predictions, metrics and the page of the first held-out partition; prints the metrics."""
    rows = pd.concat([o.rows.assign(partition=name) for name, o in outputs.items()])
    write_csv(rows.assign(batch_known=rows["cluster"] >= 0), folder / EVALUATED)
    write_csv(table, folder / "metrics.csv")
    write_text(json.dumps(figures, indent=2), folder / "metrics.json")
    cells = outputs[first].cells.reset_index()
    shown = f"fixed predictions of {first} cells"
    report_predictions(cells.assign(score=cells["fixed"]), "batch", "subject", folder / "report.html", shown)
    print(table.to_string(index=False, float_format="%.4f"))
    print(
        "\n".join(
            f"{name:36s} {value:.4g}" for name, value in figures.items() if not name.startswith(("test_", "unseen_"))
        )
    )
    print(f"written to {folder}")


def evaluate_cells(
    network: ARMEDAEC,
    loaders: Mapping[str, Iterable[Mapping]],
    batches: Sequence[str],
    output_dir: str | Path,
    simulated_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    ckpt_path: str | Path | None = None,
) -> dict[str, float]:
    """
    Table 5's columns and more: reconstruction error and AUROC of the phenotype (by cell, with DeLong's interval) on
    held-out cells of seen and on unseen batches, for each kind of prediction; separation of the fixed latents by batch
    beside its permutation null; a fresh classifier's accuracy at naming the batch; on simulated cells the errors
    against the truth; of unseen batches how well sets of phenotypes cover that are calibrated on the others, see
    :py:func:`monai_armed.studies.cells.new_batches.calibrate_cells`. Prints them, and writes ``metrics.csv``,
    ``metrics.json``, ``evaluated_predictions.csv``, ``report.html``, the page of :py:mod:`monai_armed.audit`,
    ``calibration.json`` for inference, and pictures.

    Args:
        network: in evaluation every part of it is used; unknown batches are treated by its own policy.
        loaders: batches of the partitions ``"train"``, ``"test"`` and ``"unseen"``, of those that have cells, with
            ``image``, ``label``, ``cluster``, and lists of ``file``, ``cell`` and ``batch``; not shuffled. What needs
            training and test cells is not measured where one has none, such as on another lab's images.
        batches: names of the seen batches in the order of their index.
        output_dir: folder to write to.
        simulated_dir: folder of the simulated study that the images are from, if they are.
        device: where the network is.
        seed: seed of the clusters of the randomized prediction.
        ckpt_path: the model's file, which ``calibration.json`` is for; without it none is written.

    Returns:
        all figures by name.

    Raises:
        ValueError: when there are neither test nor unseen cells.
    """
    device, folder = torch.device(device), Path(output_dir)
    if not {"test", "unseen"} & set(loaders):
        raise ValueError(f"loaders must have test or unseen cells to be evaluated, got {list(loaders)}.")
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {name: run_cells(network, loader, device, seed, name) for name, loader in loaders.items()}
    predictions = PREDICTIONS if network.random is not None else PREDICTIONS[1:2]
    table = _held_out_metrics(outputs, predictions, folder, ckpt_path)
    figures = {
        f"{row['partition']}_{row['prediction']}_{name}": value
        for row in table
        for name, value in row.items()
        if name not in ("partition", "prediction")
    }
    if "train" in outputs:
        for name in [other for other in outputs if other != "train"]:
            figures[f"{name}_fixed_fresh_auroc"] = fresh_auroc(outputs["train"], outputs[name])
    if {"train", "test"} <= set(outputs):
        figures |= latent_separation(outputs["train"], outputs["test"])
        figures |= _known_features(network, outputs, folder, simulated_dir, device)
        if simulated_dir is not None:
            from monai_armed.studies.cells.against_truth import errors_against_truth

            figures |= errors_against_truth(
                network, outputs["train"], outputs["test"], Path(simulated_dir), batches, device
            )
    else:
        print("what the latents tell of the batch is not measured: it needs training and test cells of seen batches.")
    first = next(name for name in ("test", "unseen") if name in outputs)
    _pictures(network, outputs[first], batches, folder, device)
    _write(outputs, first, pd.DataFrame(table), figures, folder)
    return figures
