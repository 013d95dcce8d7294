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

"""ADNIMERGE.csv as downloaded, and the subjects of the MCI conversion study in it."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_armed.data.names import name_key, one_spelling
from monai_armed.data.table import MISSING, check_classes, class_labels, read_table

__all__ = [
    "CATEGORIES",
    "COGNITION",
    "CSF",
    "DEMOGRAPHICS",
    "NUMBERS",
    "PET",
    "VOLUMES",
    "conversion_subjects",
    "parse_adnimerge",
    "read_adnimerge",
]

# The features that Supplement 3.3.1 of https://arxiv.org/abs/2202.11783 lists, as the columns of ADNIMERGE.csv.
DEMOGRAPHICS = ("AGE", "PTEDUCAT")
COGNITION = (
    "CDRSB_bl",
    "ADAS11_bl",
    "ADAS13_bl",
    "ADASQ4_bl",
    "MMSE_bl",
    "RAVLT_immediate_bl",
    "RAVLT_learning_bl",
    "RAVLT_forgetting_bl",
    "RAVLT_perc_forgetting_bl",
    "TRABSCOR_bl",
    "FAQ_bl",
    "mPACCdigit_bl",
    "mPACCtrailsB_bl",
)
VOLUMES = (
    "Ventricles_bl",
    "Hippocampus_bl",
    "WholeBrain_bl",
    "Entorhinal_bl",
    "Fusiform_bl",
    "MidTemp_bl",
    "ICV_bl",
)
PET = ("FDG_bl",)
CSF = ("ABETA_bl", "TAU_bl", "PTAU_bl")
NUMBERS = (*DEMOGRAPHICS, *COGNITION, *VOLUMES, *PET, *CSF, "APOE4")
CATEGORIES = ("PTGENDER", "PTETHCAT", "PTRACCAT", "PTMARRY")

KEYS = ("RID", "PTID", "SITE", "VISCODE", "DX_bl", "DX")
BASELINE_MCI = ("EMCI", "LMCI", "MCI")

# What ADNI calls a diagnosis, now and in older releases, and whether it is conversion.
CONVERSION = {"CN": 0, "NL": 0, "SMC": 0, "MCI": 0, "EMCI": 0, "LMCI": 0, "Dementia": 1, "AD": 1}

# ADNI's codes for a missing value; in differences and composites -1 and -4 are values.
CODES = (-1, -4, -5, -9, -99)
SIGNED = ("RAVLT_learning_bl", "RAVLT_forgetting_bl", "RAVLT_perc_forgetting_bl", "mPACCdigit_bl", "mPACCtrailsB_bl")
LEAST_NUMBER = -900  # below it are codes in these, too
FEW = 10  # different values, of which no code can be told
NOT_KNOWN = MISSING | {"none", "unknown", *map(str, CODES), "-999", "-9999"}


def read_adnimerge(
    path: str | os.PathLike[str],
    needed: Sequence[str] = KEYS,
    diagnosis_column: str = "DX",
    site_column: str = "SITE",
    subject_column: str = "PTID",
) -> pd.DataFrame:
    """
    Read a table in the form of ADNIMERGE.csv, see :py:func:`monai_armed.data.table.read_table` and
    :py:func:`parse_adnimerge`.

    Args:
        path: CSV file.
        needed: columns without which the table is of no use.
        diagnosis_column: the table's column in place of ``DX``.
        site_column: the table's column in place of ``SITE``.
        subject_column: the table's column in place of ``PTID``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no table, or as :py:func:`parse_adnimerge` does.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no table '{path}': name a CSV file in the form of ADNIMERGE.csv.")
    columns = {"DX": diagnosis_column, "SITE": site_column, "PTID": subject_column}
    others = [name for column, name in columns.items() if name != column]
    table = read_table(path, others, (*KEYS, *NUMBERS, *CATEGORIES))
    table = table.assign(**{column: table[name] for column, name in columns.items() if name in table})
    return parse_adnimerge(table, str(path), needed)


