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

"""Command line: ``python -m monai_armed compare ...`` and ``python -m monai_armed demo``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from monai_armed.audit.arguments import add_audit_arguments, add_erase_arguments

if TYPE_CHECKING:
    from monai_armed.compare.fold_sharing import FoldExecutor
    from monai_armed.compare.fold_tracking import FoldTracker


def _compare(arguments: argparse.Namespace) -> int:
    from monai_armed.compare.runner import Comparison, compare, parse_overrides
    from monai_armed.compare.study_bundle import StudyBundle

    overrides = parse_overrides(arguments.set)
    only = parse_overrides(arguments.only)
    bundle = StudyBundle(arguments.bundle.resolve(), arguments.variant, overrides, only)
    comparison = Comparison(
        bundle,
        bundle.models(arguments.models),
        arguments.out.resolve(),
        arguments.folds,
        arguments.split or bundle.options["split"],
        arguments.seed,
        arguments.inner_folds if arguments.search else 0,
        arguments.repeat,
        arguments.processes,
        _executor(arguments),
        _tracker(arguments, bundle.options["title"]),
    )
    if arguments.command == "spirals":
        from monai_armed.studies.spirals.study import spiral_study

        files = spiral_study(comparison, arguments.starts)
        print(files["importance_report"].read_text(encoding="utf-8"))
    elif arguments.command == "mci":
        from monai_armed.studies.mci.study import conversion_study

        files = conversion_study(comparison)
        print(files["reading"].read_text(encoding="utf-8"))
    else:
        files = compare(comparison)
    print(files["report"].read_text(encoding="utf-8"))
    print(f"written to {arguments.out}: {', '.join(path.name for path in files.values())}")
    for folder, error in comparison.failures.items():
        print(f"failed: {folder}: {error}", file=sys.stderr)
    return 1 if comparison.failures else 0


def _executor(arguments: argparse.Namespace) -> FoldExecutor:
    from monai_armed.compare.cluster_jobs import ClusterJobs
    from monai_armed.compare.fold_processes import OwnProcesses
    from monai_armed.compare.runner import parse_overrides

    if arguments.executor != "processes":
        return ClusterJobs(arguments.out.resolve() / "jobs", arguments.executor, parse_overrides(arguments.job))
    if arguments.job:
        raise ValueError(f"--job {arguments.job[0]} is for jobs of a cluster: give --executor submitit, too.")
    return OwnProcesses()


def _tracker(arguments: argparse.Namespace, experiment: str) -> FoldTracker | None:
    from monai_armed.compare.fold_tracking import FoldTracker
    from monai_armed.compare.runner import check_writable

    if arguments.tracking is None:
        return None
    check_writable(out := arguments.out.resolve())
    return FoldTracker(out, experiment)


def _demo(arguments: argparse.Namespace) -> int:
    from monai_armed.studies.ad_mri.demo import run_demo

    run_demo(arguments.out)
    return 0


def _preprocess(arguments: argparse.Namespace) -> int:
    from monai_armed.studies.ad_mri.preprocess import preprocess, summary

    table = preprocess(
        arguments.dataset_dir,
        arguments.output_dir,
        arguments.registration,
        arguments.processes,
        arguments.min_similarity,
        arguments.keep,
    )
    print(f"{summary(table)}; written to {arguments.output_dir}: quality.csv has the reasons, quality_*.png the slices")
    return int((table["status"] == "left out").all())


def _audit(arguments: argparse.Namespace) -> int:
    from monai_armed.audit.command import run_audit

    return run_audit(arguments)


def _erase(arguments: argparse.Namespace) -> int:
    from monai_armed.audit.command import run_erase

    return run_erase(arguments)


def _federated(arguments: argparse.Namespace) -> int:
    from monai_armed.compare.runner import parse_overrides
    from monai_armed.federated import nvflare_job
    from monai_armed.federated.comparison import compare_federated
    from monai_armed.federated.hospital_config import hospitals_study, rounds_as_long
    from monai_armed.federated.local import run_locally
    from monai_armed.federated.new_hospital import join_late

    study = hospitals_study(arguments.bundle, parse_overrides(arguments.set), arguments.model)
    if arguments.join:
        print(f"written to {join_late(study, arguments.out, arguments.join)}")
        return 0
    rounds = arguments.rounds or rounds_as_long(study, arguments.local_epochs)
    job = (arguments.hospitals, rounds, arguments.local_epochs)
    if arguments.export:
        print(f"written to {nvflare_job.export_job(study, arguments.out, *job)}")
        return 0
    run = nvflare_job.simulate if arguments.nvflare else run_locally
    compare_federated(study, arguments.out, *job, run)
    return 0


def _check_bundle(arguments: argparse.Namespace) -> int:
    from monai_armed.check_bundle import check_bundle

    faults = {str(bundle): check_bundle(bundle, arguments.allow, arguments.ignore) for bundle in arguments.bundles}
    for bundle, found in faults.items():
        for fault in found:
            print(f"{bundle}: {fault}")
        print(f"{bundle}: {f'refused, for {len(found)} reasons' if found else 'nothing was found'}")
    return int(any(faults.values()))


def _at_least(least: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers from ``least`` on."""

    def whole_number(text: str) -> int:
        if (number := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    return whole_number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monai_armed", description="Mixed effects deep learning for MONAI.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train the AD study on simulated MRI and print the results")
    demo.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for everything that it writes")
    demo.set_defaults(run=_demo)
    preprocess = commands.add_parser("preprocess", help="from raw T1-weighted scans to what the AD bundle trains on")
    add = preprocess.add_argument
    add("--dataset_dir", type=Path, required=True, help="BIDS tree of raw scans")
    add("--output_dir", type=Path, required=True, help="folder for results; what is there already is not done again")
    add("--registration", choices=("rigid", "affine", "syn"), default="affine", help="to the ICBM152 template")
    add("--processes", type=_at_least(1), default=1, help="scans at a time; each needs a core and 1.5 GB of memory")
    add("--min_similarity", type=float, default=0.5, help="least similarity with the template, a correlation")
    add("--keep", nargs="+", default=[], metavar="NAME", help="scans to keep whatever the check says: sub-01, sub-02*")
    preprocess.set_defaults(run=_preprocess)
    add_audit_arguments(audit := commands.add_parser("audit", help="does a network read the site? writes a page"))
    audit.set_defaults(run=_audit)
    add_erase_arguments(
        erase := commands.add_parser("erase", help="write a network with a layer that forgets the site")
    )
    erase.set_defaults(run=_erase)
    check = commands.add_parser("check-bundle", help="look for what a bundle must not have; nothing of it is run")
    check.add_argument("bundles", nargs="+", type=Path, metavar="DIR", help="folder of a bundle")
    allow = "package, module, class or function that it may use, too; imported. With a dot before it, an attribute"
    check.add_argument("--allow", action="append", default=[], metavar="NAME", help=allow)
    check.add_argument("--ignore", action="append", default=[], metavar="FOLDER", help="in it that is not looked into")
    check.set_defaults(run=_check_bundle)
    _add_federated(commands.add_parser("federated", help="train across hospitals, beside pooled and alone"))
    compare = commands.add_parser("compare", help="compare all models of a bundle on the same folds")
    spirals = commands.add_parser("spirals", help="compare, and Table 2 and the figures of the spiral study")
    spirals.add_argument("--starts", type=_at_least(0), default=0, help="further starts for Table 2")
    mci = commands.add_parser("mci", help="compare, and the figures of the MCI conversion study")
    for command in (compare, spirals, mci):
        command.set_defaults(run=_compare)
        _add_comparison(command.add_argument)
    return parser


def _add_federated(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_federated)
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="folder of the bundle")
    add("--model", default="", help="its override files, names joined by '+'; default: without_adversary+erased")
    add("--out", type=Path, required=True, help="folder for results")
    add("--hospitals", type=_at_least(2), default=4, help="hospitals that the bundle's clusters are shared out among")
    add("--rounds", type=_at_least(1), help="averages; by default every sample is seen as often as in pooled training")
    add("--local_epochs", type=_at_least(1), default=1, help="epochs that a hospital trains in each round")
    add("--set", action="append", default=[], metavar="ID=VALUE", help="override a config value; repeatable")
    add("--nvflare", action="store_true", help="each hospital a process, in NVFLARE's simulator")
    add("--join", type=Path, metavar="SHARED", help="of a new hospital: learn its random effects around this shared.pt")
    add("--export", action="store_true", help="write NVFLARE's job for real hospitals; nothing is trained")


