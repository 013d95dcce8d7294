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

"""A record of what crosses, for whoever answers for the data."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

from .message import Message

__all__ = ["recorded"]


def recorded(ask: Callable[[Message], Mapping[str, Message]], path: Path) -> Callable[[Message], Mapping[str, Message]]:
    """
    Write down the name and shape of every tensor, and the name of every number, that a server sends or gets.

    Args:
        ask: sends a message to all hospitals and returns the answers by the hospital's name.
        path: a CSV file, of rows of kind, sender, name, shape; what is in it already stays.

    Returns:
        the same, with the record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        path.write_text("kind,sender,name,shape\n", encoding="utf-8")

    def ask_and_record(message: Message) -> Mapping[str, Message]:
        answers = ask(message)
        with open(path, "a", encoding="utf-8", newline="") as file:
            for sender, crossed in {"server": message, **answers}.items():
                names = {name: "x".join(map(str, tensor.shape)) for name, tensor in crossed.tensors.items()}
                for name, shape in {**names, **dict.fromkeys(crossed.about, "")}.items():
                    csv.writer(file).writerow([crossed.kind, sender, name, shape])
        return answers

    return ask_and_record
