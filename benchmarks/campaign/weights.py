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

"""Weights that are none, and what a training leaves: the same for every bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from .case import Outcome, Place, goes_on, says


def trained(outcome: Outcome) -> None:
    """A check that the training left finite weights."""
    state = torch.load(outcome.place.out / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state.values()), "weights are NaN or infinite"


def weights(content: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    """An edit of the bytes of model.pt."""

    def edit(place: Place) -> None:
        path = place.run / "model.pt"
        path.write_bytes(content(path.read_bytes()))

    return edit


def saved(change: Callable[[dict], object]) -> Callable[[Place], object]:
    """An edit of what model.pt holds."""

    def edit(place: Place) -> None:
        path = place.run / "model.pt"
        torch.save(change(torch.load(path, weights_only=True)), path)

    return edit


class Hostile:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(os.devnull).parent / "shm" / "never",))


def unusual(state: dict) -> dict:
    """The weights with one that is NaN."""
    name = next(key for key, value in state.items() if value.is_floating_point() and value.dim() == 2)
    return {**state, name: torch.full_like(state[name], torch.nan)}


DAMAGED_WEIGHTS: list[tuple] = [
    (
        "no-weights",
        "model.pt does not exist",
        says("there is no (model|checkpoint)"),
        {"ckpt_path": "<folder>/none.pt"},
    ),
    ("weights-null", "ckpt_path null", says("ckpt_path|there is no (model|checkpoint)"), {"ckpt_path": "null"}),
    ("weights-folder", "ckpt_path is a folder", says("there is no (model|checkpoint)|folder"), {"ckpt_path": "<run>"}),
    ("cut-weights", "model.pt cut short", says("damaged"), weights(lambda content: content[: len(content) // 2])),
    ("empty-weights", "model.pt of 0 bytes", says("damaged"), weights(lambda content: b"")),
    ("text-weights", "a web page as model.pt", says("damaged"), weights(lambda content: b"<!DOCTYPE html>")),
    ("pickled-weights", "a pickle that runs code", says("damaged|refused"), saved(lambda s: {**s, "x": Hostile()})),
    ("list-weights", "a list of tensors", says("another|no weights|state"), saved(lambda s: list(s.values()))),
    ("nan-weights", "weights that are NaN", says("NaN|finite"), saved(unusual)),
    ("other-model", "weights of the conventional network", says("another"), {"ckpt_path": "<other>/model.pt"}),
    ("fewer-weights", "one tensor is missing", says("another network"), saved(lambda s: dict(list(s.items())[:-1]))),
]


def resumed(bundle: str, other_size: dict[str, object], other_data: Callable[[Place], object]) -> list[tuple]:
    """What is resumed for a third epoch, in a copy of the trained folder, with what differs from the two before."""
    checkpoint = Path() if bundle == "spirals" else Path("network")

    def left(outcome: Outcome) -> None:
        state = torch.load(outcome.place.run / checkpoint / "checkpoint.pt", weights_only=True)
        assert state["progress"]["epoch"] == 3, f"it was trained for {state['progress']['epoch']} epochs"

    def there(place: Place) -> Path:
        return place.run / checkpoint / "checkpoint.pt"

    def both(place: Place) -> None:
        there(place)
        other_data(place)

    more: dict[str, object] = {"max_epochs": 3}
    differs = "seed|lambda|settings|another|data"
    return [
        ("more-epochs", "a third epoch", goes_on(left), more, there),
        ("other-seed", "another seed", says(differs), more | {"seed": 1}, there),
        ("other-lambda", "another weight of a term", says(differs), more | {"lambda_adversary": 7}, there),
        ("other-size", "another network", says("another"), more | other_size, there),
        ("other-data", "other data", says(differs), more, both),
        (
            "cut-checkpoint",
            "checkpoint cut short",
            says("damaged"),
            more,
            lambda p: there(p).write_bytes(b"PK\x03\x04"),
        ),
        ("empty-checkpoint", "checkpoint of 0 bytes", says("damaged"), more, lambda p: there(p).write_bytes(b"")),
        (
            "weights-as-checkpoint",
            "weights in the place of the checkpoint",
            says("checkpoint"),
            more,
            lambda p: there(p).write_bytes((there(p).parent / "model.pt").read_bytes()),
        ),
    ]
