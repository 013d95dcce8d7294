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
"""What a model was trained on, and a data list divided by what its samples were to that model."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .names import name_key, subject_key
from .sample_marks import KEYS, sample_key, sample_mark

__all__ = ["held_out", "provenance"]

_PARTS = ("train", "val")
_OTHER = "(not the model's)"  # after the name of a cluster that is another than the model's of that name


def provenance(partitions: Mapping[str, Any]) -> dict[str, Any]:
    """
    What a model is trained on, to be kept with it.

    Args:
        partitions: ``"train"`` and ``"val"``, data lists; the names of the clusters; ``"study"``, from
            :py:func:`monai_armed.data.sample_marks.study_name`; and ``"keys"``, where the names and of each sample the
            cluster and the subject are found, unless they are those of
            :py:data:`monai_armed.data.sample_marks.KEYS`.

    Returns:
        a record that JSON can hold: ``"study"``; ``"clusters"``, the names in the order of their index; ``"train"`` and
        ``"val"``, the sorted pairs of cluster and subject; and ``"samples"``, by part the sorted marks of the samples,
        by which data that have grown are known again.
    """
    keys = {**KEYS, **partitions.get("keys", {})}
    pairs = {
        part: sorted({(str(item[keys["cluster"]]), str(item[keys["subject"]])) for item in partitions[part]})
        for part in _PARTS
    }
    return {
        "study": partitions["study"],
        "clusters": [str(name) for name in partitions[keys["clusters"]]],
        **{part: [list(pair) for pair in found] for part, found in pairs.items()},
        "samples": {part: sorted({sample_mark(item, keys) for item in partitions[part]}) for part in _PARTS},
    }


def held_out(
    datalist: Sequence[Mapping[str, Any]],
    trained: Mapping[str, Any],
    study: str,
    keys: Mapping[str, str] = KEYS,
    seen: Collection[Any] | None = None,
) -> dict[str, list]:
    """
    Divide a data list by what its samples were to a trained model, and print the numbers.

    A subject is known by its name and its cluster's, as any spelling has them, in the study that the model was trained
    on alone: that is, where ``study`` is the same, or the data have grown or shrunk since: of the samples that have the
    name of one that was trained on, at least half are it by their content
    (:py:func:`monai_armed.data.sample_marks.sample_mark`). In any other study all clusters and subjects are others, and
    a warning counts those whose names say otherwise.

    Args:
        datalist: the samples.
        trained: what the model was trained on, from :py:func:`provenance`.
        study: name of the study that the samples are of.
        keys: their keys of cluster and subject.
        seen: names of the clusters that are the model's, if the user gives them: then the study counts as the same.

    Returns:
        ``"train"`` and ``"val"``, the subjects that the model was trained and validated on; of the others ``"test"``,
        of clusters that it knows, named as it names them, and ``"unseen"``, of other clusters. One of these whose name
        is that of a cluster of the model is renamed.

    Raises:
        ValueError: when ``trained`` is no such record, ``seen`` are no clusters of the model, or it was trained on all.
    """
    if missing := [key for key in ("study", "clusters", *_PARTS, "samples") if key not in trained]:
        raise ValueError(f"the record of what the model was trained on lacks {missing}: train the model again.")
    known, all_known = _known_clusters(trained, seen), {name_key(name) for name in trained["clusters"]}
    names = [sample_key(item, keys) for item in datalist]
    roles, same = _roles(datalist, names, trained, study, keys, said=seen is not None)
    parts: dict[str, list] = {"train": [], "val": [], "test": [], "unseen": []}
    for item, (cluster, _), role in zip(datalist, names, roles):
        own = same and cluster in known
        name = item[keys["cluster"]]
        if isinstance(name, int):  # an index
            name = name if own else -1
        elif own:
            name = known[cluster]
        elif cluster in all_known:
            name = f"{name} {_OTHER}"
        parts[role or ("test" if own else "unseen")].append({**item, keys["cluster"]: name})
    _tell(parts, same, keys)
    _warn_of_namesakes(names, roles, trained, same, keys)
    if not parts["test"] and not parts["unseen"]:
        raise ValueError(
            f"the model was trained on the {keys['subject']} of every one of the {len(datalist)} images: none is left."
        )
    return parts


def _known_clusters(trained: Mapping[str, Any], seen: Collection[Any] | None) -> dict[str, str]:
    """The model's clusters that count as such, by what their spellings have in common."""
    known = {name_key(name): name for name in trained["clusters"]}
    if isinstance(seen, str):
        raise ValueError(f"the names of the seen clusters must be a list, got the string {seen!r}.")
    asked = {name_key(name): str(name) for name in (known if seen is None else seen)}
    if others := sorted(name for key, name in asked.items() if key not in known):
        raise ValueError(
            f"the model was trained on {list(trained['clusters'])}, not on {others}: name clusters of the model, or "
            "none where its own data are evaluated."
        )
    return {key: known[key] for key in asked}


