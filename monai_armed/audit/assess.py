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
"""All that an audit computes from readings, as tables, and its verdict in sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from .data_list import Samples
from .erased import Rerun, Told, erase_layers, within_site_auroc
from .leaks import attribute_leaks, one_a_subject
from .probes import probe_layers
from .readings import Readings
from .site_scores import auroc_by_site, calibration_by_site, coverage_by_site, mean_by_site

__all__ = ["Audit", "assess", "of_other_class"]

ALPHA = 0.05


@dataclass
class Audit:
    """
    Attributes:
        tables: by name, see :py:func:`assess`.
        verdict: sentences, the first of which says whether the network reads the site.
        reads_site: the same; a network that does not is said to in one of 20 audits at most.
    """

    tables: dict[str, pd.DataFrame]
    verdict: list[str]
    reads_site: bool


def assess(samples: Samples, readings: Readings, rerun: Rerun | None = None, seed: int = 0) -> Audit:
    """
    Args:
        samples: what is known of the samples.
        readings: what the network says of them.
        rerun: runs the network with a layer erased; None: what erasing gives is left out.
        seed: seed of everything that is drawn.

    Returns:
        ``sites`` (:py:func:`~monai_armed.audit.site_scores.auroc_by_site`, or
        :py:func:`~monai_armed.audit.site_scores.mean_by_site` of Dice), ``leaks`` and ``levels``
        (:py:func:`~monai_armed.audit.leaks.attribute_leaks`, among class 0), ``probes``
        (:py:func:`~monai_armed.audit.probes.probe_layers`), ``erased``
        (:py:func:`~monai_armed.audit.erased.erase_layers`), ``calibration``, ``coverage`` and ``predictions``; those of
        which there is something.
    """
    masks = readings.dice is not None
    label = np.zeros(len(samples), int) if masks else samples.label
    site, subject, score = samples.site, samples.subject, readings.score
    alike = one_a_subject(subject, label, seed)
    alike = alike[label[alike] == 0]
    attributes = pd.concat([pd.Series(site, name="site"), samples.attributes], axis=1).iloc[alike]
    tables = {"sites": mean_by_site(readings.dice, site, subject)} if readings.dice is not None else {}
    if not masks:
        tables["sites"] = auroc_by_site(label, score, site, subject)
    tables["leaks"], tables["levels"] = attribute_leaks(score[alike], attributes, seed)
    if readings.layers:
        tables["probes"] = probe_layers(readings.layers, label, site, subject, seed)
    if rerun is not None and readings.layers:
        tables["erased"] = erase_layers(readings, Told(label, site, subject, not masks), rerun, seed)
    if not masks:
        tables["calibration"] = calibration_by_site(label, score, site, seed)
        tables["coverage"] = coverage_by_site(label, score, site)
    tables["predictions"] = pd.DataFrame({"subject": subject, "site": site, "label": label, "score": score})
    tables = {name: table for name, table in tables.items() if len(table)}
    reads, first = _reads_site(tables, "" if masks else " among samples of class 0")
    within = "" if masks else f" Within one site: AUROC {within_site_auroc(label, score, site):.3f}."
    return Audit(tables, [first, *_further(tables, within), *(_erasing(tables) if reads else [])], reads)


def _reads_site(tables: dict[str, pd.DataFrame], among: str) -> tuple[bool, str]:
    """Whether any test of the site finds it, at a false discovery rate of 5 % over all of them, and a sentence."""
    empty = pd.DataFrame(columns=["attribute", "p"])
    leaks = tables.get("leaks", empty)
    p_leak = leaks.loc[leaks["attribute"] == "site", "p"].tolist()
    probes = tables.get("probes", empty)
    p = [*p_leak, *probes["p"]]
    if not p:
        return False, "Nothing can be said of the site: no two sites have enough samples of one class."
    adjusted = false_discovery_control(p)
    found = []
    if p_leak and adjusted[0] < ALPHA:
        found.append(f"its predictions tell the site{among} (leak {leaks['leak'].iloc[0]:.3f})")
    layers = list(dict.fromkeys(probes["layer"][adjusted[len(p_leak) :] < ALPHA])) if len(probes) else []
    if layers:
        found.append(f"{len(layers)} of its {probes['layer'].nunique()} layers do within a class ({', '.join(layers)})")
    if found:
        return True, f"The network reads the site: {'; '.join(found)}."
    return False, (
        f"Nothing shows that the network reads the site: {len(p)} test{'s' * (len(p) > 1)} of it found nothing beyond "
        "chance. Leaks smaller than what chance makes here, the columns named chance, are not excluded."
    )


def _further(tables: dict[str, pd.DataFrame], within: str) -> list[str]:
    said = []
    sites = tables["sites"]
    name = "auroc" if "auroc" in sites else "dice"
    known = sites[sites["site"] != "all"].dropna(subset=[name])
    if len(known):
        worst, all_sites = known.loc[known[name].idxmin()], sites.iloc[0]
        title = {"auroc": "AUROC", "dice": "mean Dice"}[name]
        said.append(
            f"Worst site: {worst['site']}, {title} {worst[name]:.3f} [{worst['low_worst']:.3f}, "
            f"{worst['high_worst']:.3f}]; all sites together {all_sites[name]:.3f} [{all_sites['low']:.3f}, "
            f"{all_sites['high']:.3f}].{within}"
        )
        if name == "auroc" and all_sites[name] < 0.5:
            said.append(of_other_class(all_sites[name]))
    leaks = tables.get("leaks", pd.DataFrame(columns=["attribute", "leak", "p", "p_adjusted"]))
    for row in leaks[(leaks["attribute"] != "site") & (leaks["p_adjusted"] < ALPHA)].to_dict("records"):
        said.append(f"Predictions of class 0 tell {row['attribute']}: leak {row['leak']:.3f}, p {row['p']:.3f}.")
    return said


def of_other_class(auroc: float) -> str:
    """What an AUROC below 0.5 may mean."""
    return (
        f"An AUROC of {auroc:.3f} is below 0.5: the output that was read may be that of the other class, or the label "
        "the other way round."
    )


def _erasing(tables: dict[str, pd.DataFrame]) -> list[str]:
    known = tables.get("erased", pd.DataFrame(columns=["leak", "leak_erased"])).dropna(subset=["leak", "leak_erased"])
    if known.empty:
        return []
    # of the layers after which no leak is left beyond chance, the one that costs the least
    clean = known[known["leak_erased"] <= known["chance_high"]].dropna(subset=["within_site_erased"])
    best = known.loc[known["leak_erased"].idxmin() if clean.empty else clean["within_site_erased"].idxmax()]
    utility = f", the AUROC within sites from {best['within_site']:.3f} to {best['within_site_erased']:.3f}"
    return [
        f"Erasing {best['layer']} ({best['erased']} directions) would take the leak of its predictions from "
        f"{best['leak']:.3f} to {best['leak_erased']:.3f} (by chance up to {best['chance_high']:.3f})"
        f"{'' if np.isnan(best['auroc']) else utility}, on subjects that it was not fitted to."
    ]
