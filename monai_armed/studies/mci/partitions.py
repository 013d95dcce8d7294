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

"""Partitions of the MCI conversion study: the simulated one, or a user's ADNIMERGE.csv."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from monai.utils import CommonKeys

from monai_armed.data.held_out import held_out
from monai_armed.data.names import name_key
from monai_armed.data.reading import reading_options
from monai_armed.data.sample_marks import KEYS, short_hash, study_name
from monai_armed.data.splits import split_by_subject, split_seen_unseen
from monai_armed.data.table import class_labels
from monai_armed.metrics.youden import youden_metrics
from monai_armed.studies.mci.adnimerge import CATEGORIES, NUMBERS, conversion_subjects, parse_adnimerge, read_adnimerge
from monai_armed.studies.mci.simulator import simulate_conversion
from monai_armed.transforms.table import EncodeRow

__all__ = ["PROBES", "confounded_probes", "mci_ceiling", "mci_partitions", "read_new_subjects", "warn_of_words"]

PROBES = ("X1", "X2", "X3", "X4", "X5")
PROBE_SD = 0.05
TABLE = ("diagnoses", "diagnosis_column", "site_column", "subject_column")  # what a user may say of ADNIMERGE.csv
AVAILABLE_SHARE = 0.7  # a feature is used if so many subjects have it
SMALLEST_CATEGORY = 5  # subjects; rarer categories get no column


def mci_partitions(
    dataset: str | os.PathLike[str] | None = None,
    data_seed: int = 0,
    split_seed: int = 0,
    num_seen: int = 20,
    probes: bool = False,
    seen_sites: Collection[str] | None = None,
    trained: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Read the subjects of the MCI conversion study and divide them (Supplement 3.3.1 of
    https://arxiv.org/abs/2202.11783): 80 / 10 / 10 % of the subjects of the largest sites for training, validation and
    test, and all subjects of the other sites. With a model that is trained, seen are its sites, and test subjects those
    that it was not trained on, see :py:func:`monai_armed.data.held_out.held_out`: of another study than the model's all
    subjects are unseen.

    Args:
        dataset: ADNIMERGE.csv; None: simulate.
        data_seed: seed of the simulation, and of the probes' noise.
        split_seed: seed of the division.
        num_seen: number of seen sites; with fewer sites in the table all are seen.
        probes: whether to add the paper's five confounded probes to the features.
        seen_sites: names of the seen sites, in place of the largest. With a model that is trained: those of its sites
            that the data are of, which says that they are of the model's study.
        trained: what a model was trained on, from :py:func:`monai_armed.data.held_out.provenance`.
        reading: by name, ``diagnoses``, the label of each diagnosis at the follow-up, see
            :py:func:`conversion_subjects`; and ``diagnosis_column``, ``site_column`` and ``subject_column`` of
            :py:func:`read_adnimerge`.

    Returns:
        ``"train"``, ``"val"``, ``"test"`` and ``"unseen"``, MONAI data lists whose ``image`` is the subject's row of
        the table; ``"sites"``, the names of the seen sites in the order of their cluster index; ``"features"``, what
        :py:meth:`monai_armed.transforms.EncodeRow.fit` wants: those that 70 % of the subjects have, and of the
        categories those of at least 5 subjects; ``"truth"``, of a simulated study its
        :py:class:`monai_armed.studies.mci.simulator.SimulatedConversion`, else None; and ``"study"``, which data these
        are, see :py:func:`monai_armed.data.sample_marks.study_name`.

    Raises:
        FileNotFoundError: when there is no such table.
        ValueError: when the table is not as described, the subjects of seen sites are too few to be divided, or
            ``seen_sites`` are not those of the data or the trained model.
    """
    columns = reading_options(reading, TABLE)
    diagnoses = columns.pop("diagnoses", None)
    if dataset is None:
        truth = simulate_conversion(data_seed)
        table = parse_adnimerge(truth.table.astype(str), "simulated study")
    else:
        truth, table = None, read_adnimerge(dataset, **columns)
    subjects = conversion_subjects(table, diagnoses=diagnoses)
    subjects["content"] = _contents(subjects)
    if probes:
        subjects = subjects.join(confounded_probes(subjects["label"], subjects["site"], data_seed))
    features = _features(subjects, (*NUMBERS, *(PROBES if probes else ())))
    items = _datalist(subjects, [*NUMBERS, *CATEGORIES, *(PROBES if probes else ())])
    study = f"simulated draw {data_seed}" if dataset is None else study_name(items)
    about = {"features": features, "truth": truth, "study": study, "keys": KEYS}
    if trained is not None:
        parts, sites = held_out(items, trained, study, seen=seen_sites), list(trained["clusters"])
    else:
        seen, unseen = _seen(items, num_seen, seen_sites)
        train, val, test = split_by_subject(seen, (0.8, 0.1, 0.1), split_seed)
        parts = {"train": train, "val": val, "test": test, "unseen": unseen}
        sites = sorted({item["site"] for item in seen})
    return {**{name: _indexed(part, sites) for name, part in parts.items()}, "sites": sites, **about}


