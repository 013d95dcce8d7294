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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from monai_armed.data.replaced_file import write_csv, write_text
from monai_armed.metrics.audit import LayerFeatures, audit_features
from monai_armed.metrics.cluster_separation import (
    centre_by_cluster,
    cluster_separation,
    effective_dimension,
    mean_by_group,
    within_class_accuracy,
)
from monai_armed.metrics.comparison import delong_interval
from monai_armed.networks.nets.armed_aec import ARMEDAEC
from monai_armed.studies.cells.figures import plot_latents, plot_recon_scales, plot_reconstructions
from monai_armed.studies.cells.new_batches import calibrate_cells

__all__ = ["PREDICTIONS", "evaluate_cells"]

PREDICTIONS = ("mixed", "fixed", "randomized")
CELL = ["batch", "cell"]
KEPT_IMAGES = 6  # rows of Fig. 6


@dataclass
class _Outputs:
    """
    What the network makes of one partition: tables by frame, latents, and the images themselves. A cell is a cell of
    its batch: others may number theirs alike.
    """

    rows: pd.DataFrame
    latent: np.ndarray
    images: np.ndarray

    @property
    def cells(self) -> pd.DataFrame:
        """A row for each cell, with the means over its frames; in the order of :py:meth:`latents`."""
        return self.rows.groupby(CELL).mean(numeric_only=True)

    def latents(self) -> np.ndarray:
        """Mean latent of each cell."""
        return mean_by_group(self.latent, self.rows.groupby(CELL).ngroup().to_numpy())[0]

    def clusters(self) -> np.ndarray:
        """Cluster index of each cell."""
        return self.cells["cluster"].to_numpy().astype(int)


@torch.no_grad()
def _run(network: ARMEDAEC, loader: Iterable[Mapping], device: torch.device, seed: int, name: str) -> _Outputs:
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    tables, latents, images = [], [], []
    for batch in tqdm(loader, desc=name):
        x, cluster = batch["image"].to(device), batch["cluster"].to(device)
        drawn = torch.randint(network.num_clusters, cluster.shape, generator=generator).to(device)
        latent = network.fixed.encode(x)
        fixed = network.decode_fixed(latent)
        mixed = {"mixed": fixed, "randomized": fixed}
        table = {
            "file": batch["file"],
            "cell": batch["cell"],
            "batch": batch["batch"],
            "cluster": cluster.tolist(),
            "label": batch["label"].tolist(),
            "fixed": network.fixed.classify(latent)[:, 0].tolist(),
        }
        for prediction, z in (("mixed", cluster), ("randomized", drawn)):
            table[prediction] = network(x, z)[:, 0].tolist()
            if network.random is not None:
                mixed[prediction] = network.reconstruct(x, z)
        for prediction, made in {"fixed": fixed, **mixed}.items():
            table[f"{prediction}_error"] = (made - x).square().flatten(1).mean(1).tolist()
        tables.append(pd.DataFrame(table))
        latents.append(latent.cpu().numpy())
        images.append(x.cpu().numpy())
    rows = pd.concat(tables, ignore_index=True)
    return _Outputs(rows, np.concatenate(latents), np.concatenate(images))


def _phenotype(outputs: _Outputs, prediction: str) -> dict[str, float]:
    """AUROC by cell with DeLong's interval; NaN where there are not two labelled cells of each class."""
    cells = outputs.cells
    cells = cells[cells["label"] >= 0]
    try:
        values = delong_interval(cells["label"].to_numpy(), cells[prediction].to_numpy())
    except ValueError:
        values = (float("nan"),) * 3
    return dict(zip(("auroc", "low", "high"), values))


def _separation(train: _Outputs, test: _Outputs) -> dict[str, float]:
    """
    How far the latents of held-out cells separate by batch, and how well fresh classifiers name it, within class; and
    what says whether they tell anything at all: their dimensions, and the error of one mean image for all cells.
    """
    z, cluster = test.latents(), test.clusters()
    mean_image = train.images.mean(axis=0)
    found = {
        "effective_dimension": effective_dimension(z),
        "mean_image_error": float(np.square(test.images - mean_image).mean()),
    }
    try:
        measured = found | cluster_separation(z, cluster)
    except ValueError as error:
        print(f"the separation of the latents by batch is not measured: {error}")
        return found | _probes(train, test)
    centred = cluster_separation(centre_by_cluster(train.latents(), train.clusters(), z, cluster), cluster)
    measured["davies_bouldin_centred"] = centred["davies_bouldin"]
    measured["calinski_harabasz_centred"] = centred["calinski_harabasz"]
    return measured | _probes(train, test)


