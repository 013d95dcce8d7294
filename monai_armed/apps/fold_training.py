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

"""Training and scoring of folds from a bundle's configs: as one stack, or one by one through the bundle's trainer."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import pickle
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset

from monai_armed.apps.evaluate import collect_predictions
from monai_armed.apps.stacked import Job, Recipe, Trained, train_stacked
from monai_armed.apps.study_bundle import StudyBundle
from monai_armed.engines.mldg_trainer import MLDGTrainer
from monai_armed.metrics.comparison import delong_interval

__all__ = ["FoldTask", "fold_config", "fold_partitions", "train_and_score"]


@dataclass(frozen=True)
class FoldTask:
    """One fold of one model in one setting.

    Args:
        folder: where its weights and results lie.
        model: name of the model.
        setting: overrides of the setting.
        samples: file of the setting's samples, see :py:func:`fold_partitions`.
        parts: indices of its ``"train"``, ``"val"`` and ``"test"`` samples.
        seed: seed of its start, batches and random draws.
        overrides: further config values of this fold, its hyperparameters.
    """

    folder: Path
    model: str
    setting: Mapping[str, Any]
    samples: Path
    parts: Mapping[str, np.ndarray]
    seed: int
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self, bundle: StudyBundle) -> str:
        """Hash of all that the result depends on: configs, samples and parts."""
        digest = hashlib.sha256(self.samples.read_bytes())
        for kind in ("train", "evaluate"):
            config = bundle.config(kind, self.model, self.setting, self.overrides, {"seed": self.seed}).config
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name in sorted(self.parts):
            digest.update(np.asarray(self.parts[name], np.int64).tobytes())
        return digest.hexdigest()

    def result(self, bundle: StudyBundle) -> pd.DataFrame | None:
        """Its saved metrics; None if there are none, or they come from another config or other samples."""
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            return pd.DataFrame(saved["rows"]) if saved["fingerprint"] == self.fingerprint(bundle) else None
        except (ValueError, KeyError, TypeError):  # cut off while it was written
            return None


@functools.lru_cache(maxsize=4)
def _load(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:  # written by this run, see compare.py
        return pickle.load(file)


def fold_partitions(samples: str, parts: str) -> dict[str, Any]:
    """
    A bundle's ``partitions`` divided anew: what the runner puts in the place of the config's own expression.

    Args:
        samples: file with the pickled partitions.
        parts: JSON file with the indices of the fold's ``"train"``, ``"val"`` and ``"test"`` samples.
    """
    partitions = _load(samples)
    seen = [item for name in ("train", "val", "test") for item in partitions[name]]
    index = json.loads(Path(parts).read_text(encoding="utf-8"))
    return {**partitions, **{name: [seen[i] for i in chosen] for name, chosen in index.items()}}


def fold_config(bundle: StudyBundle, kind: str, task: FoldTask) -> ConfigParser:
    """The config of a fold, with its partitions, seed and folders; not yet evaluated."""
    task.folder.mkdir(parents=True, exist_ok=True)
    parts = task.folder / "parts.json"
    parts.write_text(json.dumps({k: np.asarray(v).tolist() for k, v in task.parts.items()}), encoding="utf-8")
    parser = bundle.config(kind, task.model, task.setting, task.overrides, {"seed": task.seed})
    parser["imports"] = [*parser.get("imports", []), "$from monai_armed.apps.fold_training import fold_partitions"]
    parser["partitions"] = f"$fold_partitions({str(task.samples)!r}, {str(parts)!r})"
    folders = {"output_dir": task.folder, "ckpt_dir": task.folder, "ckpt_path": task.folder / "model.pt"}
    folders["cache_dir"] = task.samples.parent / "cache"
    for name, folder in folders.items():
        if name in parser:
            parser[name] = str(folder)
    return parser


def train_and_score(
    bundle: StudyBundle,
    tasks: Sequence[FoldTask],
    stacked: bool,
    done: Callable[[FoldTask, str], None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """
    Train folds, and save the metrics of each as soon as it is scored.

    Args:
        bundle: the bundle.
        tasks: the folds.
        stacked: whether to train them as one stack.
        done: called for each fold with an error message, empty if all went well.
        progress: called with the number of epochs done and to do, while a stack is trained.
    """
    if stacked:
        try:
            errors = _train_stack(bundle, tasks, progress)
        except Exception:  # whatever it is, the folds that it does not concern are to be trained
            errors = [_message(_train_stack_of_one, bundle, task) for task in tasks]
    for k, task in enumerate(tasks):
        error = errors[k] or _message(_finish, bundle, task) if stacked else _message(_train_alone, bundle, task)
        if not error:
            error = _message(_score, bundle, task)
        if error:
            task.folder.mkdir(parents=True, exist_ok=True)
            (task.folder / "error.txt").write_text(error, encoding="utf-8")
        done(task, error.strip().splitlines()[-1] if error else "")


def _message(action: Callable[[StudyBundle, FoldTask], None], bundle: StudyBundle, task: FoldTask) -> str:
    """The traceback of what goes wrong with a fold, empty if nothing does."""
    try:
        action(bundle, task)
        return ""
    except Exception:
        return traceback.format_exc()


def _train_stack_of_one(bundle: StudyBundle, task: FoldTask) -> None:
    (error,) = _train_stack(bundle, [task])
    if error:
        raise RuntimeError(error)


def _train_alone(bundle: StudyBundle, task: FoldTask) -> None:
    """What ``python -m monai.bundle run`` does with the train config."""
    parser = fold_config(bundle, "train", task)
    parser.parse(True)
    for step in ("initialize", "run"):
        for k in range(len(parser[step])):  # lists of expressions
            parser.get_parsed_content(f"{step}#{k}")


def _finish(bundle: StudyBundle, task: FoldTask) -> None:
    """What the train config does once its trainer, the first expression of ``run``, has left its weights."""
    parser = fold_config(bundle, "train", task)
    if len(parser["run"]) > 1:
        parser["train#handlers"] = []
        torch.manual_seed(task.seed)
    with contextlib.redirect_stdout(io.StringIO()):  # what it says is for a user who trains one model
        for k in range(1, len(parser["run"])):
            parser.get_parsed_content(f"run#{k}")


def _train_stack(
    bundle: StudyBundle, tasks: Sequence[FoldTask], progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Train folds together and save their weights; one error message a fold. What differs in shape goes apart."""
    groups: dict[Any, list[tuple[int, Job]]] = {}
    recipes: dict[Any, Recipe] = {}
    pools: dict[Any, _Pool] = {}
    folders = []
    for k, task in enumerate(tasks):
        parser = fold_config(bundle, "train", task)
        parser["train#handlers"] = []
        parser["validate#handlers"] = []
        torch.manual_seed(task.seed)
        trainer = parser.get_parsed_content("train#trainer")
        folders.append(Path(parser.get_parsed_content("checkpoint#folder") if "checkpoint" in parser else task.folder))
        shapes = tuple((name, value.shape) for name, value in trainer.network.state_dict().items())
        pool = pools.setdefault(shapes, _Pool())
        offset = pool.add(parser, trainer, task)
        recipe = _recipe(parser, trainer, pool.pass_cluster)
        m = recipe.mldg
        mldg = (m.num_meta_test, m.inner_learning_rate, m.beta) if m else ()
        strength = recipe.warm_up(0.1) if recipe.warm_up else 1.0  # tells warm-ups of different rates apart
        key = (shapes, recipe.epochs, recipe.batch_size, mldg, strength)
        recipes.setdefault(key, recipe)
        groups.setdefault(key, []).append((k, _job(trainer, task, offset)))
    errors = [""] * len(tasks)
    for key, members in groups.items():
        image, label, cluster = pools[key[0]].tensors()
        results = train_stacked([job for _, job in members], recipes[key], image, label, cluster, progress)
        for (k, _), result in zip(members, results):
            errors[k] = result.error
            _save(folders[k], tasks[k].folder, result)
    return errors


