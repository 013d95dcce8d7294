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

"""Which files of a BIDS tree are a subject's scans, and who has none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from .volume_reader import VOLUME_ENDINGS, volume_stem

__all__ = ["one_scan_a_session", "unmatched"]

DERIVED = ("desc", "space", "res", "den", "label")  # entities that BIDS keeps for what was made of a scan
NAMED = 10  # names in a sentence, before the rest are counted


def one_scan_a_session(files: Iterable[Path]) -> list[Path]:
    """
    One file for each subject and session: the scan itself rather than what was made of it (``desc-brain``,
    ``space-MNI``), the first run, and of the others that with the fewest entities in its name.

    Args:
        files: images of a BIDS tree, of one suffix.

    Returns:
        the chosen ones, sorted.
    """
    best: dict[tuple[Path, str], Path] = {}
    for file in sorted(files, key=_rank):
        session = _entities(file).get("ses", "")
        best.setdefault((file.parent, session), file)
    return sorted(best.values())


def _entities(file: Path) -> dict[str, str]:
    """``{"sub": "01", "run": "2"}`` of ``sub-01_run-2_T1w.nii.gz``."""
    return dict(part.split("-", 1) for part in volume_stem(file.name).split("_") if "-" in part)


def _rank(file: Path) -> tuple[int, int, int, int, str]:
    entities = _entities(file)
    run = re.match(r"\d*", entities.get("run", ""))
    ending = next((k for k, ending in enumerate(VOLUME_ENDINGS) if file.name.endswith(ending)), len(VOLUME_ENDINGS))
    derived = sum(name in DERIVED for name in entities)
    return derived, int(run.group() or 0) if run else 0, len(entities), ending, str(file)


def unmatched(
    participants: Collection[str], taken: Sequence[Path], there: Sequence[Path], root: Path, suffix: str = "T1w"
) -> list[str]:
    """
    What a BIDS tree has that comes to nothing.

    Args:
        participants: names of the rows of ``participants.tsv``.
        taken: the scans, as :func:`one_scan_a_session` chooses them.
        there: all images of the suffix.
        root: folder of the tree.
        suffix: BIDS suffix of the images.

    Returns:
        a sentence each, with names, for participants without a scan, scans without a participant, and further images.
    """
    listed = [name if name.startswith("sub-") else f"sub-{name}" for name in participants]
    scanned = {file.relative_to(root).parts[0] for file in taken}
    without = [name for name in listed if name not in scanned]
    unknown = sorted(scanned - set(listed))
    further = [file.relative_to(root).as_posix() for file in sorted(set(there) - set(taken))]
    found = []
    if without:
        found.append(
            f"{len(without)} of {len(listed)} participants have no {suffix} image in {root} and are left out: "
            f"{_names(without)}."
        )
    if unknown:
        found.append(
            f"{len(unknown)} subjects have a {suffix} image in {root} but no row in participants.tsv and are not in "
            f"the data list: {_names(unknown)}."
        )
    if further:
        found.append(
            f"{len(further)} further {suffix} images in {root} are not taken, as there is one for each subject and "
            f"session (name them in a CSV to use them): {_names(further)}."
        )
    return found


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