def _labelled(part: _Outputs) -> LayerFeatures:
    """Latents of the cells with a label."""
    label = part.cells["label"].to_numpy()
    known = label >= 0
    return LayerFeatures({"latent": part.latents()[known]}, part.clusters()[known], label[known])


def _probes(train: _Outputs, test: _Outputs, kind: str = "probe") -> dict[str, float]:
    learn, held_out = (_labelled(part) for part in (train, test))
    try:
        table = within_class_accuracy(audit_features(learn, held_out))
    except ValueError:  # too few labelled cells
        return {}
    found = dict(zip(kind + "_" + table["probe"], table["balanced_accuracy"]))
    return found | {f"{kind}_chance": float(table["chance"].mean())}


@torch.no_grad()
def _against_truth(
    network: ARMEDAEC, train: _Outputs, test: _Outputs, folder: Path, batches: Sequence[str], device: torch.device
) -> dict[str, float]:
    """
    Errors against what the simulator knows: against the batch-free cell those of the fixed reconstruction, of the image
    as if from the population, of the image less its batch's mean image plus that of all, and of the image as it is;
    of the cell shown as if from another batch against that batch's image of it; and how well the batch-free images
    tell the batch.
    """
    from monai_armed.studies.cells.simulator import SimulatedCells

    study = SimulatedCells(folder)
    clean = []
    for part in (train, test):
        free = np.stack([study.render_as(Path(f).name, None) for f in part.rows["file"]]).astype(np.float32)[:, None]
        encoded = [network.fixed.encode(x.to(device)).cpu() for x in _split(free)]
        clean.append(_Outputs(part.rows, torch.cat(encoded).numpy(), free))
    clean_train, clean_test = clean
    found = _probes(clean_train, clean_test, "batch_free_probe")
    free = clean_test.images
    fixed = torch.cat([network.decode_fixed(z.to(device)).cpu() for z in _split(test.latent)])
    found["fixed_truth_error"] = float(((fixed.numpy() - free) ** 2).mean())
    found["real_truth_error"] = float(((test.images - free) ** 2).mean())
    shifted = test.images - _batch_means(train, len(batches))[test.rows["cluster"]] + train.images.mean(0)
    found["shift_truth_error"] = float(((shifted - free) ** 2).mean())
    if network.random is not None:
        shown = [
            network.reconstruct(x.to(device), z.to(device), as_cluster=torch.full_like(z, -1).to(device)).cpu()
            for x, z in zip(_split(test.images), _split(test.rows["cluster"].to_numpy()))
        ]
        found["population_truth_error"] = float(((torch.cat(shown).numpy() - free) ** 2).mean())
        found |= _as_if_errors(network, train, test, study, batches, device)
    return found


def _split(values: np.ndarray) -> list[torch.Tensor]:
    """Pieces of an array, (64 or fewer, ...)."""
    return list(torch.tensor(values).split(64))


def _batch_means(train: _Outputs, num_clusters: int) -> np.ndarray:
    """Mean training image of each batch."""
    return np.stack([train.images[train.rows["cluster"] == j].mean(0) for j in range(num_clusters)])


def _as_if_errors(network, train, test, study, batches, device) -> dict[str, float]:
    """
    Mean squared errors, over one frame of every third test cell and all other batches, of ways to change batch. The
    truth has the frame's own draws (its brightness and noise within the batch), or not (``_expected``): no method can
    know those of the other batch's image, but an image that is kept brings its own with it.
    """
    rows = test.rows.drop_duplicates(CELL).iloc[::3]
    x, own = torch.from_numpy(test.images[rows.index]).to(device), rows["cluster"].to_numpy()
    means = _batch_means(train, len(batches))
    errors: dict[str, list[float]] = defaultdict(list)
    for j, batch in enumerate(batches):
        other = own != j
        files = [Path(f).name for f in rows["file"][other]]
        images, cluster = x[torch.from_numpy(other)], torch.from_numpy(own[other]).to(device)
        target = torch.full_like(cluster, j)
        shown = {
            "as_if": network.reconstruct(images, cluster, as_cluster=target).cpu().numpy(),
            "as_if_decoded": network.reconstruct(images, cluster, as_cluster=target, keep_detail=False).cpu().numpy(),
            "as_if_shift": images.cpu().numpy() - means[own[other]] + means[j],
            "as_if_input": images.cpu().numpy(),
        }
        for end, noise in (("error", True), ("expected_error", False)):
            truth = np.stack([study.render_as(file, batch, noise) for file in files])[:, None]
            for name, made in shown.items():
                errors[f"{name}_{end}"] += ((made - truth) ** 2).mean((1, 2, 3)).tolist()
    return {name: float(np.mean(values)) for name, values in errors.items()}


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


