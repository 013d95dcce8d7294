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
"""What the numbers that a network gives are: logits or probabilities, of one softmax or each of a label of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

__all__ = ["Asked", "MapScores", "OutputForm", "class_form", "score_of"]

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Asked:
    """
    What a user says of the outputs.

    Attributes:
        positive: which of several is that of class 1; None: not said.
        multilabel: whether each is of a label of its own; None: where they are probabilities, their sums tell.
        label: the whole number that is class 1 in the data list, where labels are such numbers.
        labels: these go from 0 to below that.
    """

    positive: int | None = None
    multilabel: bool | None = None
    label: int | None = None
    labels: int = 0


@dataclass(frozen=True)
class OutputForm:
    """
    How outputs are read.

    Attributes:
        outputs: how many there are.
        positive: which of them is that of class 1.
        independent: whether each is of a label of its own, as those of sigmoids are; else they are of one softmax.
        probabilities: whether they are, or logits.
        maps: whether they are maps, of a network that segments.
        returned: of how many things that the network returns they are the first.
    """

    outputs: int
    positive: int
    independent: bool
    probabilities: bool
    maps: bool = False
    returned: int = 1

    def said(self) -> str:
        """How they are read, and how that is changed."""
        first = f"; the first of {self.returned} things that the network returns" if self.returned > 1 else ""
        return self._read() + first

    def _read(self) -> str:
        kind = "probabilities, as all are between 0 and 1" if self.probabilities else "logits"
        which, last = f"output {self.positive} of 0 to {self.outputs - 1}", "map" if self.maps else "output"
        if self.outputs == 1:
            above = f", foreground above {0.5 if self.probabilities else 0}" if self.maps else ""
            return f"one {last}, of {kind}{above}"
        if self.independent:
            not_one = " and do not have the sum 1" if self.probabilities else ""
            return f"{which} on its own, of {kind}{not_one} (--no-multilabel: as one of a softmax)"
        which = f"{self.outputs} maps, of which 0 is the background" if self.maps else which
        return f"{which}, {kind} of one softmax (--multilabel: each {last} on its own)"


def _form(outputs: int, asked: Asked, inside: bool, sum_is_one: bool, maps: bool = False) -> OutputForm:
    """The form of outputs that are all between 0 and 1 or not, and have the sum 1 or not."""
    independent = outputs > 1 and (inside and not sum_is_one if asked.multilabel is None else asked.multilabel)
    probabilities = inside and (outputs == 1 or independent or sum_is_one)
    positive = asked.positive
    if positive is not None and not 0 <= positive < max(outputs, 2):
        raise ValueError(f"--positive_output {positive} is none of the network's outputs, 0 to {outputs - 1}.")
    if outputs == 1 or (maps and not independent):
        positive = 0
    elif positive is None and asked.label is not None and not independent and asked.labels <= outputs:
        positive = asked.label
    elif positive is None and outputs == 2 and not independent:
        positive = 1
    elif positive is None:
        apart = " that are each of a label of its own" if independent else ""
        raise ValueError(
            f"the network has {outputs} outputs{apart}: say by --positive_output which of them, counted from 0, is "
            "that of class 1" + (", and by --multilabel whether each is of a label of its own." if not apart else ".")
        )
    return OutputForm(outputs, positive, independent, probabilities, maps)


def class_form(output: torch.Tensor, asked: Asked) -> OutputForm:
    """
    Args:
        output: of a classifier for all samples (N, K).
        asked: what is said of it.

    Raises:
        ValueError: when it is of another shape, not finite, or it cannot be told which output is that of class 1.
    """
    if output.ndim != 2:
        raise ValueError(
            f"the network gives {tuple(output.shape)}: a classifier's logits are (samples, classes); of a network that "
            "segments say --segmentation."
        )
    if not output.isfinite().all():
        raise ValueError(f"{int((~output.isfinite()).any(1).sum())} of {len(output)} predictions are not finite.")
    return _form(output.shape[1], asked, _inside(output), _sum_is_one(output))


def _inside(output: torch.Tensor) -> bool:
    return bool(((output >= 0) & (output <= 1)).all())


def _sum_is_one(output: torch.Tensor) -> bool:
    tolerance = 1e-2 if output.dtype in HALF else 1e-3
    return bool(((output.double().sum(1) - 1).abs() < tolerance).all())


def score_of(output: torch.Tensor, form: OutputForm) -> torch.Tensor:
    """
    Logit of class 1 (N,) from what a classifier gives for all samples.

    Args:
        output: (N, K).
        form: how it is read.
    """
    output, k = output.double(), form.positive
    if form.outputs == 1 or form.independent:
        return output[:, k].logit(1e-7) if form.probabilities else output[:, k]
    log_probability = output.clamp(min=1e-7).log() if form.probabilities else output.log_softmax(1)
    others = torch.cat([log_probability[:, :k], log_probability[:, k + 1 :]], 1)
    return log_probability[:, k] - others.logsumexp(1)


class MapScores:
    """
    Size and Dice of what a network segments, batch by batch. Whether it gives logits or probabilities is known when all
    batches were seen: until then the pixels are counted for each form.

    Args:
        asked: what is said of the output.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.counts: list[Mapping[str, torch.Tensor]] = []  # found, true, and both pixels, (B, 3)
        self.outputs, self.inside, self.sum_is_one = 0, True, True

    def add(self, output: torch.Tensor, mask: torch.Tensor) -> None:
        """
        Args:
            output: (B, K, *spatial).
            mask: (B, 1, *spatial), above 0 the foreground; or one for each of several labels, (B, K, *spatial).

        Raises:
            ValueError: when the shapes do not match, or the output is not finite.
        """
        mask = mask.to(output.device)
        if output.ndim != mask.ndim or output.shape[2:] != mask.shape[2:]:
            raise ValueError(
                f"the network gives maps {tuple(output.shape)}, the masks are {tuple(mask.shape)}: (batch, channels, "
                "*spatial) with as many pixels are needed."
            )
        if not output.isfinite().all():
            raise ValueError(f"{int((~output.isfinite()).sum())} values of the network's maps are not finite.")
        self.outputs = output.shape[1]
        self.inside = self.inside and _inside(output)
        self.sum_is_one = self.sum_is_one and _sum_is_one(output)
        k = min(self.asked.positive or 0, self.outputs - 1)
        if mask.shape[1] not in (1, self.outputs):
            raise ValueError(f"masks have {mask.shape[1]} channels, as colour pictures have: one of a mask is needed.")
        of_one = mask.shape[1] == 1
        true = (mask if of_one else mask[:, k : k + 1]).flatten(1) > 0
        any_true = true if of_one else (mask[:, 1:] > 0).any(1).flatten(1)
        own, best = output[:, k].flatten(1), output.argmax(1).flatten(1)
        forms = {"logits": (own > 0, true), "probabilities": (own > 0.5, true), "softmax": (best > 0, any_true)}
        self.counts.append(
            {n: torch.stack([f.sum(1), t.sum(1), (f & t).sum(1)], 1).cpu() for n, (f, t) in forms.items()}
        )

    def read(self, form: OutputForm | None = None) -> tuple[OutputForm, torch.Tensor, torch.Tensor]:
        """
        Args:
            form: how the output is read; None: as what was seen of it says.

        Returns:
            the form, the log of predicted over true foreground pixels (N,), and Dice (N,).
        """
        form = form or _form(self.outputs, self.asked, self.inside, self.sum_is_one, maps=True)
        one = form.independent or form.outputs == 1
        name = ("probabilities" if form.probabilities else "logits") if one else "softmax"
        found, true, both = torch.cat([counts[name] for counts in self.counts]).unbind(1)
        return form, torch.log((found + 1) / (true + 1)), 2 * both / (found + true)
