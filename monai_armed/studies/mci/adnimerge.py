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

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

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
NOT_KNOWN = ("", "Unknown", "unknown")


def read_adnimerge(path: str | os.PathLike[str], needed: Sequence[str] = KEYS) -> pd.DataFrame:
    """
    Read a table in the form of ADNIMERGE.csv, in UTF-8 or UTF-16, see :py:func:`parse_adnimerge`.

    Args:
        path: CSV file.
        needed: columns without which the table is of no use.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no table, or as :py:func:`parse_adnimerge` does.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no table '{path}': name a CSV file in the form of ADNIMERGE.csv.")
    with open(path, "rb") as file:  # as spreadsheets save it, with a mark of its bytes' order, or UTF-8
        encoding = "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not in UTF-8 or UTF-16: save it as CSV in UTF-8.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"'{path}' is no CSV table: {str(error).strip()}") from error
    return parse_adnimerge(table, str(path), needed)


def parse_adnimerge(table: pd.DataFrame, name: str, needed: Sequence[str] = KEYS) -> pd.DataFrame:
    """
    Turn the text of ADNIMERGE.csv, a row a visit, into numbers and categories. Values beyond a laboratory's range, such
    as ``>1700``, become that bound; ``Unknown`` categories become missing ones. A feature whose column the table lacks
    is missing for everybody.

    Args:
        table: columns of text.
        name: of the table, for error messages.
        needed: columns without which the table is of no use.

    Returns:
        the table: text in ``needed`` and ``CATEGORIES``, numbers in ``NUMBERS``, NaN or None where missing.

    Raises:
        ValueError: when it has no rows, lacks a needed column, a subject has a visit twice or no site, or a column of
            numbers holds text.
    """
    if missing := [column for column in needed if column not in table]:
        if len(table.columns) == 1:
            raise ValueError(f"'{name}' has one column only, {table.columns[0][:40]!r}: columns are parted by commas.")
        some = f"{missing[:5]}" + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ValueError(f"'{name}' lacks the columns {some} of ADNIMERGE.csv; it has {list(table)[:10]} ...")
    if table.empty:
        raise ValueError(f"'{name}' has no rows.")
    table = table.apply(lambda column: column.str.strip())
    if "SITE" in table:  # pandas writes whole numbers as 31.0 where one is missing
        table = table.assign(SITE=table["SITE"].str.replace(r"^(\d+)\.0+$", r"\1", regex=True))
    keys = [column for column in ("RID", "VISCODE") if column in needed]
    if keys and bool((twice := table.duplicated(keys)).any()):
        row = int(np.flatnonzero(twice)[0])
        which = ", ".join(f"{column} {table[column].iloc[row]}" for column in keys)
        raise ValueError(f"'{name}' has {which} twice, again in line {row + 2}: keep one row a subject and visit.")
    if "SITE" in needed and bool((empty := table["SITE"] == "").any()):
        raise ValueError(f"'{name}' has no SITE in line {int(np.flatnonzero(empty)[0]) + 2}: every subject needs one.")
    numbers = {c: _numbers(table[c], name) if c in table else pd.Series(np.nan, table.index) for c in NUMBERS}
    categories = {
        c: table[c].where(~table[c].isin(NOT_KNOWN), None) if c in table else pd.Series(None, table.index, object)
        for c in CATEGORIES
    }
    return table.assign(**numbers, **categories)


def _numbers(column: pd.Series, name: str) -> pd.Series:
    text = column.str.replace(r"^[<>]", "", regex=True).replace({"NA": "", "NaN": "", "nan": ""})
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    wrong = (text != "") & ~np.isfinite(numbers)
    if bool(wrong.any()):
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"'{name}' has {column.iloc[row]!r} as {column.name} in line {row + 2}, which is no number.")
    return numbers


def conversion_subjects(table: pd.DataFrame, months: int = 24) -> pd.DataFrame:
    """
    The subjects of the study (Supplement 3.3.1): mild cognitive impairment at baseline, and a diagnosis at the
    follow-up, which is the label.

    Args:
        table: from :py:func:`read_adnimerge`.
        months: time of the follow-up.

    Returns:
        a row a subject: ``subject`` (PTID), ``site``, ``label`` (1 if the diagnosis has changed to dementia) and the
        features at baseline, in the order of the table.

    Raises:
        ValueError: when there is no such subject, or all have the same label.
    """
    follow_up = table.loc[(table["VISCODE"] == f"m{months:02d}") & (table["DX"] != ""), ["RID", "DX"]]
    baseline = table[(table["VISCODE"] == "bl") & table["DX_bl"].isin(BASELINE_MCI)]
    subjects = baseline.drop(columns="DX").merge(follow_up, on="RID", validate="one_to_one")
    if subjects.empty:
        raise ValueError(
            f"no subject has a baseline visit (VISCODE bl) with DX_bl in {BASELINE_MCI} and a DX at VISCODE "
            f"m{months:02d}: is this ADNIMERGE.csv?"
        )
    label = (subjects["DX"] == "Dementia").astype(int)
    if label.nunique() == 1:
        raise ValueError(f"all {len(label)} subjects with a follow-up at {months} months have the label {label[0]}.")
    if bool((twice := subjects["PTID"].duplicated()).any()):
        raise ValueError(
            f"PTID {subjects.loc[twice, 'PTID'].iloc[0]} belongs to two RIDs: a subject would count twice."
        )
    columns = {"subject": subjects["PTID"], "site": subjects["SITE"], "label": label}
    return pd.DataFrame(columns).join(subjects[[*NUMBERS, *CATEGORIES]])