def parse_adnimerge(table: pd.DataFrame, name: str, needed: Sequence[str] = KEYS) -> pd.DataFrame:
    """
    Turn the text of ADNIMERGE.csv, a row a visit, into numbers and categories. Values beyond a laboratory's range, such
    as ``>1700``, become that bound. Missing is what is empty, ``NA``, ``Unknown`` or a code such as -4, which is a
    value in differences alone. A feature whose column the table lacks is missing for everybody.

    Args:
        table: columns of text.
        name: of the table, for error messages.
        needed: columns without which the table is of no use.

    Returns:
        the table: text in ``needed`` and ``CATEGORIES``, numbers in ``NUMBERS``, NaN or None where missing.

    Raises:
        ValueError: when it has no rows, lacks a needed column, or a column of numbers holds text or a number that
            cannot be.
    """
    if missing := [column for column in needed if column not in table]:
        if len(table.columns) == 1:
            raise ValueError(f"'{name}' has one column only, {table.columns[0][:40]!r}: columns are parted by commas.")
        some = f"{missing[:5]}" + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ValueError(f"'{name}' lacks the columns {some} of ADNIMERGE.csv; it has {list(table)[:10]} ...")
    if table.empty:
        raise ValueError(f"'{name}' has no rows.")
    table = table.apply(lambda column: column.str.strip())
    texts = {
        c: pd.Series(one_spelling(_filled(table[c]), c, f"'{name}'"), table.index, dtype=object)
        for c in ("SITE", *CATEGORIES)
        if c in table
    }
    categories = {
        c: texts[c].where(texts[c] != "", None) if c in texts else pd.Series(None, table.index, dtype=object)
        for c in CATEGORIES
    }
    numbers = {c: _numbers(table[c], name) if c in table else pd.Series(np.nan, table.index) for c in NUMBERS}
    return table.assign(**texts, **numbers).assign(**categories)


def _filled(column: pd.Series) -> pd.Series:
    """Text, empty where the value is missing."""
    return column.where(~column.map(name_key).isin(NOT_KNOWN), "")


def _numbers(column: pd.Series, name: str) -> pd.Series:
    text = column.str.replace(r"^[<>]=?\s*", "", regex=True)
    text = text.where(~text.str.casefold().isin(MISSING | {"none", "unknown"}), "")
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    wrong = (text != "") & ~np.isfinite(numbers)
    if bool(wrong.any()):
        row = wrong.index[wrong][0]
        raise ValueError(f"'{name}' has {column[row]!r} as {column.name} in line {row + 2}, which is no number.")
    if column.name in SIGNED:
        return numbers.mask(numbers < LEAST_NUMBER)
    numbers = numbers.mask(numbers.isin(CODES) | (numbers < LEAST_NUMBER))
    if bool((negative := numbers < 0).any()):
        row = negative.index[negative][0]
        raise ValueError(
            f"'{name}' has {column[row]!r} as {column.name} in line {row + 2}, which cannot be negative: leave it "
            "empty if it is missing."
        )
    _check_codes(numbers, name)
    return numbers


def _check_codes(numbers: pd.Series, name: str) -> None:
    """Refuse codes of nines for missing values: they come again, far from everything else."""
    known = numbers.dropna()
    highest = float(known.max()) if len(known) else 0.0
    others = known[known < highest]
    if others.nunique() < FEW or not re.fullmatch(r"9{2,}", f"{highest:.0f}") or highest % 1:
        return
    if bool((count := int((known == highest).sum())) > 1 and highest - others.max() > others.max() - others.min()):
        raise ValueError(
            f"'{name}' has {highest:.0f} as {numbers.name} in {count} rows, far from all others ({others.min():g} to "
            f"{others.max():g}): leave it empty if it is missing."
        )


