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
"""What ``python -m monai_armed audit`` and ``erase`` do."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from .. import __version__
from ..data.names import tidy_name
from ..networks.erasure import ClusterEraser
from .assess import assess, of_other_class
from .data_list import Columns, Samples, read_samples
from .erase import write_erased
from .erased import Told, layer_eraser
from .images import Images, sizes_said, usual_preprocessing
from .networks import BundleParts, NoLayers, layer_prefix, open_bundle, open_network
from .outputs import Asked, class_form, score_of
from .readings import Readings, read_network
from .write import write_audit

__all__ = ["run_audit", "run_erase"]


@dataclass
class _Inputs:
    samples: Samples
    images: Images | None = None
    network: torch.nn.Module | None = None


def _open(arguments: argparse.Namespace, alone: Path | None = None, attributes: tuple[str, ...] = ()) -> _Inputs:
    """The data list, and, unless predictions are in it, its images and the network."""
    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    image, prediction = (None, arguments.prediction_column) if alone else (arguments.image_column, None)
    columns = Columns(
        arguments.label_column, arguments.site_column, arguments.subject_column, image, prediction, attributes
    )
    parts = BundleParts(arguments.config_file) if arguments.config_file else None
    if (data := alone or arguments.data) is None:
        raise ValueError("say which images: --data, a list with their labels and sites; or give --predictions.")
    samples = read_samples(data, columns, arguments.positive, arguments.segmentation and not alone)
    if alone:
        return _Inputs(samples)
    if arguments.network is not None:
        network = open_network(arguments.network)
    elif parts is not None:
        network = open_bundle(parts, arguments.network_id, arguments.weights)
    else:
        raise ValueError("say what to audit: --network FILE, --config_file of a bundle, or --predictions FILE.")
    if parts is not None and arguments.preprocessing_id in parts:
        preprocessing = parts.part(arguments.preprocessing_id)
    elif arguments.image_size:
        order = arguments.rows_first
        preprocessing = usual_preprocessing(arguments.image_size, arguments.value_range, arguments.segmentation, order)
        print(f"{_order(order)}.")
    else:
        raise ValueError("say how the network takes images: --image_size, or --config_file with its preprocessing.")
    return _Inputs(samples, Images(samples, preprocessing, arguments.batch_size), network.to(arguments.device))


def run_audit(arguments: argparse.Namespace) -> int:
    """
    Args:
        arguments: of the command line.

    Returns:
        0; that the network reads the site is no failure of the audit.
    """
    begun = time.monotonic()
    inputs = _open(arguments, arguments.predictions, tuple(arguments.attributes))
    samples, images, network = inputs.samples, inputs.images, inputs.network
    options: dict[str, Any] = {"masks": arguments.segmentation, "device": arguments.device}
    rerun = None
    if images is None or network is None:
        assert samples.prediction is not None
        given = torch.tensor(samples.prediction)[:, None]
        form = class_form(given, Asked())
        readings = Readings(score_of(given, form).numpy(), form=form)
    else:
        asked = _asked(arguments, samples)
        readings = read_network(network, images.batches(), arguments.layers, asked=asked, **options)

        def rerun(layer: str, eraser: ClusterEraser, part: np.ndarray) -> np.ndarray:
            changed = options | {"changes": {layer: eraser.to(arguments.device)}, "form": readings.form}
            return read_network(network, images.batches(part), (), **changed).score

    audit = assess(samples, readings, rerun, arguments.seed)
    assert readings.form is not None
    print(f"output read: {readings.form.said()}.")
    facts = {
        "network": arguments.network or " ".join(map(str, arguments.config_file)) or "none: predictions alone",
        "data list": arguments.predictions or arguments.data,
        "images, subjects, sites": " / ".join(str(n) for n in _sizes(samples)),
        "output": readings.form.said(),
        "labels": _labels(samples),
        "image sizes": sizes_said(images),
        "pictures": _order(arguments.rows_first) if arguments.image_size else "as the preprocessing makes them",
        "layers": ", ".join(readings.layers) or _no_layers(network),
        "seed": arguments.seed,
        "versions": f"monai_armed {__version__}, torch {torch.__version__}",
        "seconds": round(time.monotonic() - begun, 1),
    }
    files = write_audit(audit, arguments.out, f"Audit of {_name(arguments)}: does it read the site?", facts)
    print("\n".join(audit.verdict))
    print(f"written to {arguments.out}: {', '.join(path.name for path in files.values())}")
    return 0


def _asked(arguments: argparse.Namespace, samples: Samples) -> Asked:
    """What the command line says of outputs, and which of them labels that are whole numbers from 0 up name."""
    positive, multilabel = arguments.positive_output, arguments.multilabel
    words = set(samples.words.tolist()) if samples.words is not None else set()
    if len(arguments.positive) != 1 or not all(word.isdecimal() for word in words):
        return Asked(positive, multilabel)
    return Asked(positive, multilabel, int(tidy_name(arguments.positive[0])), max(map(int, words)) + 1)


def _labels(samples: Samples) -> str:
    if samples.words is None:
        return "masks"
    found = pd.DataFrame({"class": samples.label, "word": samples.words}).value_counts().sort_index()
    each = [f"{word} ({count})" for (_, word), count in found.items()]
    of = [", ".join(e for e, (k, _) in zip(each, found.index) if k == value) for value in (0, 1)]
    return f"class 0: {of[0]}; class 1: {of[1]}"


def _order(rows_first: bool) -> str:
    if rows_first:
        return "pictures are read with rows before columns (--rows_first)"
    return "pictures are read as MONAI's LoadImage does, columns before rows; --rows_first for a network of torchvision"


def _sizes(samples: Samples) -> tuple[int, int, int]:
    return len(samples), len(np.unique(samples.subject)), len(np.unique(samples.site))


def _no_layers(network: torch.nn.Module | None) -> str:
    if isinstance(network, NoLayers):
        return "none: of TorchScript and ONNX the predictions alone can be read; torch.export.save keeps the layers"
    return "none" if network is None else "none: nothing was found between input and output; name some by --layers"


def _name(arguments: argparse.Namespace) -> str:
    if arguments.predictions:
        return arguments.predictions.name
    return arguments.network.name if arguments.network else arguments.config_file[0].resolve().parents[1].name


def run_erase(arguments: argparse.Namespace) -> int:
    """
    Args:
        arguments: of the command line.

    Returns:
        0.
    """
    inputs = _open(arguments)
    samples, images, network = inputs.samples, inputs.images, inputs.network
    assert images is not None and network is not None
    if isinstance(network, NoLayers):
        raise ValueError(f"{arguments.network} has no layers that can be changed: give it as torch.export.save does.")
    masks = arguments.segmentation
    options: dict[str, Any] = {"masks": masks, "device": arguments.device}
    asked = _asked(arguments, samples)
    readings = read_network(network, images.batches(), [arguments.layer], asked=asked, **options)
    if arguments.layer not in readings.channels:
        raise ValueError(f"layer {arguments.layer!r} gives no (batch, channels, ...) or tokens: name another one.")
    label = np.zeros(len(samples), int) if masks else samples.label
    told = Told(label, samples.site, samples.subject, not masks)
    eraser = layer_eraser(readings, arguments.layer, told, np.arange(len(samples)))
    example = next(iter(images.batches()))["image"][:2]
    layer = layer_prefix(network) + arguments.layer
    told_after = ""
    if not masks:
        changes = {arguments.layer: eraser.to(arguments.device)}
        options |= {"changes": changes, "form": readings.form}
        after = read_network(network, images.batches(), (), **options).score
        told_after = _task_after(samples.label, readings.score, after)
    files = write_erased(network.cpu(), layer, eraser.cpu(), example, arguments.out)
    assert readings.form is not None
    alone = ", which alone is written" if readings.form.returned > 1 else ""
    print(f"output read: {readings.form.said()}{alone}.")
    print(f"{int(eraser.rank)} of {len(eraser.offset)} directions of {arguments.layer} are erased: written to {files}")
    print(told_after, end="")
    return 0


def _task_after(label: np.ndarray, before: np.ndarray, after: np.ndarray) -> str:
    """What an erasure has left of the task, on the images that it is fitted to."""
    aurocs = [float(roc_auc_score(label, score)) for score in (before, after)]
    told = f"AUROC of the predictions on these images: {aurocs[0]:.3f} before, {aurocs[1]:.3f} after.\n"
    told += f"{of_other_class(aurocs[0])}\n" if aurocs[0] < 0.5 else ""
    if abs(aurocs[1] - 0.5) < abs(aurocs[0] - 0.5) / 2:
        told += (
            "Most of what the network tells of the label is gone with the site: try another layer; audit shows each.\n"
        )
    return told
