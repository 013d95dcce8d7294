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
"""Writing an audit: the page, tables as CSV, everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.replaced_file import write_csv, write_text
from .assess import Audit
from .figures import audit_figures, has_matplotlib
from .page import report_page

__all__ = ["audit_page", "write_audit"]

SECTIONS = {
    "sites": (
        "How good it is at each site",
        "AUROC, with DeLong's intervals over subjects, or mean Dice. Among many sites one is worst by chance: "
        "low_worst and high_worst hold for all sites at once.",
    ),
    "leaks": (
        "What its predictions tell besides",
        "AUROC with which the prediction tells a level of an attribute from the others, mean over levels, among images "
        "of class 0, one a subject (of masks: with which the predicted over the true size does). 0.5: nothing; few "
        "samples alone make a little more: chance is the mean where the levels are shuffled, chance_high what 5 % of "
        "shuffles exceed, and p their share that does as well.",
    ),
    "levels": (
        "Each level",
        "Not folded: above 0.5 the level has higher predictions than the others, below it lower ones.",
    ),
    "probes": (
        "What its layers tell",
        "Fresh classifiers learn the site from a layer's features, within a class, and are tested on other subjects. "
        "Accuracy is balanced over sites; chance is its mean where the sites are shuffled, and chance_high what 5 % of "
        "shuffles exceed. p is their share that does as well; p_adjusted keeps the share of false findings among all "
        "rows.",
    ),
    "erased": (
        "What erasing would give",
        "A layer is made to forget the site in closed form by half of the subjects, and the network is run with it on "
        "the others. within_site: AUROC over pairs of images of one site, in which the site plays no part. A "
        "leak_erased below chance_high is no more than chance makes.",
    ),
    "calibration": (
        "Calibration",
        "Expected calibration error: how far probabilities are from the shares of class 1 that come true. by_chance is "
        "what as many samples would show of a network that is calibrated, and by_chance_high its 95th percentile.",
    ),
    "coverage": (
        "Prediction sets on a site that was held out",
        "Sets of classes that the other sites calibrate: covered is the share of a site's images whose class is in "
        "its set, and set_size how many classes a set has. guaranteed is the least that the mean over sites covers, "
        "whatever the sites are like; a single site may be below it.",
    ),
}


def write_audit(audit: Audit, folder: str | Path, title: str, facts: Mapping[str, Any]) -> dict[str, Path]:
    """
    Write ``report.html``, which needs nothing beside it, ``audit.json``, and a CSV of each table.

    Args:
        audit: what was found.
        folder: where to write; made if it is not there.
        title: heading of the page.
        facts: what was read, with what.

    Returns:
        the path of each file by its name without extension.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.csv" for name in audit.tables}
    for name, path in files.items():
        write_csv(audit.tables[name], path)
    shown = {name: _records(table) for name, table in audit.tables.items() if name in SECTIONS}
    content = {"reads_site": audit.reads_site, "verdict": audit.verdict, "facts": facts, "tables": shown}
    texts = {"audit": json.dumps(content, indent=2, default=str), "report": audit_page(audit, title, facts)}
    for name, text in texts.items():
        files[name] = folder / f"{name}.{'json' if name == 'audit' else 'html'}"
        write_text(text, files[name])
    return files


def audit_page(audit: Audit, title: str, facts: Mapping[str, Any]) -> str:
    """The page, HTML; see :py:func:`write_audit`."""
    facts = dict(facts) if has_matplotlib else {**facts, "figures": "none, as matplotlib is not installed"}
    sections = [(name, *said, audit.tables[name]) for name, said in SECTIONS.items() if name in audit.tables]
    return report_page(title, audit.verdict, audit.reads_site, sections, audit_figures(audit.tables), facts)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them, with null for what is not known."""
    return json.loads(table.to_json(orient="records"))
