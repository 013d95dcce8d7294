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

"""A bundle as the comparison runner sees it.

What a bundle must offer (ids in its configs; the bundles of this repository all do):

- ``configs/train.json``: ``partitions``, a dict with the MONAI data lists ``"train"``, ``"val"`` and ``"test"`` of seen
  clusters and, if there is such data, ``"unseen"``; all samples have a binary ``label`` (-1 where it is not known, as
  the bundle's loss then leaves out) and the name or index of their cluster. The folds get these lists and the
  plain values beside them from a JSON file, not a simulator's objects.
  ``training``, a :py:class:`monai_armed.bundle.Training`; ``seed``, ``ckpt_dir`` and ``output_dir``.
- ``configs/evaluate.json``, an override of it: ``ckpt_path``, the weights; ``validate#evaluator``, which does not
  decollate; ``validate#dataloader``, batches of ``partitions['test']``, and, if there is such data,
  ``unseen_dataloader``; ``predictions``, the ways to prepare a batch by name, the first of which is the model's own
  prediction. In place of these three or beside them,
  for what is not measured by logits alone, ``scores``: a list of figures, each a dict of ``partition``, ``metric``,
  ``value`` and ``prediction`` (the first one's is the model's own) or, for what every model's fold gives alike, such as
  a ceiling, ``model``, the name of a row of its own. They are asked for after the predictions have been written to
  ``predictions.csv`` in ``output_dir``. ``audit``, a :py:class:`monai_armed.handlers.ClusterAudit`, where
  hyperparameters are chosen by the leak.
- for every other model an override file ``configs/<model>.json``, the last one in training and in evaluation. Names
  joined by ``+`` are a model of several of them, in this order, such as ``conventional+augmented``; ``armed`` among
  them stands for ``train.json``.
- ``configs/compare.json``, optional, overrides ``DEFAULTS`` below, each of which has its meaning beside it; and
  ``configs/published.csv``, optional, values to compare with: rows of setting, partition, metric, model, value, low,
  high.
- for networks trained stacked: ``validate#preprocessing``, without anything random (what it learns from the data comes
  from ``@partitions['train']``), and ``train#trainer`` with ``torch.optim.Adam`` and a data loader that drops the last
  batch; ``warm_up`` (a :py:class:`monai_armed.handlers.ReversalWarmUp`) if there is one. The best epoch is that of the
  smallest validation loss, and its weights are put where ``checkpoint#folder`` says, from where ``training`` finishes
  the model of each fold.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.bundle import ConfigParser

from monai_armed.bundle.config_ids import bundle_ids
from monai_armed.bundle.config_values import check_values, check_whole_numbers
from monai_armed.data.reading import READING
from monai_armed.data.splits import check_several_clusters
from monai_armed.metrics.youden import youden_metrics

__all__ = ["BASE_MODEL", "Samples", "StudyBundle", "evaluated", "seen_samples"]

BASE_MODEL = "armed"  # the model that train.json trains without any override
DEFAULTS: dict[str, Any] = {
    "title": "Comparison of models",
    "notes": "",
    "models": [BASE_MODEL],  # names, in the order of the table
    "settings": {},  # values by id under all combinations of which everything is repeated
    "split": "grouped",  # stratified (class x cluster), grouped, or monte_carlo
    "label_key": "label",
    "cluster_key": "site",
    "group_key": "subject",  # grouped and monte_carlo keep its samples together
    "metrics": ["auroc", "balanced_accuracy"],  # the first one, higher is better, chooses between hyperparameters
    "choose_by": "score",  # or "leak": the lowest one within a standard error of the best score, for all models
    "threshold": 0.5,  # of the probability; or "youden", the best point on the test samples themselves
    "percent": False,
    "stacked": False,  # train all folds of a model at once
    "evaluation": ["evaluate"],  # names of the override files of an evaluation
    "hospital": {},  # values by id of a simulated hospital: @partitions are its own samples, @whole those of all
}
CHOICES = ("score", "leak")
NO_MODELS = ("train", "evaluate", "inference", "metadata", "compare", "search", "multi_gpu_train")


def _combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def seen_samples(partitions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All samples of seen clusters, in the order that fold indices refer to."""
    return [item for name in ("train", "val", "test") for item in partitions[name]]