def _add_comparison(add: Callable[..., object]) -> None:
    add("--bundle", type=Path, required=True, help="folder of the bundle")
    add("--models", default="all", help="'all', or names joined by commas")
    add("--folds", type=_at_least(1), default=10, help="number of folds or random splits")
    add("--out", type=Path, required=True, help="folder for results; what is there already is not done again")
    add("--split", choices=("stratified", "grouped", "monte_carlo"), help="default: as the bundle's compare.json says")
    add("--variant", action="append", default=[], help="override file for all models, such as 'paper'")
    add("--set", action="append", default=[], metavar="ID=VALUE", help="override a config value; repeatable")
    add("--only", action="append", default=[], metavar="ID=VALUE", help="take the settings with this value alone")
    add("--search", action="store_true", help="nested cross-validation over configs/search.json")
    add("--inner-folds", type=_at_least(2), default=10, help="inner folds of --search")
    add("--repeat", default="", metavar="ID", help="config id, such as data_seed, that is k in fold k")
    add("--seed", type=_at_least(0), default=0, help="seed of the folds and starts")
    add("--processes", type=_at_least(1), default=1, help="processes, or jobs at a time, to share the work among")
    executors = ("processes", "submitit", "slurm", "local")
    executor_help = "processes of its own, or submitit's jobs: Slurm's, or local ones; 'submitit' is Slurm where it is"
    add("--executor", choices=executors, default="processes", help=executor_help)
    add(
        "--job", action="append", default=[], metavar="NAME=VALUE", help="of each job: timeout_min, slurm_partition ..."
    )
    add("--tracking", choices=("mlflow",), help="write each fold as a run of MLflow, into OUT/mlruns.db")


def main(argv: list[str] | None = None) -> int:
    """Run a sub-command; returns the exit code: 0, 1 if something failed on the way, 2 if the input is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, FileNotFoundError, ImportError) as error:
        if os.environ.get("MONAI_ARMED_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