def _seen(items: Sequence[dict[str, Any]], num_seen: int, seen_sites: Collection[str] | None) -> tuple[list, list]:
    """The subjects of the seen sites, and the others."""
    if seen_sites is None:
        counts = Counter(item["site"] for item in items)
        seen_sites = sorted(counts, key=lambda site: (-counts[site], site))[: max(1, num_seen)]  # ties: by name
    return split_seen_unseen(items, seen_sites)


def _contents(subjects: pd.DataFrame) -> list[str]:
    """What each subject is known by in another copy of the table: what is known of it at baseline."""
    rows = subjects[[*NUMBERS, *CATEGORIES]].to_dict("records")
    return [short_hash([None if pd.isna(value) else value for value in row.values()]) for row in rows]


def mci_ceiling(partitions: Mapping[str, Any]) -> dict[str, float]:
    """
    What the truth of a simulated study allows on seen sites: the metrics of Table 3 of the probability of conversion
    given all features and the site's true effects, on all subjects of seen sites.

    Args:
        partitions: from :py:func:`mci_partitions`.

    Returns:
        AUROC, and balanced accuracy, sensitivity and specificity at the Youden point; empty for real data, and where
        no subject is of a seen site.
    """
    if partitions["truth"] is None:
        return {}
    subjects = partitions["truth"].subjects
    best = dict(zip(subjects["PTID"], subjects["best_probability"]))
    seen = [item for name in ("train", "val", "test") for item in partitions[name]]
    if not seen:
        return {}
    metrics = youden_metrics([item[CommonKeys.LABEL] for item in seen], [best[item["subject"]] for item in seen])
    return {name: value for name, value in metrics.items() if name != "threshold"}


def confounded_probes(label: pd.Series, site: pd.Series, seed: int = 0) -> pd.DataFrame:
    """
    The five confounded probes of Supplement 3.3.1: functions of the share rho of converters at the subject's site, with
    noise of s.d. 0.05. They tell of the label through the site alone. In X3 = 1/rho, a site without any converter
    counts half a one.

    Args:
        label: 0 or 1 of each subject.
        site: its site.
        seed: seed of the noise.

    Returns:
        the columns X1 to X5.
    """
    by_site = label.groupby(site)
    rho = by_site.transform("mean")
    inverse = 1 / np.maximum(rho, 0.5 / by_site.transform("size"))
    functions = np.stack([rho, rho**2, inverse, np.cos(rho), np.sin(rho)], axis=1)
    noise = np.random.RandomState(seed).normal(0, PROBE_SD, functions.shape)
    return pd.DataFrame(functions + noise, columns=list(PROBES), index=label.index)


