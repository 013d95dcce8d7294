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

"""Partitions of a data list: by subject, and into seen and unseen sites."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from .folds import shuffled_groups
from .names import name_key

__all__ = ["check_several_clusters", "split_by_subject", "split_seen_unseen"]

DataList = list[dict[str, Any]]


def split_by_subject(
    datalist: Sequence[dict[str, Any]],
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    label_key: str = "label",
    subject_key: str = "subject",
    site_key: str = "site",
    num_folds: int = 10,
) -> tuple[DataList, DataList, DataList]:
    """Split into training, validation and test partitions with all images of a subject in one of them.

    The images are cut into folds with scikit-learn's ``StratifiedGroupKFold`` and the folds are dealt to the
    partitions. Strata are the classes, and within a class each site that has a subject for every fold; smaller sites
    are pooled. Another ``seed`` gives another split, as in the paper's Monte Carlo cross-validation (2.5.2). A subject
    that is at several sites stays together as one, which a warning says.

    Args:
        datalist: dicts with a label, a subject and a site.
        fractions: shares of training, validation and test, multiples of ``1 / num_folds`` that sum to 1.
        seed: seed of the shuffling.
        label_key: key of the class label.
        subject_key: key of the subject.
        site_key: key of the site.
        num_folds: number of folds.

    Returns:
        the three partitions, each in the order of ``datalist``.

    Raises:
        ValueError: when the fractions are not as described, all images are of one class, there are fewer subjects than
            folds, or a partition with a fraction above 0 would not hold every class.
    """
    folds = np.asarray(fractions, dtype=float) * num_folds
    counts = np.rint(folds).astype(int)
    if counts.shape != (3,) or counts.sum() != num_folds or (counts < 0).any() or not np.allclose(folds, counts):
        raise ValueError(f"fractions must be three multiples of {1 / num_folds:g} that sum to 1, got {fractions}.")
    strata = _strata(datalist, label_key, subject_key, site_key, num_folds)
    subjects = [item[subject_key] for item in datalist]
    _warn_of_several_sites(datalist, subject_key, site_key)

    splitter, groups = StratifiedGroupKFold(n_splits=num_folds), shuffled_groups(np.array(subjects), seed)
    partition_of_fold = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], counts))
    partitions: tuple[DataList, DataList, DataList] = ([], [], [])
    index_partition = np.zeros(len(datalist), dtype=int)
    with warnings.catch_warnings():
        # what is too small for scikit-learn's folds is checked below, by partition
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, chosen) in enumerate(splitter.split(np.zeros(len(datalist)), strata, groups)):
            index_partition[chosen] = partition_of_fold[fold]
    for item, partition in zip(datalist, index_partition, strict=True):
        partitions[partition].append(item)
    _check_classes(partitions, counts, label_key)
    return partitions


def _strata(
    datalist: Sequence[dict[str, Any]], label_key: str, subject_key: str, site_key: str, num_folds: int
) -> list[str]:
    """Stratum of each image: its class, and its site where that has a subject of the class for every fold."""
    if len(classes := {item[label_key] for item in datalist}) < 2:
        named = f"all images have the {label_key} {classes.pop()!r}" if classes else "there is no image"
        raise ValueError(f"{named}; a classifier needs at least two classes.")
    if len(subjects := {item[subject_key] for item in datalist}) < num_folds:
        raise ValueError(
            f"a split into {num_folds} folds needs as many subjects, got {len(subjects)}: give more subjects."
        )
    cells = {(item[label_key], item.get(site_key), item[subject_key]) for item in datalist}
    sizes = Counter((label, site) for label, site, _ in cells)
    strata = [
        f"{label}/{site if sizes[label, site] >= num_folds else ''}"
        for label, site in ((item[label_key], item.get(site_key)) for item in datalist)
    ]
    if (most := max(Counter(strata).values())) < num_folds:
        raise ValueError(
            f"{len(subjects)} subjects are too few to be divided into training, validation and test: no class has "
            f"{num_folds} samples (the largest has {most}); give more subjects."
        )
    return strata


def _warn_of_several_sites(datalist: Sequence[dict[str, Any]], subject_key: str, site_key: str) -> None:
    sites = defaultdict(set)
    for item in datalist:
        sites[item[subject_key]].add(item.get(site_key))
    if several := [subject for subject, names in sites.items() if len(names) > 1]:
        warnings.warn(
            f"{len(several)} of {len(sites)} subjects are at more than one site (first: {several[0]}) and stay "
            "together as one: if the sites count their subjects alike, put the site into the subject's name.",
            stacklevel=3,
        )


def _check_classes(partitions: Sequence[DataList], counts: Sequence[int], label_key: str) -> None:
    classes = {item[label_key] for partition in partitions for item in partition}
    for name, partition, count in zip(("training", "validation", "test"), partitions, counts, strict=True):
        missing = classes - {item[label_key] for item in partition}
        if count and missing:
            raise ValueError(
                f"the {name} partition ({len(partition)} images) would hold no image of class {sorted(missing)}; "
                "give more subjects, another seed or other fractions."
            )


def split_seen_unseen(
    datalist: Sequence[dict[str, Any]],
    seen_sites: Collection[str] | None = None,
    site_key: str = "site",
    role_key: str = "site_role",
) -> tuple[DataList, DataList]:
    """Divide a data list into the images of seen sites and those of unseen sites.

    Args:
        datalist: dicts with a site.
        seen_sites: names of the seen sites, as :py:func:`monai_armed.data.names.name_key` compares them. By default
            the column ``role_key`` says it (``"seen"`` or ``"unseen"``, in any case), and where no image has that
            column all sites are seen.
        site_key: key of the site.
        role_key: key of the role.

    Returns:
        the images of seen and those of unseen sites.

    Raises:
        ValueError: when a seen site has no image, a role is neither ``"seen"`` nor ``"unseen"``, a site has both, or
            nothing is seen.
    """
    if seen_sites is not None:
        if isinstance(seen_sites, str):
            raise ValueError(f"seen_sites must be a list of site names, got the string {seen_sites!r}.")
        named, there = {name_key(name): name for name in seen_sites}, {name_key(item[site_key]) for item in datalist}
        if absent := sorted(str(name) for key, name in named.items() if key not in there):
            raise ValueError(f"no image of the seen sites {absent}; the data have {_names(datalist, site_key)}.")
        is_seen = [name_key(item[site_key]) in named for item in datalist]
    elif any(role_key in item for item in datalist):
        roles = [str(item.get(role_key, "")).strip().casefold() for item in datalist]
        if wrong := sorted(set(roles) - {"seen", "unseen"}):
            raise ValueError(
                f"{role_key} must be 'seen' or 'unseen' for every image, got {wrong} for "
                f"{sum(role in wrong for role in roles)} of {len(roles)}."
            )
        is_seen = [role == "seen" for role in roles]
    else:
        is_seen = [True] * len(datalist)
    seen = [item for item, chosen in zip(datalist, is_seen, strict=True) if chosen]
    if not seen:
        raise ValueError(f"no image is of a seen site; the data have {_names(datalist, site_key)}.")
    roles_of = {(item[site_key], chosen) for item, chosen in zip(datalist, is_seen)}
    if both := sorted(site for site, chosen in roles_of if chosen and (site, False) in roles_of):
        raise ValueError(f"{role_key} calls the sites {both} both 'seen' and 'unseen': give each site one role.")
    return seen, [item for item, chosen in zip(datalist, is_seen, strict=True) if not chosen]


def check_several_clusters(names: Sequence[str], what: str, dataset: Any) -> None:
    """
    See that more than one cluster is seen.

    Args:
        names: of the seen clusters.
        what: a cluster is, such as ``"site"``.
        dataset: the data, for the error message.

    Raises:
        ValueError: when there is one only.
    """
    if len(names) == 1:
        raise ValueError(
            f"{names[0]!r} is the only seen {what} of {dataset}; effects of the {what} need at least two: give data of "
            f"more, or call more of them seen."
        )


def _names(datalist: Sequence[dict[str, Any]], site_key: str) -> list[str]:
    return sorted({item[site_key] for item in datalist})
