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

"""What the server does, by whatever way messages travel."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.replaced_file import replaced_file
from ..handlers.training_checkpoint import read_checkpoint
from .masks import unmasked_sum
from .message import Message
from .shared import average
from .sums import fit_added_up

__all__ = ["federate"]

Ask = Callable[[Message], Mapping[str, Message]]
ATTEMPTS = 3  # at sums of all


def federate(
    ask: Ask, rounds: int, local_epochs: int = 1, say: Callable[[str], None] = print, kept: Path | None = None
) -> dict[str, torch.Tensor]:
    """
    Train across hospitals: in each round every hospital trains what the last one came to on its own samples, and what
    they share is averaged. Then, if the network has erasers, they are fitted to the sums of all, one layer after the
    other, and every hospital fits its random effects anew and writes its model. Of the sums no hospital's own can be
    read here, see :py:class:`monai_armed.federated.masks.Masks`.

    A hospital that does not answer in a round is left out of its average, and takes part again once it answers. In
    fitting an eraser all that took part in a round must answer: the clusters of one that is missing would not be
    erased.

    Args:
        ask: sends a message to all hospitals and returns the answers by the hospital's name.
        rounds: how many averages.
        local_epochs: epochs over its own samples that a hospital trains in each.
        say: shows progress.
        kept: file in which the last average is kept until the training is through: if there is one, of a training that
            was interrupted, it goes on from there. Without a file it starts anew each time.

    Returns:
        what the hospitals share in the end.

    Raises:
        ValueError: when there are no rounds, no hospital answers, one that is needed for the erasure does not, or what
            is kept is of an earlier version.
    """
    for name, number in (("rounds", rounds), ("local_epochs", local_epochs)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    shared, about = _begin(ask, say, kept)
    for number in range(about["rounds"], rounds):
        plan = {"round": number, "epochs": local_epochs, "samples": sum(about["samples"].values())}
        answers = ask(Message("train", shared, plan))
        samples = {name: answer.about["samples"] for name, answer in answers.items()}
        shared = average({name: answer.tensors for name, answer in answers.items()}, samples)
        about = {**about, "rounds": number + 1, "hospitals": sorted({*about["hospitals"], *answers})}
        if kept is not None:
            with replaced_file(kept) as file:
                torch.save({"shared": shared, "about": about}, file)
        say(f"round {number + 1} of {rounds}: {len(answers)} hospitals{_mean_metric(answers)}")
    shared = _erase(ask, say, shared, about)
    finished = ask(Message("finish", shared, {"samples": sum(about["samples"].values())}))
    if missing := sorted({*about["hospitals"]} - set(finished)):
        raise ValueError(f"no model was written by {', '.join(missing)}: start its client, and run this again.")
    say(f"{len(finished)} hospitals have written their models")
    if kept is not None:
        kept.unlink()
    return shared


def _mean_metric(answers: Mapping[str, Message]) -> str:
    """Of the hospitals that have one: an AUROC of validation samples of one class is none."""
    found = [answer.about for answer in answers.values() if not math.isnan(answer.about["metric"])]
    if not found:
        return ""
    mean = sum(about["samples"] * about["metric"] for about in found) / sum(about["samples"] for about in found)
    return f", {found[0]['metric_name']} {mean:.4f} of {len(found)}"


def _begin(ask: Ask, say: Callable[[str], None], kept: Path | None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What is shared before the next round; its layers, the rounds that were, and the hospitals."""
    if kept is not None and kept.is_file():
        found = read_checkpoint(kept)
        if "samples" not in found["about"]:
            raise ValueError(f"{kept} is of an earlier version of monai_armed, which trained otherwise: remove it.")
        say(f"going on after round {found['about']['rounds']}, from {kept}")
        return found["shared"], found["about"]
    started = ask(Message("start"))
    if not started:
        raise ValueError("no hospital has answered: start their clients first.")
    first = started[min(started)]
    samples = {name: answer.about["samples"] for name, answer in started.items()}
    return first.tensors, {"layers": first.about["layers"], "rounds": 0, "hospitals": [], "samples": samples}


def _erase(
    ask: Ask, say: Callable[[str], None], shared: dict[str, torch.Tensor], about: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """What is shared, with erasers that are fitted."""
    for index, layer in enumerate(about["layers"]):
        sums, num_values = _sums_of_all(ask, Message("sums", shared, {"layer": layer}), about["hospitals"])
        eraser = fit_added_up(sums, num_values)
        fitted = {f"erasers.{index}.{name}": value for name, value in eraser.state_dict().items()}
        shared = {**shared, **{name: value.to(shared[name].dtype) for name, value in fitted.items()}}
        say(f"erased {int(eraser.rank)} directions from {layer!r}")
    return shared


def _sums_of_all(ask: Ask, question: Message, hospitals: Collection[str]) -> tuple[dict[str, torch.Tensor], int]:
    """The sums of all that answer; and how many values of a label are among them."""
    layer = question.about["layer"]
    for _ in range(ATTEMPTS):
        keys = {name: answer.about["key"] for name, answer in ask(Message("keys")).items()}
        about = {**question.about, "keys": sorted(keys.values())}
        answers = ask(Message("sums", question.tensors, about))
        if missing := sorted({*hospitals} - set(answers)):
            raise ValueError(f"no sums of layer {layer!r} from {', '.join(missing)}: what tells them cannot be erased.")
        if set(answers) == set(keys) and all(answer.tensors for answer in answers.values()):
            break
    else:
        raise ValueError(f"hospitals have come or gone in each of {ATTEMPTS} sums of layer {layer!r}: run this again.")
    first = answers[min(answers)].about
    if any(answer.about != first for answer in answers.values()):
        raise ValueError(f"sums of layer {layer!r} are of different networks or labels: give all the same config.")
    flat = unmasked_sum([answer.tensors["masked"] for answer in answers.values()])
    parts = flat.split([math.prod(shape) for shape in first["shapes"].values()])
    sums = {name: part.reshape(shape) for part, (name, shape) in zip(parts, first["shapes"].items())}
    return sums, first["num_values"]
