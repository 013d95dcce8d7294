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

from __future__ import annotations

import operator

import pytest
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from monai_armed.handlers import EarlyStop

NAN = float("nan")


def epochs_of(scores: list[float], patience: int, resume_after: int = 0, **options) -> int:
    """Number of epochs of a training whose validation gives these scores; interrupted after some of them."""
    compare = options.pop("compare", operator.gt)
    validator = SupervisedEvaluator("cpu", DataLoader(Dataset([0])), None, metric_cmp_fn=compare, decollate=False)
    validator.state.key_metric_name = "score"

    def training(start: int, last: int) -> tuple[Engine, EarlyStop]:
        trainer = Engine(lambda engine, batch: None)
        stop = EarlyStop(validator, patience, **options)

        @trainer.on(Events.STARTED)
        def go_on(engine):
            engine.state.epoch = start

        @trainer.on(Events.EPOCH_COMPLETED)
        def validate(engine):
            validator.state.epoch = engine.state.epoch
            validator.state.metrics = {"score": scores[engine.state.epoch - 1]}

        stop.attach(trainer)
        trainer.state.max_epochs = last
        return trainer, stop

    if resume_after:
        first, stop = training(0, resume_after)
        first.run([1])
        again, other = training(resume_after, len(scores))
        other.load_state_dict(stop.state_dict())
    else:
        again, _ = training(0, len(scores))
    again.run([1])
    return again.state.epoch


@pytest.mark.parametrize(
    ("scores", "patience", "last"),
    [
        ([0.5, 0.6, 0.6, 0.5, 0.7, 0.6], 2, 4),
        ([0.5, 0.6, 0.6, 0.5, 0.7, 0.6], 3, 6),
        ([0.5, 0.6, 0.7, 0.8], 1, 4),
        ([NAN, 0.5, 0.4, 0.6, 0.5, 0.5], 2, 6),  # a first score of NaN is not the best for ever
    ],
)
def test_training_ends_after_so_many_validations_without_improvement(scores, patience, last):
    assert epochs_of(scores, patience) == last


def test_the_validator_says_what_is_better():
    assert epochs_of([3.0, 2.0, 1.0, 1.0], 1, compare=operator.lt) == 4
    assert epochs_of([3.0, 2.0, 1.0, 1.0], 1) == 2


@pytest.mark.parametrize(("first", "last"), [(None, 2), (1, 2), (4, 5)])
def test_epochs_that_do_not_count(first, last):
    assert epochs_of([0.0] * 9, 1, first_epoch=first) == last


@pytest.mark.parametrize("resume_after", [1, 2, 3])
def test_patience_is_not_forgotten(resume_after):
    scores = [0.5, 0.6, 0.6, 0.5, 0.7, 0.6]
    assert epochs_of(scores, 2, resume_after) == 4


def test_no_patience_at_all():
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        EarlyStop(None, 0)
