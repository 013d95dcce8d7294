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

"""Saliency of a trained network on images whose true regions are known: scored, tabulated and drawn (Fig. 5)."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.engines import PrepareBatch
from monai.visualize import GradCAM, OcclusionSensitivity

from monai_armed.metrics.saliency_in_roi import interval_by_subject, saliency_in_roi
from monai_armed.networks.layers.feature_layers import record_layers
from monai_armed.networks.nets.cluster_network import ClusterNetwork
from monai_armed.visualize.saliency import SaliencyPanel, plot_saliency

__all__ = ["SaliencyMaps", "draw_images", "saliency_layer", "saliency_scores", "score_saliency"]

KEYS = ("subject", "session", "site", "manufacturer")
METHODS = {"grad_cam": "Grad-CAM", "occlusion": "Occlusion"}
MEASURES = ("share", "rank")
TRAINED = "trained"
REFERENCES = {"untrained": "untrained network", "even": "even saliency"}
SITES, IMAGES = 3, 2  # of the picture: sites, and images of each class and site


def draw_images(datalist: Sequence[Any], number: int, seed: int = 0) -> list[Any]:
    """
    Some images of a data list, at random; all if there are no more.

    Args:
        datalist: the list.
        number: how many.
        seed: of the draw: the same for all models that are to be compared.

    Returns:
        the drawn ones, in the order of the list.
    """
    chosen = np.random.default_rng(seed).permutation(len(datalist))[:number]
    return [datalist[k] for k in sorted(chosen)]


def saliency_layer(network: torch.nn.Module, x: torch.Tensor, max_cell: float, **options: Any) -> str:
    """
    The layer for Grad-CAM by a rule that does not look at the result: the last one, in the order of execution, whose
    output still tells places apart that are ``max_cell`` away from each other. Deeper layers know more of the class,
    and one cell of theirs covers more than the region that is looked for.

    Args:
        network: the network; of one that wraps another, such as ARMED, a layer of the wrapped one is chosen.
        x: a batch, (B, C, *spatial).
        max_cell: largest width of a cell of the output, in pixels of the input.
        options: further arguments of the network.

    Returns:
        the layer's name.

    Raises:
        ValueError: when there is no such layer.
    """
    prefix = "network." if isinstance(network, ClusterNetwork) else ""
    names = [name for name, _ in network.named_modules() if name and name.startswith(prefix)]
    with torch.no_grad(), record_layers(network, outputs=names, check=False) as record:
        network(x, **options)
    fine = [
        name
        for name, output in record.outputs.items()
        if output.ndim == x.ndim and all(n <= max_cell * k for n, k in zip(x.shape[2:], output.shape[2:]))
    ]
    if not fine:
        raise ValueError(
            f"no layer of {type(network).__name__} has cells of {max_cell:g} pixels or less: allow larger ones."
        )
    return fine[-1]


class SaliencyMaps:
    """
    Two maps of what the first logit rests on, both MONAI's: Grad-CAM (what speaks for class 1, at
    :py:func:`saliency_layer`), and occlusion sensitivity (how much the logit changes, in whichever direction, when a
    square is replaced by its mean). Grad-CAM averages the gradient over all places, which suits networks that pool over
    them at the end; where a dense layer has weights of its own for each place, occlusion is the one to believe.

    Args:
        network: the trained network.
        prepare_batch: says what the network is called with, such as the fixed effects alone. A cluster that is not
            known is inferred once, from the whole image.
        max_cell: largest width of Grad-CAM's cells, and width of the occluded squares, in pixels.
        device: device of the network.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        prepare_batch: PrepareBatch,
        max_cell: float,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = copy.deepcopy(network).to(device).eval()  # Grad-CAM leaves its hooks
        self.prepare_batch, self.max_cell, self.device = prepare_batch, max_cell, device
        self.layer = ""
        self.cam: GradCAM | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """
        Args:
            batch: what the loader gives.

        Returns:
            by method a map (B, *spatial) of values of 0 or more.
        """
        x, _, _, options = self.prepare_batch(dict(batch), self.device)
        cluster = options.get("cluster")
        if isinstance(self.network, ClusterNetwork) and isinstance(cluster, torch.Tensor):
            options = {**options, "cluster": self.network.clusters.of_first(x, cluster)}
        if self.cam is None:
            self.layer = saliency_layer(self.network, x, self.max_cell, **options)
            self.cam = GradCAM(self.network, self.layer, postprocessing=lambda saliency: saliency)
        grad_cam = self.cam(x, class_idx=0, **options).detach().cpu().numpy()[:, 0].clip(min=0)
        occlusion = [self._occluded(x[k : k + 1], _of_image(options, k)) for k in range(len(x))]
        return {"grad_cam": grad_cam, "occlusion": np.stack(occlusion)}

    def untrained(self, seed: int) -> SaliencyMaps:
        """
        Maps of the same network with weights as before training, those of a wrapped network alike whatever wraps it: a
        saliency that does not differ from theirs is one of the images, not of what was learned (Adebayo et al.,
        https://arxiv.org/abs/1810.03292).

        Args:
            seed: of the weights.
        """
        maps = SaliencyMaps(self.network, self.prepare_batch, self.max_cell, self.device)
        wrapped = maps.network.get_submodule("network" if isinstance(maps.network, ClusterNetwork) else "")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in wrapped.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        return maps

    @torch.no_grad()
    def _occluded(self, x: torch.Tensor, options: Mapping[str, Any]) -> np.ndarray:
        network = _FirstLogit(self.network).eval()
        whole = network(x, **options)
        occlusion = OcclusionSensitivity(
            network,
            mask_size=round(self.max_cell),
            n_batch=32,
            verbose=False,
            mode="mean_patch",
            overlap=0.25,
            activate=lambda logits: (logits - whole).abs(),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # MONAI 1.6 indexes with lists, which PyTorch warns of
            return np.asarray(occlusion(x, **options)[0].cpu())[0, 0]


class _FirstLogit(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, **options: Any) -> torch.Tensor:
        return self.network(x, **options)[:, :1]


def _of_image(options: Mapping[str, Any], k: int) -> dict[str, Any]:
    return {name: value[k : k + 1] if isinstance(value, torch.Tensor) else value for name, value in options.items()}


def score_saliency(
    maps: SaliencyMaps, loaders: Mapping[str, Iterable[Mapping[str, Any]]], output_dir: str | Path, seed: int = 0
) -> pd.DataFrame:
    """
    How much of the saliency lies in the true region, for every image, whatever its class; printed, and written to
    ``saliency.csv``, a row for each image and map, and ``saliency_<method>.png``, panels by site. Beside the network's
    maps stand those of the same network before training, and saliency that is the same everywhere in the brain.

    Args:
        maps: gives the maps.
        loaders: by name of the partition, batches with ``"image"`` (B, 1, H, W), ``"label"``, ``"subject"``, ``"site"``
            and ``"roi"``, the true regions as labels above 0, shaped as the image. Above 0 an image is brain.
        output_dir: folder to write to.
        seed: of the untrained network.

    Returns:
        the table: ``partition``, subject, session, site, manufacturer, ``label``, ``network`` (``"trained"``,
        ``"untrained"`` or ``"even"``), ``method``, and the measures of
        :py:func:`monai_armed.metrics.saliency_in_roi.saliency_in_roi`. It is empty where no image has true regions.
    """
    networks = {TRAINED: maps, "untrained": maps.untrained(seed)}
    rows: list[dict[str, Any]] = []
    panels: dict[str, list[SaliencyPanel]] = {method: [] for method in METHODS}
    for partition, loader in loaders.items():
        for batch in loader:
            found = {name: each(batch) for name, each in networks.items()}
            found["even"] = dict.fromkeys(METHODS, (np.asarray(batch["image"]) > 0)[:, 0])
            for k, row in enumerate(_rows(batch)):
                image, region = np.asarray(batch["image"][k, 0]), np.asarray(batch["roi"][k, 0]) > 0
                for (name, by_method), method in itertools.product(found.items(), METHODS):
                    scores = saliency_in_roi(by_method[method][k], region, image > 0)
                    rows.append({"partition": partition, **row, "network": name, "method": method, **scores})
                    if name == TRAINED:
                        caption = f"{'AD' if row['label'] else 'CN'}, {scores['share']:.0%} in the region"
                        panels[method].append((caption, image, by_method[method][k], region))
    if not rows:
        print("the saliency is not scored: the true regions are known of a simulated study alone.")
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    _write(table, panels, Path(output_dir))
    print(_summary(table).to_string(index=False, float_format="%.3f"))
    print(f"Grad-CAM of layer {maps.layer}; written to {Path(output_dir) / 'saliency.csv'}, with pictures beside it")
    return table


def _write(table: pd.DataFrame, panels: Mapping[str, list[SaliencyPanel]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "saliency.csv", index=False)
    for method, drawn in panels.items():
        images = table[(table["method"] == method) & (table["network"] == TRAINED)].reset_index(drop=True)
        plot_saliency(_by_site(images, drawn), folder / f"saliency_{method}.png", METHODS[method])


def saliency_scores(table: pd.DataFrame, prediction: str) -> list[dict[str, str | float]]:
    """
    The table of :py:func:`score_saliency` as figures for the comparison of models: means over subjects of the share
    in the true region and of its rank, ``grad_cam_share``, ``occlusion_rank`` and so on, with those of the untrained
    network and of even saliency in rows of their own; and ``grad_cam_empty``, the part of the images where Grad-CAM is
    0 everywhere, which its means leave out.

    Args:
        table: may be empty.
        prediction: name of the prediction that the maps are of.

    Returns:
        dicts of ``partition``, ``metric``, ``value``, and ``prediction`` or ``model``.
    """
    rows: list[dict[str, str | float]] = []
    if table.empty:
        return rows
    for (partition, method, name), images in table.groupby(["partition", "method", "network"], sort=False):
        row = {"prediction": prediction} if name == TRAINED else {"model": REFERENCES[str(name)]}
        figures = {m: interval_by_subject(images[m], images["subject"])[0] for m in MEASURES}
        if method == "grad_cam":
            figures["empty"] = float(images["share"].isna().mean())
        rows += [
            {"partition": str(partition), "metric": f"{method}_{m}", **row, "value": v} for m, v in figures.items()
        ]
    return rows


def _rows(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for k, label in enumerate(batch["label"].reshape(-1).long().tolist()):
        yield {**{key: str(batch[key][k]) for key in KEYS if key in batch}, "label": label}


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean share and rank by partition, method and network, with 95 % intervals over subjects."""
    rows = []
    for (partition, method, name), part in table.groupby(["partition", "method", "network"], sort=False):
        row = {"partition": partition, "method": method, "network": name, "images": len(part)}
        row["empty"] = int(part["share"].isna().sum())
        for measure in MEASURES:
            mean, low, high = interval_by_subject(part[measure], part["subject"])
            row |= {measure: mean, f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _by_site(table: pd.DataFrame, panels: list[SaliencyPanel]) -> list[tuple[str, list[SaliencyPanel]]]:
    """First images of each class at the sites with most images of the rarer class, of as many makers as there are."""
    shown = table.drop_duplicates(["site", "subject"])
    counts = shown.groupby(["site", "label"]).size().unstack(fill_value=0).min(axis=1)
    order = counts.sort_values(ascending=False, kind="stable").index
    makers = shown.groupby("site")["manufacturer"].first() if "manufacturer" in shown else pd.Series(order, order)
    first = makers[order].drop_duplicates().index
    sites = [*first, *(site for site in order if site not in first)][:SITES]
    rows = []
    for site in sites:
        chosen = shown[shown["site"] == site].sort_values("label", kind="stable").groupby("label").head(IMAGES).index
        name = f"site {site}" if makers[site] == site else f"site {site}\n{makers[site]}"
        rows.append((name, [panels[k] for k in chosen]))
    return rows
