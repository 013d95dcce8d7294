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
from dataclasses import dataclass
from typing import Any

from .names import name_key, subject_key
from .sample_marks import KEYS, sample_content, sample_key, sample_mark

__all__ = ["held_out", "provenance"]

_PARTS = ("train", "val")
_OTHER = "(not the model's)"  # after the name of a cluster that is another than the model's of that name


def provenance(partitions: Mapping[str, Any]) -> dict[str, Any]:
    """
    What a model is trained on, to be kept with it.

    Args:
        partitions: ``"train"``, ``"val"``, ``"test"`` and ``"unseen"``, data lists; the names of the clusters;
            ``"study"``, from :py:func:`monai_armed.data.sample_marks.study_name`; and ``"keys"``, where the names and
            of each sample the cluster and the subject are found, unless they are those of
            :py:data:`monai_armed.data.sample_marks.KEYS`.

    Returns:
        a record that JSON can hold: ``"study"``; ``"clusters"``, the names in the order of their index; ``"train"`` and
        ``"val"``, the sorted pairs of cluster and subject; ``"samples"``, the marks of all samples of the study, by
        which data that have grown are known again; and ``"contents"``, by part the contents of the samples, of those
        that only one sample has, by which it is known under any name.
    """
    keys = {**KEYS, **partitions.get("keys", {})}
    found = {part: partitions.get(part, []) for part in (*_PARTS, "test", "unseen")}
    contents = {part: [sample_content(item) for item in items] for part, items in found.items()}
    count = Counter(content for part in contents.values() for content in part)
    pairs = {
        part: sorted({(str(item[keys["cluster"]]), str(item[keys["subject"]])) for item in partitions[part]})
        for part in _PARTS
    }
    return {
        "study": partitions["study"],
        "clusters": [str(name) for name in partitions[keys["clusters"]]],
        **{part: [list(pair) for pair in known] for part, known in pairs.items()},
        "samples": sorted(
            {
                sample_mark(item, keys, content)
                for part, items in found.items()
                for item, content in zip(items, contents[part])
            }
        ),
        "contents": {part: sorted(c for c in contents[part] if c and count[c] == 1) for part in _PARTS},
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

    A subject is known by its name and its cluster's, as any spelling has them, but only in the study that the model was
    trained on. It is that study where ``study`` is the same, or where data have grown or shrunk since: some samples are
    of it by their :py:func:`monai_armed.data.sample_marks.sample_mark`, among them at least half of those that have the
    name of one that was trained on. In any other study all clusters and subjects are others, whatever their names, and
    a warning counts the namesakes; but a sample whose content was trained on is known under any name.

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
    if missing := [key for key in ("study", "clusters", *_PARTS, "samples", "contents") if key not in trained]:
        raise ValueError(f"the record of what the model was trained on lacks {missing}: train the model again.")
    known, all_known = _known_clusters(trained, seen), {name_key(name) for name in trained["clusters"]}
    names = [sample_key(item, keys) for item in datalist]
    match = _match(datalist, names, trained, study, keys, said=seen is not None)
    parts: dict[str, list] = {"train": [], "val": [], "test": [], "unseen": []}
    for item, (cluster, _), role in zip(datalist, names, match.roles):
        own = match.same and cluster in known
        name = item[keys["cluster"]]
        if isinstance(name, int):  # an index
            name = name if own else -1
        elif own:
            name = known[cluster]
        elif cluster in all_known:
            name = f"{name} {_OTHER}"
        parts[role or ("test" if own else "unseen")].append({**item, keys["cluster"]: name})
    _tell(parts, match, keys)
    if not parts["test"] and not parts["unseen"]:
        raise ValueError(
            f"the model was trained on the {keys['subject']} of every one of the {len(datalist)} images: none is left."
        )
    return parts


@dataclass
class _Match:
    """Data against a model's training: whether it is one study, and the part that each sample's subject was in."""

    same: bool
    roles: list[str | None]
    renamed: int = 0  # known by their content alone
    namesakes: int = 0  # known by the subject's name alone


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


def _match(
    datalist: Sequence[Mapping[str, Any]],
    names: Sequence[tuple[str, str]],
    trained: Mapping[str, Any],
    study: str,
    keys: Mapping[str, str],
    said: bool,
) -> _Match:
    part_of = {(name_key(c), subject_key(s)): part for part in reversed(_PARTS) for c, s in trained[part]}
    same, contents = study == trained["study"], {}
    if not same:
        marks = set(trained["samples"])
        found = [sample_mark(item, keys) in marks for item in datalist]
        named = [is_found for name, is_found in zip(names, found) if name in part_of]
        same = said or (any(found) and 2 * sum(named) >= len(named))
        contents = _known_by_content(datalist, names, trained)
    roles = [(part_of.get(name) if same else None) or contents.get(name) for name in names]
    renamed = sum(name in contents and not (same and name in part_of) for name in names)
    subjects = Counter(subject for _, subject in part_of)
    numbered_anew = max(subjects.values(), default=0) > 1  # by each cluster, so that the name alone says nothing
    namesakes = sum(
        role is None and (name in part_of or (name[1] in subjects and not numbered_anew))
        for name, role in zip(names, roles)
    )
    return _Match(same, roles, renamed, namesakes)


def _known_by_content(
    datalist: Sequence[Mapping[str, Any]], names: Sequence[tuple[str, str]], trained: Mapping[str, Any]
) -> dict[tuple[str, str], str]:
    """Part of the training that subjects were in by what is in one of their samples and in no other one here."""
    part_of = {content: part for part in reversed(_PARTS) for content in trained["contents"][part]}
    contents = [sample_content(item) for item in datalist]
    count = Counter(contents)
    known = [(name, part_of.get(content)) for name, content in zip(names, contents) if count[content] == 1]
    return {name: part for part in reversed(_PARTS) for name, found in known if found == part}


def _tell(parts: Mapping[str, Sequence], match: _Match, keys: Mapping[str, str]) -> None:
    counts, (cluster, subject) = {part: len(items) for part, items in parts.items()}, (keys["cluster"], keys["subject"])
    whose = "the data that the model was trained on" if match.same else "other data than the model was trained on"
    print(
        f"{whose}: of {sum(counts.values())} samples {counts['train']} were trained on and {counts['val']} validated "
        f"on, which are left out of the test; {counts['test']} are of a {cluster} that it knows, {counts['unseen']} "
        "are unseen."
    )
    if match.renamed:
        warnings.warn(
            f"the {subject} of {match.renamed} samples is one that the model was trained on, by what is in them, under "
            "another name: they are left out.",
            stacklevel=4,
        )
    if match.namesakes:
        why = (
            f"at another {cluster} of this study: it counts as another {subject}."
            if match.same
            else f"but other data: it counts as another {subject}, of another study; if it is the same study, say so "
            "by naming the seen clusters."
        )
        warnings.warn(
            f"the {subject} of {match.namesakes} samples has the name of one that the model was trained on, {why}",
            stacklevel=4,
        )
