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

"""One raw scan, and the files that it is prepared into."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from monai_armed import __version__
from monai_armed.data.volume_reader import volume_stem
from monai_armed.studies.ad_mri.scan_check import MIN_SIMILARITY

__all__ = ["ScanTask"]

FORMAT = 2  # of the record: one of another is not read


@dataclass(frozen=True)
class ScanTask:
    """One scan and where its results go.

    Args:
        scan: raw file below ``dataset_dir``.
        dataset_dir: folder of the raw scans.
        output_dir: folder of the results.
        registration: see :class:`monai_armed.transforms.RegisterToTemplate`.
        min_similarity: see :func:`monai_armed.studies.ad_mri.scan_check.judge_scan`.
        keep: see there.
    """

    scan: Path
    dataset_dir: Path
    output_dir: Path
    registration: str
    min_similarity: float = MIN_SIMILARITY
    keep: bool = False

    @property
    def name(self) -> str:
        """Path of the scan in its dataset."""
        return self.scan.relative_to(self.dataset_dir).as_posix()

    def file(self, ending: str) -> Path:
        """File beside the results' volume, such as that with ``ending`` ``"_desc-brain_T1w.json"``."""
        stem = volume_stem(self.scan.name).removesuffix("_T1w")
        return self.output_dir / self.scan.parent.relative_to(self.dataset_dir) / f"{stem}{ending}"

    @property
    def brain(self) -> Path:
        """The skull-stripped, aligned volume."""
        return self.file("_desc-brain_T1w.nii.gz")

    @property
    def record(self) -> Path:
        """What is known of the scan, as JSON."""
        return self.file("_desc-brain_T1w.json")

    @property
    def slice(self) -> Path:
        """The coronal slice, as a picture; its name holds the folders that the scan's name does not."""
        name = self.file("_T1w.png").name
        folders = self.scan.parent.relative_to(self.dataset_dir).parts[:-1]
        return self.output_dir / "slices" / "_".join([*(part for part in folders if part not in name.split("_")), name])

    def settings(self) -> dict[str, Any]:
        """What the result depends on: where it is as in the record, nothing is done again."""
        state = self.scan.stat() if self.scan.exists() else None  # a link may lead nowhere
        return {
            "registration": self.registration,
            "bytes": state and state.st_size,
            "modified": state and state.st_mtime_ns,
            "version": __version__,
            "format": FORMAT,
        }

    def is_named(self, pattern: str) -> bool:
        """Whether a pattern such as ``sub-01*`` is the scan's path, a folder of it, or its name, with ending or not."""
        names = (self.name, *self.name.split("/"), volume_stem(self.scan.name))
        return any(fnmatchcase(name, pattern) for name in names)