def _roles(
    datalist: Sequence[Mapping[str, Any]],
    names: Sequence[tuple[str, str]],
    trained: Mapping[str, Any],
    study: str,
    keys: Mapping[str, str],
    said: bool,
) -> tuple[list[str | None], bool]:
    """The part of the training that each sample's subject was in, None if in neither; and whether the study is one."""
    part_of = _trained_subjects(trained)
    if said or study == trained["study"]:
        return [part_of.get(name) for name in names], True
    of_mark = {mark: part for part in reversed(_PARTS) for mark in trained["samples"][part]}
    found = [of_mark.get(sample_mark(item, keys)) for item in datalist]
    named = [mark for name, mark in zip(names, found) if name in part_of]
    same = any(found) and 2 * sum(mark is not None for mark in named) >= len(named)
    # what is known by its content was trained on, whatever its name
    subjects = {name: part for part in reversed(_PARTS) for name, mark in zip(names, found) if mark == part}
    subjects |= part_of if same else {}
    return [subjects.get(name) for name in names], same


def _trained_subjects(trained: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    return {(name_key(c), subject_key(s)): part for part in reversed(_PARTS) for c, s in trained[part]}


def _tell(parts: Mapping[str, Sequence], same: bool, keys: Mapping[str, str]) -> None:
    counts = {part: len(items) for part, items in parts.items()}
    what = "the data that the model was trained on" if same else "other data than the model was trained on"
    print(
        f"{what}: of {sum(counts.values())} samples {counts['train']} were trained on and {counts['val']} validated on, "
        f"which are left out of the test; {counts['test']} are of {keys['cluster']}s that the model knows, "
        f"{counts['unseen']} are unseen."
    )


def _warn_of_namesakes(
    names: Sequence[tuple[str, str]],
    roles: Sequence[str | None],
    trained: Mapping[str, Any],
    same: bool,
    keys: Mapping[str, str],
) -> None:
    """Samples that count as another's though the subject's name is one that the model was trained on."""
    pairs = _trained_subjects(trained)
    elsewhere = Counter(subject for _, subject in pairs)
    numbered_anew = any(count > 1 for count in elsewhere.values())  # the name alone says nothing
    others = [name for name, role in zip(names, roles) if role is None]
    namesakes = sum(name in pairs or (name[1] in elsewhere and not numbered_anew) for name in others)
    if not namesakes:
        return
    subject, cluster = keys["subject"], keys["cluster"]
    warnings.warn(
        f"{namesakes} samples are of a {subject} with the name of one that the model was trained on at another {cluster} "
        "of this study and count as of another."
        if same
        else f"{namesakes} samples are of a {subject} with the name of one that the model was trained on, but none of "
        f"their data: they count as of another {subject}, of another study. If it is the same study, name the model's "
        f"{cluster}s as the seen ones.",
        stacklevel=4,
    )
