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

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from monai_armed.bundle.model_file import RECORD, read_record

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
    """An edit of the weights in model.pt, whose record stays as it is."""

    def edit(place: Place) -> None:
        path = place.run / "model.pt"
        _write(path, change(torch.load(path, weights_only=True)), json.dumps(read_record(path)))

    return edit


def saved_anew(place: Place) -> None:
    """model.pt as another program leaves it that loads the weights and saves them: without a record."""
    path = place.run / "model.pt"
    torch.save(torch.load(path, weights_only=True), path)


def record_as(text: str) -> Callable[[Place], object]:
    """An edit that puts a text where model.pt has its record."""
    return lambda place: _write(path := place.run / "model.pt", torch.load(path, weights_only=True), text)


def recorded(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], object]:
    """An edit of the record in model.pt."""
    return lambda place: record_as(json.dumps(change(read_record(place.run / "model.pt"))))(place)


def _write(path: Path, weights: object, record: str) -> None:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/{RECORD}", record)
    path.write_bytes(buffer.getvalue())


def without(*keys: str) -> Callable[[dict[str, Any]], object]:
    """A record that lacks something."""
    return lambda record: {key: value for key, value in record.items() if key not in keys}


def fewer_clusters(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a model of other data, with a cluster less."""
    origin = record["provenance"]
    left = {**origin, "clusters": origin["clusters"][1:]}
    return {**record, "clusters": record["clusters"][1:], "provenance": left}


def turned(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose clusters are not in the order of what it says of the training."""
    return {**record, "clusters": record["clusters"][::-1]}


DAMAGED_RECORD: list[tuple] = [
    ("no-record", "weights that were saved anew, without a record", says("no record"), saved_anew),
    ("cut-record", "the record cut short", says("damaged"), record_as('{"clusters": ["002", ')),
    ("empty-record", "a record of 0 bytes", says("damaged"), record_as("")),
    ("null-record", "the record is null", says("record"), record_as("null")),
    ("list-record", "the record is a list", says("record"), record_as("[1, 2]")),
    (
        "lacking-record",
        "a record without what was trained on",
        says("record.*provenance"),
        recorded(without("provenance")),
    ),
    ("nameless-record", "a record without clusters", says("record.*clusters"), recorded(without("clusters"))),
    ("other-record", "the record of a model with a cluster less", says("another|cluster"), recorded(fewer_clusters)),
    ("turned-record", "a record that contradicts itself", says("record.*clusters"), recorded(turned)),
]


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
    *DAMAGED_RECORD,
]


def resumed(other_size: dict[str, object], other_data: Callable[[Place], object]) -> list[tuple]:
    """What is resumed for a third epoch, in a copy of the trained folder, with what differs from the two before."""

    def left(outcome: Outcome) -> None:
        state = torch.load(there(outcome.place), weights_only=True)
        assert state["progress"]["epoch"] == 3, f"it was trained for {state['progress']['epoch']} epochs"

    def there(place: Place) -> Path:
        return place.run / "network" / "checkpoint.pt"

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