class _Pool:
    """Inputs, labels and clusters of the samples of all tasks that are trained together."""

    def __init__(self) -> None:
        self.parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.offsets: dict[Any, int] = {}
        self.size = 0
        self.pass_cluster = True

    def add(self, parser: ConfigParser, trainer: Any, task: FoldTask) -> int:
        """
        Add the samples of a task, if they are new; returns the place of the first. Preprocessing that is fitted, one
        whose config refers to ``partitions``, makes them new for every task.
        """
        fitted = _refers(parser, "validate#preprocessing", "partitions")
        key = (task.samples, task.folder if fitted else None)
        if key not in self.offsets:
            partitions = _load(str(task.samples))
            seen = [item for name in ("train", "val", "test") for item in partitions[name]]
            dataset = Dataset(seen, parser.get_parsed_content("validate#preprocessing"))
            batch = next(iter(DataLoader(dataset, batch_size=len(seen))))
            image, target, _, kwargs = trainer.prepare_batch(batch, "cpu", False)
            self.parts.append((image, target["label"], target["cluster"]))
            self.pass_cluster = "cluster" in kwargs
            self.offsets[key] = self.size
            self.size += len(seen)
        return self.offsets[key]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return tuple(torch.cat(kind) for kind in zip(*self.parts))


def _refers(parser: ConfigParser, name: str, target: str) -> bool:
    """Whether a config id refers to another one, directly or through others."""
    pending, known = [name], {name}
    while pending:
        text = json.dumps(parser[pending.pop()], default=str)
        found = {ref for ref in re.findall(r"@([\w#]+)", text) if ref in parser} - known
        pending += found
        known |= found
    return target in known