@dataclass
class Samples:
    """The pooled samples of one setting; groups are those that a split keeps together, if the data have any."""

    partitions: dict[str, Any]
    label: np.ndarray
    cluster: np.ndarray
    group: np.ndarray | None

    @property
    def seen(self) -> list[dict[str, Any]]:
        """All samples of seen clusters, in the order that fold indices refer to."""
        return seen_samples(self.partitions)


@dataclass(frozen=True)
class StudyBundle:
    """
    A bundle with the overrides that hold for the whole comparison.

    Args:
        root: folder of the bundle.
        variant: names of override files that hold for every model, such as ``"paper"``.
        overrides: config values by id that hold for every model.
        only: values that a setting must have to be taken, such as ``{"simulation": 2}``.

    Raises:
        FileNotFoundError: when the folder is no such bundle or a variant has no override file.
    """

    root: Path
    variant: Sequence[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("train", "evaluate", "metadata"):
            if not self._file(name).is_file():
                raise FileNotFoundError(f"'{self.root}' is not a bundle to be compared: {self._file(name)} is missing.")
        for name in self.variant:
            if not self._file(name).is_file():
                raise FileNotFoundError(f"there is no variant '{name}': {self._file(name)} is missing.")

    def _file(self, name: str) -> Path:
        return self.root / "configs" / f"{name}.json"

    @property
    def options(self) -> dict[str, Any]:
        """``DEFAULTS`` with what ``configs/compare.json`` says."""
        given = ConfigParser.load_config_file(self._file("compare")) if self._file("compare").is_file() else {}
        if unknown := sorted(set(given) - set(DEFAULTS)):
            raise ValueError(f"{self._file('compare')} has the unknown keys {unknown}: known are {list(DEFAULTS)}.")
        options = {**DEFAULTS, **given}
        options["settings"] = [s for s in _combinations(options["settings"]) if dict(s, **self.only) == s]
        if options["choose_by"] not in CHOICES:
            raise ValueError(
                f"{self._file('compare')}: choose_by must be one of {CHOICES}, got '{options['choose_by']}'."
            )
        if not options["settings"]:
            raise ValueError(f"{self.root} has no setting with {dict(self.only)} in its compare.json.")
        return options

    @property
    def published(self) -> pd.DataFrame | None:
        """Values to compare with; None where there are none."""
        path = self.root / "configs" / "published.csv"
        return pd.read_csv(path) if path.is_file() else None

    def models(self, asked: str) -> list[str]:
        """Names of the models asked for: ``"all"``, or names joined by commas.

        Raises:
            ValueError: when there is no such model.
        """
        known = self.options["models"]
        names = list(known) if asked == "all" else [name.strip() for name in asked.split(",")]
        for name in (part for model in names for part in model.split("+")):
            if name != BASE_MODEL and (name in NO_MODELS or not self._file(name).is_file()):
                files = sorted(path.stem for path in self.root.glob("configs/*.json"))
                all_names = list(dict.fromkeys([*known, *(name for name in files if name not in NO_MODELS)]))
                raise ValueError(f"there is no model '{name}' in {self.root}: it has {all_names}.")
        return names

    def search(self, model: str) -> list[dict[str, Any]]:
        """
        Hyperparameter candidates of a model, dicts of overrides; may be empty. They are all combinations of the values
        that ``configs/search.json`` lists for each id under the model's name, or else under ``"all"``.
        """
        path = self._file("search")
        grids = ConfigParser.load_config_file(path) if path.is_file() else {}
        grid = grids.get(model, grids.get("all", {}))
        return _combinations(grid) if grid else []

    def config(self, kind: str, model: str, *overrides: Mapping[str, Any]) -> ConfigParser:
        """
        The config of a model, not yet evaluated.

        Args:
            kind: ``"train"`` or ``"evaluate"``. In training an override of what only evaluation has is left out.
            model: name of the model.
            overrides: values by id, such as those of a setting; later ones win.

        Raises:
            ValueError: when an override has an id in neither, or a value that is none for its id.
        """
        parser, other, configs = self._read(kind, model), None, self.root / "configs"
        for values in (self.overrides, *overrides):
            for name, value in values.items():
                if name in READING and "reading" in parser:
                    parser["reading"] = {**parser["reading"], name: value}
                    continue
                if name in parser:
                    parser[name] = value
                    continue
                other = self._read("evaluate", model) if other is None else other
                if name not in other:
                    files = " nor ".join(str(self._file(file)) for file in ("train", *self.options["evaluation"]))
                    close = difflib.get_close_matches(name, [id.replace("::", "#") for id in bundle_ids(configs)], 1)
                    hint = f": did you mean '{close[0]}'?" if close else "."
                    raise ValueError(f"there is no id '{name}' to be overridden: neither {files} has it{hint}")
        assert isinstance(parser.config, dict)
        check_values(parser.config, configs)
        check_whole_numbers(parser)
        return parser

    def _read(self, kind: str, model: str) -> ConfigParser:
        names = ["train", *(self.options["evaluation"] if kind == "evaluate" else []), *self.variant]
        parser = ConfigParser()
        names += [name for name in model.split("+") if name != BASE_MODEL]
        parser.read_config([str(self._file(name)) for name in names])
        parser["bundle_root"] = str(self.root.resolve())
        return parser

    def samples(self, setting: Mapping[str, Any]) -> Samples:
        """
        All samples of a setting, checked.

        Raises:
            ValueError: when the bundle has no partitions, no clusters or a single one, no groups to keep together, or
                other labels than 0, 1 and beside both -1.
        """
        options, parser = self.options, self.config("train", BASE_MODEL, setting)
        partitions = evaluated(parser, "partitions") if "partitions" in parser else {}
        if not isinstance(partitions, dict) or not {"train", "val", "test"} <= set(partitions):
            raise ValueError(f"{self._file('train')} has no id 'partitions' with 'train', 'val' and 'test'.")
        samples = Samples(partitions, np.empty(0), np.empty(0), None)
        seen = samples.seen
        key = options["cluster_key"]
        if not all(key in item for item in seen):
            raise ValueError(
                f"the bundle {self.root} has no clusters: its samples have the keys {list(seen[0])}, not '{key}'; name "
                "another cluster_key in configs/compare.json, or compare models on clustered data."
            )
        samples.cluster = np.array([item[key] for item in seen])
        check_several_clusters(np.unique(samples.cluster).tolist(), key, f"the bundle {self.root}")
        samples.label = np.array([int(np.ravel(item[options["label_key"]])[0]) for item in seen])
        if (found := set(samples.label.tolist())) - {0, 1} and found != {-1, 0, 1}:
            raise ValueError(
                f"labels must be 0 or 1 (-1 where not known), the samples of {self.root} have {sorted(found)[:5]}."
            )
        if all(options["group_key"] in item for item in seen):
            samples.group = np.array([item[options["group_key"]] for item in seen])
        return samples

    def measure(self, label: np.ndarray, score: np.ndarray) -> dict[str, float]:
        """Metrics of logits (N,) at the threshold of the options."""
        from monai_armed.metrics.comparison import binary_metrics

        threshold = self.options["threshold"]
        probability = 1 / (1 + np.exp(-np.clip(score, -500, 500)))
        if threshold != "youden":
            return binary_metrics(label, probability, threshold)
        if len(np.unique(label)) < 2:
            return dict.fromkeys(("auroc", "balanced_accuracy", "sensitivity", "specificity"), float("nan"))
        return {name: value for name, value in youden_metrics(label, probability).items() if name != "threshold"}


def evaluated(parser: ConfigParser, name: str) -> Any:
    """An id's value; an error of ours inside it comes out as it is, not in MONAI's wrapping."""
    try:
        return parser.get_parsed_content(name)
    except RuntimeError as error:
        cause = error.__cause__
        while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause if isinstance(cause, (ValueError, OSError)) else error from None
