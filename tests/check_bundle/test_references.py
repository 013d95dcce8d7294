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
"""References that lead nowhere, in configs alone and merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_armed.check_bundle.references import reference_faults

ROOT = Path(__file__).resolve().parents[2]
TRAIN = {
    "size": 3,
    "net": {"in": "@size", "out": 1, "channels": [2, 4]},
    "copy": "%net",
    "train": {"batch": 2, "loader": "$[@#batch, @net#channels#1, @copy::in]", "handlers": [1]},
}
EVALUATE = {"ckpt": "model.pt", "+train": {"more": "@ckpt"}}


def faults(**configs) -> list[tuple[str, str]]:
    return list(reference_faults({f"{name}.json": config for name, config in configs.items()}))


@pytest.mark.parametrize("bundle", sorted(ROOT.glob("bundles/*")), ids=lambda folder: folder.name)
def test_our_references_lead_somewhere(bundle):
    files = bundle.glob("configs/*.json")
    assert not list(reference_faults({f.name: json.loads(f.read_text(encoding="utf-8")) for f in files}))


GOOD = {
    "of train's ids": {"lr": "@size", "net": {"in": 1, "out": "@train#batch", "channels": [1, "@size"]}},
    "of evaluate's": {"path": "$@ckpt + '.txt'"},
    "more of a list and of a dict": {"+train#handlers": ["@size"], "+net": {"bias": "@net#out"}},
    "a part": {"net#channels#1": 5, "train#new": "%train#batch"},
    "of another file": {"x": "%train.json::net#channels"},
    "of metadata": {"x": "@_meta_#version"},
    "text with such a sign": {"mail": "me@home", "share": "50 %"},
    "what standing alone has": {"a": {"b": [1, {"c": 2}]}, "x": "$@a#b#1#c + @#a#b#0"},
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_there_is_found(name):
    assert not faults(train=TRAIN, evaluate=EVALUATE, other=GOOD[name], metadata={"version": "1"})


EVIL = {
    "nothing of the name": ({"x": "@nosuch"}, "x: there is no id 'nosuch', which '@nosuch' refers to"),
    "in an expression": (
        {"x": {"y": ["$@size + @nosuch"]}},
        "x#y#0: there is no id 'nosuch', which '$@size + @nosuch'",
    ),
    "no such part": ({"x": "@net#nosuch"}, "x: there is no id 'net#nosuch'"),
    "no such number": ({"x": "@net#channels#2"}, "x: there is no id 'net#channels#2'"),
    "a part of a value": ({"x": "@size#a"}, "x: there is no id 'size#a'"),
    "a part of a copy": ({"x": "@copy#nosuch"}, "x: there is no id 'copy#nosuch'"),
    "nothing at its side": ({"x": {"y": "@#nosuch"}}, "x#y: there is no id 'x#nosuch'"),
    "above the config": ({"x": "@###y"}, "x: '@###y' leads out of the config"),
    "a macro": ({"x": "%nosuch"}, "x: there is nothing where '%nosuch' refers to"),
    "a macro into a file": ({"x": "%train.json::nosuch"}, "x: there is nothing where '%train.json::nosuch'"),
    "a macro of itself": ({"x": "%x", "y": "@x#a"}, "y: there is no id 'x#a'"),
    "more of nothing": ({"+nosuch": [1]}, "+nosuch: it adds to 'nosuch', which is not there"),
    "more of another kind": ({"+net": [1]}, "+net: it adds to 'net', which is not there or of another kind"),
    "a part of nothing": ({"nosuch#a": 1}, "nosuch#a: it overrides a part of 'nosuch', which is not there"),
    "a part of a number": ({"size#a": 1}, "size#a: it overrides a part of 'size'"),
    "beyond a list": ({"train#handlers#4": 1}, "train#handlers#4: it overrides a part of 'train#handlers'"),
    "what others refer to is gone": ({"net": None}, "train#loader: there is no id 'net#channels#1'"),
}


@pytest.mark.parametrize("name", EVIL)
def test_what_is_not_there_is_named(name):
    config, said = EVIL[name]
    found = faults(train=TRAIN, evaluate=EVALUATE, other=config)
    assert any(file == "other.json" and fault.startswith(said) for file, fault in found), found
    assert {file for file, _ in found} == {"other.json"}


def test_the_order_is_said_and_a_whole_config_stands_alone():
    ((_, fault),) = faults(train=TRAIN, other={"x": "@net", "y": "@nosuch"})
    assert fault.endswith("'@nosuch' refers to (after train.json)")
    assert [file for file, _ in faults(train=TRAIN, inference={"x": "@net"})] == ["inference.json"]
    assert not faults(train=TRAIN, search={"x": "@nosuch"}, compare={"+nosuch": 1})  # no configs of MONAI's