def _pictures(network: ARMEDAEC, test: _Outputs, batches: Sequence[str], folder: Path, device: torch.device) -> None:
    cells = test.rows.drop_duplicates(CELL)
    chosen = cells.iloc[np.linspace(0, len(cells) - 1, min(KEPT_IMAGES, len(cells))).astype(int)]
    x = torch.from_numpy(test.images[chosen.index]).to(device)
    images = {"real image": x, "decoded, without\ncluster effects": network.reconstruct(x, effects="fixed")}
    if network.random is not None:
        cluster = torch.tensor(chosen["cluster"].to_numpy()).to(device)
        images["decoded, with\ncluster effects"] = network.reconstruct(x, cluster)
        images["real image,\nas population"] = network.reconstruct(x, cluster, as_cluster=torch.full_like(cluster, -1))
        for j, batch in enumerate(batches[:8]):
            images[f"real image,\nas {batch}"] = network.reconstruct(x, cluster, as_cluster=torch.full_like(cluster, j))
        plot_recon_scales(effect_scales(network), folder / "recon_scales.png")
    plot_reconstructions(
        {name: i[:, 0].clamp(0, 1).cpu().numpy() for name, i in images.items()}, folder / "as_batches.png"
    )
    labels = test.cells["label"].astype(int).map({-1: "unlabelled", 0: "low", 1: "high"}).to_numpy()
    if len(labels) > 2:
        plot_latents({"fixed effects": test.latents()}, test.clusters(), labels, batches, folder / "latents.png")


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
    ``metrics.json``, ``predictions.csv``, ``calibration.json`` for inference, and pictures.

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
    outputs = {name: _run(network, loader, device, seed, name) for name, loader in loaders.items()}
    table: list[dict[str, str | float]] = []
    figures: dict[str, float] = {}
    predictions = PREDICTIONS if network.random is not None else PREDICTIONS[1:2]
    for partition in [name for name in ("test", "unseen") if name in outputs]:
        sets: dict[str, dict[str, float]] = {}
        if partition == "unseen":
            unseen = outputs[partition]
            unseen.rows, sets = calibrate_cells(unseen.rows, predictions, folder, ckpt_path)
        for prediction in predictions:
            row = {"mse": float(outputs[partition].rows[f"{prediction}_error"].mean())}
            row |= _phenotype(outputs[partition], prediction) | sets.get(prediction, {})
            table.append({"partition": partition, "prediction": prediction, **row})
            figures |= {f"{partition}_{prediction}_{name}": value for name, value in row.items()}
        if np.isnan(row["auroc"]):
            print(f"the AUROC of {partition} cells is not measured: it needs two labelled cells of each class or more.")
    if {"train", "test"} <= set(outputs):
        figures |= _separation(outputs["train"], outputs["test"])
        if simulated_dir is not None:
            figures |= _against_truth(network, outputs["train"], outputs["test"], Path(simulated_dir), batches, device)
    else:
        print("what the latents tell of the batch is not measured: it needs training and test cells of seen batches.")
    _pictures(network, next(outputs[name] for name in ("test", "unseen") if name in outputs), batches, folder, device)
    rows = pd.concat([o.rows.assign(partition=name) for name, o in outputs.items()])
    write_csv(rows.assign(batch_known=rows["cluster"] >= 0), folder / "predictions.csv")
    write_csv(pd.DataFrame(table), folder / "metrics.csv")
    write_text(json.dumps(figures, indent=2), folder / "metrics.json")
    print(pd.DataFrame(table).to_string(index=False, float_format="%.4f"))
    print(
        "\n".join(
            f"{name:36s} {value:.4f}" for name, value in figures.items() if not name.startswith(("test_", "unseen_"))
        )
    )
    print(f"written to {folder}")
    return figures
