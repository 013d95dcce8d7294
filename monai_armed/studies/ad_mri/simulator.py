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

"""Simulator of the AD-from-MRI study of the paper's section 3.3.2: T1-weighted NIfTI volumes in BIDS with known truth.

Everything about it is simulated; only the template and the atlas come from real brains. The same seed gives the same
files for any number of workers. Run it with ``python -m monai_armed.studies.ad_mri.simulator ROOT --scale 0.5``.
Everything is computed in double precision, so that the rounding of the stored integers hides what processors differ in.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from monai_armed.data.simulation_folder import claim_folder, write_bytes
from monai_armed.studies.ad_mri.anatomy import SubjectWarp, disease_model
from monai_armed.studies.ad_mri.ceilings import ad_mri_ceilings
from monai_armed.studies.ad_mri.cohort import Scan, Subject, draw_cohort, scan_rng
from monai_armed.studies.ad_mri.painter import SPACING, Axes, ScanPainter

__all__ = ["simulate_ad_mri"]

_VERSION = 1  # raise it whenever a change alters the images
_README = """# SIMULATED T1-weighted MRI of Alzheimer's disease and controls

These images are simulated (`monai_armed.studies.ad_mri.simulator.simulate_ad_mri`). No patient was scanned.
The truth about every image is in `derivatives/truth`: `truth.tsv` holds the relative volumes that were drawn (h for
hippocampi with amygdalae, v for the lateral ventricles), the regions' volumes in mm^3 and their areas in mm^2 in the
coronal slice at y = -6 mm; the `*_dseg.nii.gz` files hold the regions (1 hippocampi with amygdalae, 2 lateral
ventricles); `ceilings.json` the AUROC that this truth allows.
"""


@dataclass(frozen=True)
class _Job:
    root: str
    seed: int
    full_volume: bool
    subject: Subject


def simulate_ad_mri(
    root: str | os.PathLike[str],
    scale: float = 1.0,
    seed: int = 0,
    full_volume: bool = False,
    num_workers: int | None = None,
    progress: bool = True,
    unseen_scale: float | None = None,
) -> Path:
    """Write the simulated AD study as a BIDS tree, with its truth in ``derivatives/truth``.

    12 seen sites (Table S1 of the paper) and 51 unseen ones. A simulation that was interrupted goes on with the
    images that are missing; a complete one is left as it is.

    Args:
        root: folder to write to; made where it does not exist.
        scale: share of the subjects and images of each site to simulate, in (0, 1]. No site is dropped.
        seed: seed of the study.
        full_volume: write whole heads (about 2 s each) instead of a coronal slab of 24 mm around the slice at MNI
            y = -6 mm (13 voxels of 2 mm, so that the slice is the slab's middle).
        num_workers: processes; all the machine's by default, and 0 or 1 works in this process.
        progress: show a progress bar.
        unseen_scale: share of the subjects and images of each unseen site; by default ``scale``.

    Returns:
        the folder.

    Raises:
        ValueError: when the folder holds something else, or a simulation with other parameters.
    """
    folder = Path(root)
    subjects = draw_cohort(scale, seed, unseen_scale)
    parameters = {"version": _VERSION, "scale": scale, "seed": seed, "full_volume": full_volume}
    parameters["unseen_scale"] = scale if unseen_scale is None else unseen_scale
    foreign = "a BIDS tree" if (folder / "participants.tsv").exists() else ""
    marker = folder / "derivatives" / "truth" / "simulation.json"
    claim_folder(folder, marker, parameters, "a simulation", foreign)
    _write_tables(folder, subjects)
    jobs = [_Job(str(folder), seed, full_volume, subject) for subject in subjects]
    missing = [job for job in jobs if any(not image.exists() for image, _, _ in _paths(job))]
    done = sum(len(job.subject.scans) for job in jobs) - sum(len(job.subject.scans) for job in missing)
    truth = folder / "derivatives" / "truth"
    if missing or not (truth / "ceilings.json").exists():
        total = sum(len(job.subject.scans) for job in jobs)
        with tqdm(total=total, initial=done, desc="simulate AD-MRI", unit="image", disable=not progress) as bar:
            for count in _run(missing, num_workers):
                bar.update(count)
        records = [json.loads(sidecar.read_text()) for job in jobs for _, _, sidecar in _paths(job)]
        write_bytes(truth / "truth.tsv", pd.DataFrame(records).to_csv(sep="\t", index=False).encode())
        write_bytes(truth / "ceilings.json", json.dumps(ad_mri_ceilings(folder), indent=2).encode())
    return folder


def _write_tables(folder: Path, subjects: list[Subject]) -> None:
    rows = [
        {
            "participant_id": subject.name,
            "site": subject.site.name,
            "site_role": subject.site.role,
            "manufacturer": subject.site.manufacturer,
            "diagnosis": subject.diagnosis,
            "age": subject.age,
            "sex": subject.sex,
        }
        for subject in subjects
    ]
    sites = {subject.site.name: subject.site for subject in subjects}
    scanners = [
        {"site": s.name, "site_role": s.role, "manufacturer": s.manufacturer, "snr": s.snr, "blur_fwhm_mm": s.blur}
        | {f"voxel_{axis}_mm": size for axis, size in zip("xyz", s.voxel_size, strict=True)}
        | {f"bias_{k}": value for k, value in enumerate(s.bias)}
        for s in sites.values()
    ]
    description = {"Name": "SIMULATED AD-from-MRI study of monai_armed", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    truth = {"Name": "Truth of the SIMULATED study", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
    truth |= {"GeneratedBy": [{"Name": "monai_armed"}]}  # type: ignore[dict-item]
    for path, text in {
        "README.md": _README,
        "dataset_description.json": json.dumps(description, indent=2),
        "participants.tsv": pd.DataFrame(rows).to_csv(sep="\t", index=False),
        "derivatives/truth/dataset_description.json": json.dumps(truth, indent=2),
        "derivatives/truth/sites.tsv": pd.DataFrame(scanners).to_csv(sep="\t", index=False),
    }.items():
        if not (folder / path).exists():
            write_bytes(folder / path, text.encode())


def _paths(job: _Job) -> list[tuple[Path, Path, Path]]:
    """Image, mask and truth file of each scan."""
    paths = []
    for scan in job.subject.scans:
        session = f"ses-m{scan.months:02d}"
        place = Path(job.subject.name, session, "anat")
        stem = f"{job.subject.name}_{session}"
        truth = Path(job.root, "derivatives", "truth") / place
        paths.append(
            (Path(job.root) / place / f"{stem}_T1w.nii.gz", truth / f"{stem}_dseg.nii.gz", truth / f"{stem}_truth.json")
        )
    return paths


def _run(jobs: list[_Job], num_workers: int | None) -> Iterator[int]:
    workers = min((os.cpu_count() or 1) if num_workers is None else num_workers, len(jobs))
    if workers <= 1:
        yield from map(_simulate_subject, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for future in as_completed([pool.submit(_simulate_subject, job) for job in jobs]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _simulate_subject(job: _Job) -> int:
    """Write what is missing of a subject; the image is written last, so that its existence says all is there."""
    subject = job.subject
    warp = SubjectWarp.draw(scan_rng(job.seed, *subject.key, 1))
    painter = ScanPainter(warp, job.full_volume)
    for number, (scan, (image, mask, sidecar)) in enumerate(zip(subject.scans, _paths(job), strict=True)):
        if image.exists():
            continue
        # draws beyond what the deformation reaches (3.5 s.d.) are brought to its limits, and the truth says so
        h, v = (float(np.clip(x, *limit)) for x, limit in zip((scan.h, scan.v), disease_model().limits, strict=True))
        truth = {
            "image": image.relative_to(job.root).as_posix(),
            "mask": mask.relative_to(job.root).as_posix(),
            "subject": subject.name,
            "session": f"ses-m{scan.months:02d}",
            "site": subject.site.name,
            "site_role": subject.site.role,
            "manufacturer": subject.site.manufacturer,
            "diagnosis": subject.diagnosis,
            "h": h,
            "v": v,
        }
        exact = Scan(scan.months, h, v)
        labels, measures = painter.regions(exact)
        voxels = painter.image(exact, subject.site, scan_rng(job.seed, *subject.key, 2, number))
        write_bytes(mask, _nifti_bytes(labels, painter.mask_axes, np.uint8))
        write_bytes(sidecar, json.dumps(truth | measures).encode())
        write_bytes(image, _nifti_bytes(np.rint(voxels), painter.axes, np.int16))
    return len(subject.scans)


def _nifti_bytes(voxels: NDArray[Any], axes: Axes, dtype: type) -> bytes:
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    image = nib.Nifti1Image(voxels.astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as file:
        file.write(image.to_bytes())
    return buffer.getvalue()


def main() -> None:
    """Command line of :func:`simulate_ad_mri`."""
    parser = argparse.ArgumentParser(description="Simulate the AD-from-MRI study as a BIDS tree.")
    parser.add_argument("root", help="folder to write to")
    parser.add_argument("--scale", type=float, default=1.0, help="share of subjects and images, in (0, 1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full-volume", action="store_true", help="whole heads instead of a 24 mm slab")
    parser.add_argument("--unseen-scale", type=float, default=None, help="the same for the unseen sites alone")
    parser.add_argument("--num-workers", type=int, default=None)
    arguments = parser.parse_args()
    try:
        folder = simulate_ad_mri(**vars(arguments))
    except ValueError as error:
        parser.exit(1, f"{error}\n")
    print(f"simulated study in {folder}")


if __name__ == "__main__":
    main()
