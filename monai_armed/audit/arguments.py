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
"""The arguments of ``python -m monai_armed audit`` and ``erase``."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_audit_arguments", "add_erase_arguments"]


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, help="data list, CSV or JSON; paths in it are relative to its folder")
    add(
        "--network",
        type=Path,
        metavar="FILE",
        help="exported program (.pt2); of TorchScript and ONNX predictions alone can be read",
    )
    add("--config_file", type=Path, nargs="+", default=[], help="a bundle's config, and overrides; it is executed")
    add("--network_id", metavar="ID", help="of the bundle's network; default: network or network_def")
    add("--weights", type=Path, help="state dict of the bundle's network; default: models/model.pt for network_def")
    add("--preprocessing_id", metavar="ID", default="preprocessing", help="of transforms in --config_file")
    add("--image_size", type=int, nargs="+", help="size that images are resized to, without such transforms")
    add(
        "--rows_first",
        action="store_true",
        help="with --image_size: pictures (PNG, JPEG, TIFF) have rows before columns, as in arrays of PIL and "
        "torchvision; default: columns first, as MONAI's LoadImage reads them",
    )
    add("--value_range", type=float, nargs=2, default=[0, 255], help="image values that become 0 and 1 (default 0 255)")
    add("--batch_size", type=int, default=32, help="images at a time")
    add("--device", help="where the network runs; default: CUDA if there is one")
    for name in ("image", "label", "site"):
        add(f"--{name}_column", default=name, help=f"default: {name}")
    add("--subject_column", help="who an image is of, where somebody has several; default: each image is a subject")
    add("--positive", nargs="+", default=[], metavar="LABEL", help="labels that are class 1, if they are not 0 and 1")
    add(
        "--positive_output",
        type=int,
        metavar="K",
        help="which of several outputs, counted from 0, is that of class 1; default: of two 1, or the whole number "
        "that --positive names",
    )
    add(
        "--multilabel",
        action=argparse.BooleanOptionalAction,
        help="whether each of several outputs is of a label of its own, as of findings in X-rays, and not of one "
        "softmax; default: only of probabilities that do not have the sum 1",
    )
    add("--segmentation", action="store_true", help="labels are paths of masks")
    add("--seed", type=int, default=0, help="seed of splits, probes and permutations")


def add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    """Args: parser: of the command ``audit``."""
    _add_inputs(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, CSV and JSON")
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="a data list with predictions; no network runs"
    )
    parser.add_argument("--prediction_column", default="prediction", help="of logits or probabilities in it")
    parser.add_argument("--attributes", nargs="+", default=[], metavar="COLUMN", help="such as maker, sex, age")
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="to look at; default: what ARMED's adversary sees")


def add_erase_arguments(parser: argparse.ArgumentParser) -> None:
    """Args: parser: of the command ``erase``."""
    _add_inputs(parser)
    parser.add_argument("--out", type=Path, required=True, help="file of the erased network, .pt2 or .ts (TorchScript)")
    parser.add_argument("--layer", required=True, help="whose output is to forget the site")
