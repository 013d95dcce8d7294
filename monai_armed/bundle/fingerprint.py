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

"""What tells one training from another, by name: settings, data and clusters; not how long or where it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser

from monai_armed.bundle.caller import calling_parser
from monai_armed.bundle.config_ids import references
from monai_armed.bundle.tracking import without_trackers

__all__ = ["fingerprint"]

LENGTHS = {"max_epochs", "z_predictor::max_epochs", "patience", "resume"}
MACHINE = {"device", "amp", "num_workers", "rank", "bundle_root", "fixed_path"}
PATHS = ("_dir", "_path")


def fingerprint(provenance: Mapping[str, Any], root: str = "training") -> dict[str, str]:
    """
    Fingerprint of the training, or prediction, whose config is being read.

    Args:
        provenance: what it is trained and validated on, as JSON can hold it.
        root: id of the config whose references are all that it depends on.

    Returns:
        a text for each setting by its id and for each part of the provenance. Settings are as the config gives them
        and not what they come to, so that another folder or another number of epochs is the same training.
    """
    parser = calling_parser()
    settings = {} if parser is None else dict(_settings(parser, root))
    return {**settings, **{f"the data's {name}": _text(value) for name, value in provenance.items()}}


def _settings(parser: ConfigParser, root: str) -> Iterator[tuple[str, str]]:
    """All that the root depends on, by the id of each single value."""
    pending, known = [root], {root}
    while pending:
        id = pending.pop(0)
        if id in LENGTHS | MACHINE or id.endswith(PATHS):
            continue
        value = without_trackers(parser.get(id))
        yield from _leaves(id, value)
        found = {other for other in references(value) if other in parser} - known
        pending += sorted(found)
        known |= found


def _leaves(id: str, value: Any) -> Iterator[tuple[str, str]]:
    if id in LENGTHS | MACHINE:
        return
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(f"{id}::{key}", part)
        return
    yield id.replace("::", "#"), _text(value)


def _text(value: Any) -> str:
    """A value as JSON; of a long one its hash, of an object that a program has put there its type."""
    text = json.dumps(value, default=lambda other: f"<{type(other).__name__}>")
    return text if len(text) <= 60 else hashlib.sha256(text.encode()).hexdigest()[:16]