def _save(weights: Path, folder: Path, result: Trained) -> None:
    weights.mkdir(parents=True, exist_ok=True)
    torch.save(result.state, weights / "model.pt")
    history = {"val_loss": result.val_loss, "best_epoch": result.best_epoch}
    (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")


def _recipe(parser: ConfigParser, trainer: Any, pass_cluster: bool) -> Recipe:
    warm_up = parser.get_parsed_content("warm_up").strength if parser.get("warm_up") else None
    return Recipe(
        loss=trainer.loss_function,
        epochs=trainer.state.max_epochs,
        batch_size=trainer.data_loader.batch_size,
        pass_cluster=pass_cluster,
        warm_up=warm_up,
        mldg=trainer.objective if isinstance(trainer, MLDGTrainer) else None,
    )


def _job(trainer: Any, task: FoldTask, offset: int) -> Job:
    optimizer = trainer.optimizer
    plain = type(optimizer) is torch.optim.Adam and trainer.data_loader.drop_last
    for group in optimizer.param_groups:
        plain = plain and group["betas"] == (0.9, 0.999) and not group["weight_decay"] and not group["amsgrad"]
    if not plain:
        raise ValueError("stacked training needs torch.optim.Adam with its own betas and no decay, and drop_last.")
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: rates.get(id(p), 0.0) for name, p in trainer.network.named_parameters() if p.requires_grad}
    weights = getattr(trainer.loss_function, "weights", {})
    train, val = (np.asarray(task.parts[name]) + offset for name in ("train", "val"))
    return Job(trainer.network, train, val, task.seed, named, weights)


def _score(bundle: StudyBundle, task: FoldTask) -> None:
    """Score the saved weights on the test and the unseen samples, and save metrics and predictions."""
    parser = fold_config(bundle, "evaluate", task)
    rows = _own_scores(parser, task) if "scores" in parser else _prediction_scores(bundle, parser, task)
    (task.folder / "error.txt").unlink(missing_ok=True)
    partial = task.folder / "result.json.part"
    partial.write_text(json.dumps({"fingerprint": task.fingerprint(bundle), "rows": rows}), encoding="utf-8")
    partial.replace(task.folder / "result.json")


def _own_scores(parser: ConfigParser, task: FoldTask) -> list[dict[str, Any]]:
    """The figures that the bundle's own ``scores`` gives."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        scores = parser.get_parsed_content("scores")
    first = scores[0]["prediction"]
    return [
        {
            **task.setting,
            "partition": score["partition"],
            "model": task.model if score["prediction"] == first else f"{task.model}, {score['prediction']}",
            "metric": score["metric"],
            "value": float(score["value"]),
        }
        for score in scores
    ]


def _prediction_scores(bundle: StudyBundle, parser: ConfigParser, task: FoldTask) -> list[dict[str, Any]]:
    """Metrics of the logits, by :py:meth:`StudyBundle.measure`; the predictions are saved."""
    evaluators = {"seen": "evaluator", "unseen": "unseen#evaluator"}
    predictions = parser.get_parsed_content("predictions")
    tables, rows = [], []
    for partition, name in evaluators.items():
        if name not in parser:
            continue
        evaluator = parser.get_parsed_content(name)
        for k, (kind, prepare_batch) in enumerate(predictions.items()):
            table = collect_predictions(evaluator, prepare_batch)
            row_name = task.model if k == 0 else f"{task.model}, {kind}"
            tables.append(table.assign(model=row_name, partition=partition))
            key = {**task.setting, "partition": partition, "model": row_name}
            rows += [{**key, "metric": m, "value": v} for m, v in _metrics(bundle, table).items()]
    pd.concat(tables, ignore_index=True).to_csv(task.folder / "predictions.csv", index=False)
    return rows


def _metrics(bundle: StudyBundle, table: pd.DataFrame) -> dict[str, float]:
    """Metrics over all samples, DeLong's interval, and the worst cluster's metrics."""
    label, score = table["label"].to_numpy(), table["score"].to_numpy()
    metrics = bundle.measure(label, score)
    if min(label.sum(), (1 - label).sum()) > 1:
        _, metrics["auroc_low"], metrics["auroc_high"] = delong_interval(label, score)
    cluster = bundle.options["cluster_key"]
    if cluster in table:
        groups = [group for _, group in table.groupby(cluster)]
        each = pd.DataFrame([bundle.measure(g["label"].to_numpy(), g["score"].to_numpy()) for g in groups])
        metrics.update({f"worst_cluster_{name}": float(v) for name, v in each.min(skipna=True).items()})
    return metrics
