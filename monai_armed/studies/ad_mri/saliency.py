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

"""Saliency of a trained network: drawn and, where the true regions are known, scored and tabulated (Fig. 5)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_armed.data.replaced_file import write_csv
from monai_armed.metrics.saliency_in_roi import interval_by_subject, saliency_in_roi
from monai_armed.studies.ad_mri.saliency_maps import SaliencyMaps
from monai_armed.visualize.saliency import SaliencyPanel, plot_saliency

__all__ = ["draw_images", "saliency_scores", "score_saliency"]

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


def score_saliency(
    maps: SaliencyMaps, loaders: Mapping[str, Iterable[Mapping[str, Any]]], output_dir: str | Path, seed: int = 0
) -> pd.DataFrame:
    """
    Draw the saliency of images, panels by site, as ``saliency_<method>.png``. Where the true regions are known, how
    much of it lies in them, for every image, whatever its class, is printed and written to ``saliency.csv``, a row for
    each image and map: beside the network's maps stand those of the same network before training, and saliency that is
    the same everywhere in the brain.

    Args:
        maps: gives the maps.
        loaders: by name of the partition, batches with ``"image"`` (B, 1, H, W), ``"label"``, ``"subject"``, ``"site"``
            and, where they are known, ``"roi"``, the true regions as labels above 0, shaped as the image. Above 0 an
            image is brain.
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
            known = "roi" in batch
            found = {name: each(batch) for name, each in networks.items() if known or name == TRAINED}
            if known:
                found["even"] = dict.fromkeys(METHODS, (np.asarray(batch["image"]) > 0)[:, 0])
            for k, row in enumerate(_rows(batch)):
                image = np.asarray(batch["image"][k, 0])
                region = np.asarray(batch["roi"][k, 0]) > 0 if known else None
                for (name, by_method), method in itertools.product(found.items(), METHODS):
                    saliency = by_method[method][k]
                    scores = {} if region is None else saliency_in_roi(saliency, region, image > 0)
                    rows.append({"partition": partition, **row, "network": name, "method": method, **scores})
                    if name == TRAINED:
                        share = f", {scores['share']:.0%} in the region" if scores else ""
                        panels[method].append((f"{'AD' if row['label'] else 'CN'}{share}", image, saliency, region))
    table = pd.DataFrame(rows)
    folder = Path(output_dir)
    if table.empty:
        print("there is no image to draw the saliency of.")
        return table
    _draw(table, panels, folder)
    print(f"Grad-CAM of layer {maps.layer}; saliency drawn in {folder}: {', '.join(map(_picture, METHODS))}")
    if "share" not in table:
        print("the saliency is not scored: the true regions are known of a simulated study alone.")
        return pd.DataFrame()
    write_csv(table, folder / "saliency.csv")
    print(_summary(table).to_string(index=False, float_format="%.3f"))
    return table


def _draw(table: pd.DataFrame, panels: Mapping[str, list[SaliencyPanel]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for method, drawn in panels.items():
        images = table[(table["method"] == method) & (table["network"] == TRAINED)].reset_index(drop=True)
        plot_saliency(_by_site(images, drawn), folder / _picture(method), METHODS[method])


def _picture(method: str) -> str:
    return f"saliency_{method}.png"


def saliency_scores(table: pd.DataFrame | None, prediction: str) -> list[dict[str, str | float]]:
    """
    The table of :py:func:`score_saliency` as figures for the comparison of models: means over subjects of the share
    in the true region and of its rank, ``grad_cam_share``, ``occlusion_rank`` and so on, with those of the untrained
    network and of even saliency in rows of their own; and ``grad_cam_empty``, the part of the images where Grad-CAM is
    0 everywhere, which its means leave out.

    Args:
        table: may be empty, or None where no maps are drawn.
        prediction: name of the prediction that the maps are of.

    Returns:
        dicts of ``partition``, ``metric``, ``value``, and ``prediction`` or ``model``.
    """
    rows: list[dict[str, str | float]] = []
    if table is None or table.empty:
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