def read_new_subjects(
    path: str | os.PathLike[str], encode: EncodeRow, sites: Sequence[str], labelled: bool = False, **columns: str
) -> list[dict[str, Any]]:
    """
    Subjects to be predicted, as a MONAI data list.

    Args:
        path: CSV file with a row a subject, or a row a visit with the column VISCODE, of which the baseline (``bl``) is
            taken; PTID, the columns of the model's features, and SITE, where it is known.
        encode: of the model.
        sites: the model's seen sites.
        labelled: whether the table must have a column ``label``, 0 or 1, such as to adapt a model.
        columns: ``site_column`` and ``subject_column`` of :py:func:`read_adnimerge`.

    Returns:
        dicts with ``subject`` (the PTID), ``image``, ``cluster`` (-1 for a site that the model has not seen), ``site``,
        spelled as the model spells it, and ``label``, -1 where it is not asked for.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it lacks a column, has a subject twice or no baseline visit, or holds text where numbers should
            be.
    """
    needed = list(dict.fromkeys(column["column"] for column in encode.columns))
    table = read_adnimerge(path, ("PTID", *needed), **columns)
    if "VISCODE" in table:
        table = table[table["VISCODE"].str.casefold() == "bl"]
    if table.empty:
        raise ValueError(f"'{path}' has no baseline visit (VISCODE bl): give one of each subject.")
    if bool((twice := table["PTID"].duplicated()).any()):
        raise ValueError(f"'{path}' has PTID {table.loc[twice, 'PTID'].iloc[0]} twice: keep one row a subject.")
    warn_of_words(table, encode, f"'{path}'")
    _warn_of_nothing_known(table, encode, path)
    own = {name_key(name): name for name in sites}
    site = [own.get(name_key(name), name) for name in table["SITE"]] if "SITE" in table else ""
    label = pd.Series(-1, table.index)
    if labelled:
        if "label" not in table:
            raise ValueError(f"'{path}' has no column 'label', which must be 0 or 1 for each subject.")
        known = class_labels(table["label"].tolist(), {"0": 0, "1": 1})
        if None in known:
            raise ValueError(f"'{path}' has the labels {sorted(set(table['label']))[:5]}: they must be 0 or 1.")
        label = pd.Series(known, table.index, dtype=int)
    subjects = table.assign(subject=table["PTID"], site=site, label=label)
    return _indexed(_datalist(subjects, needed), sites)


def warn_of_words(table: pd.DataFrame, encode: EncodeRow, where: str) -> None:
    """Warn of words in a category that the training subjects do not have: each counts as none that is known."""
    for name, known in {column["column"]: column["known"] for column in encode.columns if "known" in column}.items():
        words = Counter(word for word in table[name].dropna() if word not in known)
        if words:
            told = ", ".join(f"{word} ({count})" for word, count in sorted(words.items()))
            warnings.warn(
                f"{where} has words in {name} that the model was not trained on: {told}; it knows {', '.join(known)}.",
                stacklevel=3,
            )


def _warn_of_nothing_known(table: pd.DataFrame, encode: EncodeRow, path: Any) -> None:
    unknown = table.loc[table[list({column["column"] for column in encode.columns})].isna().all(axis=1), "PTID"]
    if len(unknown):
        warnings.warn(
            f"'{path}' has {len(unknown)} of {len(table)} subjects of whom every feature of the model is missing "
            f"(first: {unknown.iloc[0]}): they are predicted as average ones.",
            stacklevel=3,
        )


def _features(subjects: pd.DataFrame, numbers: Sequence[str]) -> dict[str, list[str] | None]:
    """The features with enough subjects, and of each category the values that get a column."""
    available = subjects.notna().mean() >= AVAILABLE_SHARE
    features: dict[str, list[str] | None] = {name: None for name in numbers if available[name]}
    for name in CATEGORIES:
        counts = subjects[name].value_counts()
        values = sorted(counts.index[counts >= SMALLEST_CATEGORY])
        if available[name] and len(values) > 1:
            features[name] = values[1:] if len(values) == 2 else values
    if not features:
        raise ValueError("no feature is known of 70 % of the subjects: is this ADNIMERGE.csv?")
    return features


def _datalist(subjects: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    rows = subjects[columns].to_dict("records")
    others = [name for name in ("label", "site", "subject", "content") if name in subjects]
    return [{CommonKeys.IMAGE: row, **rest} for row, rest in zip(rows, subjects[others].to_dict("records"))]


def _indexed(items: Sequence[Mapping[str, Any]], sites: Sequence[str]) -> list[dict[str, Any]]:
    """Items with the index of their site as ``cluster``, -1 where it is none of the model's."""
    index = {site: i for i, site in enumerate(sites)}
    return [{**item, "cluster": index.get(item["site"], -1)} for item in items]