def conversion_subjects(
    table: pd.DataFrame, months: int = 24, diagnoses: Mapping[Any, int] | None = None
) -> pd.DataFrame:
    """
    The subjects of the study (Supplement 3.3.1): mild cognitive impairment at baseline, and a diagnosis at the
    follow-up, which is the label. Of a diagnosis that tells a change, such as ``MCI to Dementia`` in older releases,
    the later state counts.

    Args:
        table: from :py:func:`read_adnimerge`.
        months: time of the follow-up.
        diagnoses: label of each diagnosis at the follow-up, 0 or 1, in place of ADNI's own; subjects with another
            diagnosis are left out, and a warning counts them.

    Returns:
        a row a subject: ``subject`` (PTID), ``site``, ``label`` (1 if the diagnosis has changed to dementia) and the
        features at baseline, in the order of the table.

    Raises:
        ValueError: when a diagnosis is unknown, a subject has one of these two visits twice or no site, there is no
            subject, or all have the same label.
    """
    check_classes(diagnoses)
    table = table.assign(RID=table["RID"].map(name_key), VISCODE=table["VISCODE"].str.casefold())
    table = table.assign(DX_bl=_states(table["DX_bl"], None), DX=_states(table["DX"], diagnoses))
    baseline = table[(table["VISCODE"] == "bl") & table["DX_bl"].isin(BASELINE_MCI)]
    at_follow_up = (table["VISCODE"] == f"m{months:02d}") & table["RID"].isin(baseline["RID"])
    follow_up = table.loc[at_follow_up & (table["DX"] != ""), ["RID", "DX"]]
    for visit in (baseline, table[at_follow_up]):
        if bool((twice := visit["RID"].duplicated()).any()):
            row = twice.index[twice][0]
            raise ValueError(
                f"RID {visit['RID'][row]} has the visit {visit['VISCODE'][row]} twice, again in line {row + 2}: keep "
                "one row a subject and visit."
            )
    labels = class_labels(follow_up["DX"].tolist(), diagnoses or CONVERSION)
    follow_up = _known_outcome(follow_up.assign(label=pd.Series(labels, follow_up.index, dtype="Int64")))
    subjects = baseline.reset_index(names="row").merge(follow_up[["RID", "label"]], on="RID", validate="one_to_one")
    if subjects.empty:
        raise ValueError(
            f"no subject has a baseline visit (VISCODE bl) with DX_bl in {BASELINE_MCI} and a DX at VISCODE "
            f"m{months:02d}: is this ADNIMERGE.csv?"
        )
    return _checked(subjects, months)


def _states(column: pd.Series, diagnoses: Mapping[Any, int] | None) -> pd.Series:
    """The later state of each diagnosis as ADNI spells it, empty where missing; a user's own words as they are."""
    words = _filled(column)
    later = words.map(lambda word: re.split(r"\s+to\s+", word, flags=re.IGNORECASE)[-1])
    if diagnoses is not None:
        known = [label is not None for label in class_labels(words.tolist(), diagnoses)]
        return words.where(np.array(known, dtype=bool), later)
    spelling = {name_key(word): word for word in ("", *CONVERSION)}
    states = later.map(lambda word: spelling.get(name_key(word)))
    if unknown := Counter(words[states.isna()]):
        named = ", ".join(f"{word!r} in {count} rows" for word, count in unknown.most_common(5))
        raise ValueError(
            f"{column.name} has unknown diagnoses, {named}: known are {', '.join(CONVERSION)} (or one 'to' another); "
            f"correct them{', or say by diagnoses which of them are 1 and which 0' if column.name == 'DX' else ''}."
        )
    return states


def _known_outcome(follow_up: pd.DataFrame) -> pd.DataFrame:
    others = Counter(follow_up["DX"][follow_up["label"].isna()])
    if others:
        counted = ", ".join(f"{word} ({count})" for word, count in others.most_common(10))
        warnings.warn(
            f"{sum(others.values())} of {len(follow_up)} subjects are left out, as their diagnosis at the follow-up is "
            f"none that was asked for: {counted}.",
            stacklevel=4,
        )
    return follow_up.dropna(subset=["label"])


def _checked(subjects: pd.DataFrame, months: int) -> pd.DataFrame:
    label = subjects["label"].astype(int)
    if label.nunique() == 1:
        raise ValueError(f"all {len(label)} subjects with a follow-up at {months} months have the label {label[0]}.")
    if bool((empty := subjects["SITE"] == "").any()):
        line = subjects.loc[empty, "row"].iloc[0] + 2
        raise ValueError(
            f"{int(empty.sum())} subjects have no SITE at baseline (first: line {line}): every subject needs one."
        )
    if bool((twice := subjects["PTID"].duplicated()).any()):
        raise ValueError(
            f"PTID {subjects.loc[twice, 'PTID'].iloc[0]} belongs to two RIDs: a subject would count twice."
        )
    columns = {"subject": subjects["PTID"], "site": subjects["SITE"], "label": label}
    return pd.DataFrame(columns).join(subjects[[*NUMBERS, *CATEGORIES]])
