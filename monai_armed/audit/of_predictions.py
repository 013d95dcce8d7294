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

"""The audit's page of predictions that are there already, such as those of an evaluation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from .. import __version__
from ..data.replaced_file import write_text

__all__ = ["report_predictions"]

ATTRIBUTES = ("manufacturer",)


def report_predictions(table: pd.DataFrame, site: str, subject: str, path: str | Path, of: str) -> Path | None:
    """
    Write the page of :py:mod:`monai_armed.audit` for predictions alone. A page that was made of the very same is kept;
    one of others is not, also where nothing can be said of these.

    Args:
        table: a row a sample: ``label`` (0 or 1), ``score`` (the logit), the columns of the site and, where it is
            known, of the subject, and of the scanner's ``manufacturer``. Samples whose label is another are left out.
        site: name of the column.
        subject: name of the column; where there is none, every sample is a subject of its own.
        path: the file, HTML.
        of: what they are predictions of, and of which samples.

    Returns:
        the file; None where nothing can be said: there is no such site, or one alone.
    """
    from .assess import assess  # not when a training starts, whose config imports what evaluates it
    from .data_list import Samples
    from .figures import has_matplotlib
    from .readings import Readings
    from .write import audit_page

    path, about = Path(path), json.dumps([__version__, has_matplotlib, site, subject, of])
    made_of = hashlib.sha256((about + table.to_csv(index=False)).encode()).hexdigest()
    if path.is_file() and made_of in path.read_text(encoding="utf-8"):
        return path
    path.unlink(missing_ok=True)  # of other predictions
    if site not in table:
        return None
    table = table[table["label"].isin([0, 1]) & np.isfinite(table["score"])].reset_index(drop=True)
    if table[site].nunique() < 2:
        return None
    label = table["label"].to_numpy(int)
    subjects = table[subject] if subject in table else pd.Series(range(len(table)))
    attributes = table[[name for name in ATTRIBUTES if name in table]].fillna("").astype(str)
    samples = Samples(label, table[site].to_numpy(str), subjects.to_numpy(str), attributes)
    audit = assess(samples, Readings(table["score"].to_numpy(float)))
    facts = {
        "predictions": of,
        "samples, subjects, sites": f"{len(table)} / {subjects.nunique()} / {table[site].nunique()}",
        "versions": f"monai_armed {__version__}",
        "made of (SHA-256)": made_of,
    }
    return write_text(audit_page(audit, f"Does it read the site? {of}", facts), path)
