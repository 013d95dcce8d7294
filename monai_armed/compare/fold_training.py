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

"""Training of folds from a bundle's configs: as one stack, or one by one through the bundle's trainer."""

from __future__ import annotations

import contextlib
import io
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.utils import set_determinism

from monai_armed.bundle.config_ids import references
from monai_armed.bundle.plain_errors import sentence_of
from monai_armed.compare.fold_scoring import score_fold
from monai_armed.compare.fold_task import FoldTask, fold_config, load_samples
from monai_armed.compare.stacked import train_stacked
from monai_armed.compare.stacked_jobs import Job, Recipe, Trained
from monai_armed.compare.study_bundle import StudyBundle, seen_samples
from monai_armed.data.replaced_file import replaced_file, write_text
from monai_armed.engines.mldg_trainer import MLDGTrainer

__all__ = ["train_and_score"]


def train_and_score(
    bundle: StudyBundle,
    tasks: Sequence[FoldTask],
    stacked: bool,
    done: Callable[[FoldTask, str], None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """
    Train folds, and save the metrics of each as soon as it is scored. Weights that are there are not trained again, and
    a training of one fold that was interrupted goes on from its last epoch; that of a stack starts anew.

    Args:
        bundle: the bundle.
        tasks: the folds.
        stacked: whether to train them as one stack.
        done: called for each fold with an error message, empty if all went well.
        progress: called with the number of epochs done and to do, while a stack is trained.
    """
    untrained = [task for task in tasks if not task.is_trained(bundle)]
    errors: dict[Path, str] = {task.folder: "" for task in untrained}
    stacked = stacked and all(_can_be_stacked(bundle, task) for task in untrained[:1])  # all are of one model
    if stacked and untrained:
        try:
            stack_errors = _train_stack(bundle, untrained, progress)
        except Exception:  # whatever it is, the folds that it does not concern are to be trained
            stack_errors = [_message(_train_stack_of_one, bundle, task) for task in untrained]
        errors.update(zip(errors, stack_errors))
    for task in tasks:
        error = errors.get(task.folder, "")
        if task.folder in errors and not error:
            error = _message(_finish if stacked else _train_alone, bundle, task)
            if not error:
                task.mark_trained(bundle)
        if not error:
            error = _message(score_fold, bundle, task)
        if error:
            task.folder.mkdir(parents=True, exist_ok=True)
            (task.folder / "error.txt").write_text(error, encoding="utf-8")
        done(task, error.strip().splitlines()[-1] if error else "")


def _can_be_stacked(bundle: StudyBundle, task: FoldTask) -> bool:
    """Whether samples are drawn as in any training, and the loss keeps nothing from one batch to the next."""
    parser = fold_config(bundle, "train", task)
    loss = parser.get("loss")
    if parser.get("train#dataloader#sampler") or not isinstance(loss, dict):
        return not parser.get("train#dataloader#sampler")
    kind = locate(str(loss.get("_target_")))
    return getattr(kind, "stateless", True)


def _message(action: Callable[[StudyBundle, FoldTask], None], bundle: StudyBundle, task: FoldTask) -> str:
    """The traceback of what goes wrong with a fold, and its sentence if it has one; empty if nothing does."""
    try:
        action(bundle, task)
        return ""
    except Exception as error:
        return traceback.format_exc() + sentence_of(error)


def _train_stack_of_one(bundle: StudyBundle, task: FoldTask) -> None:
    (error,) = _train_stack(bundle, [task])
    if error:
        raise RuntimeError(error)


def _train_alone(bundle: StudyBundle, task: FoldTask) -> None:
    """What ``python -m monai.bundle run`` does with the train config; goes on with what was interrupted."""
    parser = fold_config(bundle, "train", task)
    resume = "resume" in parser and task.was_started(bundle)
    if resume:
        parser["resume"] = True
    set_determinism(task.seed)
    try:
        training = parser.get_parsed_content("training")
        # not before: then the folder is claimed, and what an earlier training has left is gone
        training.trainer.add_event_handler(Events.STARTED, lambda: task.mark_started(bundle))
        training.run()
    except ValueError:
        if resume:  # what was left there may be at fault: the next run starts anew
            (task.folder / "started.txt").unlink(missing_ok=True)
        raise


def _finish(bundle: StudyBundle, task: FoldTask) -> None:
    """What the training does once the network's weights are there."""
    parser = fold_config(bundle, "train", task)
    parser["train#handlers"] = []
    torch.manual_seed(task.seed)
    silence = io.StringIO()  # what it says is for a user who trains one model
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        parser.get_parsed_content("training").finish()


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
        folders.append(Path(parser.get_parsed_content("checkpoint#folder")))
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
            seen = seen_samples(load_samples(str(task.samples)))
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
        found = {ref for ref in references(parser[pending.pop()]) if ref in parser} - known
        pending += found
        known |= found
    return target in known


def _save(weights: Path, folder: Path, result: Trained) -> None:
    buffer = io.BytesIO()  # torch.save to a full disk ends the whole program
    torch.save(result.state, buffer)
    with replaced_file(weights / "model.pt") as file:
        file.write_bytes(buffer.getvalue())
    history = {"val_loss": result.val_loss, "best_epoch": result.best_epoch}
    write_text(json.dumps(history), folder / "history.json")


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
