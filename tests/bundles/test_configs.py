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

"""The bundles' configs can be read by a person: few lines, few expressions, nothing said twice."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, create_workflow
from monai.bundle.reference_resolver import ReferenceResolver

from monai_armed.bundle.config_ids import references

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(ROOT.glob("bundles/*/configs/*.json"))
BUNDLES = sorted(ROOT.glob("bundles/*"))
NO_MODELS = (
    "train",
    "evaluate",
    "inference",
    "multi_gpu_train",
    "saliency",
    "compare",
    "metadata",
    "search",
    "few_cells",
)
MODELS = [f for f in FILES if f.stem not in NO_MODELS]
INITIALIZE = {"_target_": "monai_armed.bundle.prepare_run"}
MOST_LINES = 5515 // 2
MOST_EXPRESSIONS = 60
TRAINING_ALONE = ("mldg", "unaugmented", "balanced", "group_dro", "vrex", "coral")  # the network is another file's
COMPLEX = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def name(file: Path) -> str:
    return f"{file.parents[1].name}/{file.stem}"


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def ids_and_values(config: Any, id: str = "") -> Iterator[tuple[str, Any]]:
    yield id, config
    if isinstance(config, (dict, list)):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from ids_and_values(value, f"{id}#{key}" if id else str(key))


def expressions() -> set[str]:
    values = [value for file in FILES for _, value in ids_and_values(read(file))]
    return {value for value in values if isinstance(value, str) and value.startswith("$")}


def test_lines_are_few():
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in FILES) <= MOST_LINES


def on_one_line(found: re.Match) -> str:
    opened, closed = found[0][0], found[0][-1]
    short = opened + re.sub(r"\n *", " ", found[1]) + closed
    before = found.start() - found.string.rfind("\n", 0, found.start()) - 1
    return short if before + len(short) <= 118 else found[0]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_format_is_jsons_but_for_short_lists_and_dicts_of_one_entry(file):
    text = json.dumps(read(file), indent=4, ensure_ascii=False)
    text = re.sub(r"\[\s*((?:\"[^\"]*\"|[^][{}\"])*?)\s*\]", on_one_line, text)
    text = re.sub(r"(?<=: )\{\s*(\"[^\"]*\": (?:\"[^\"]*\"|[^][{}\",\s]+))\s*\}", on_one_line, text)
    text = re.sub(r"(?<=\n)( *)\{\s*(\"[^\"]*\": (?:\"[^\"]*\"|[^][{}\",\s]+))\s*\}", r"\1{\2}", text)
    assert file.read_text(encoding="utf-8").strip() == text


def test_expressions_are_few_and_plain():
    found = expressions()
    assert len(found) <= MOST_EXPRESSIONS
    for text in found:
        python = re.sub(r"@[\w#:]+", "x", text[1:])
        assert not [node for node in ast.walk(ast.parse(python, mode="eval")) if isinstance(node, COMPLEX)], text


@pytest.mark.parametrize("file", FILES, ids=name)
def test_nothing_is_overridden_by_its_number_in_a_list(file):
    assert not [id for id in read(file) if re.search(r"(#|::)\d+(#|::|$)", id)]


@pytest.mark.parametrize("file", [f for f in FILES if "run" in read(f)], ids=name)
def test_initialize_is_one_line_the_same_everywhere(file):
    assert read(file)["initialize"] == INITIALIZE


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda folder: folder.name)
def test_the_network_of_inference_is_that_of_training(bundle):
    train, inference = (read(bundle / "configs" / f"{file}.json") for file in ("train", "inference"))
    pending, seen = ["model", "z_predictor::network_def"], set()
    while pending:
        id = pending.pop()
        seen.add(id)
        parts: list = [_at(config, id) for config in (train, inference)]
        if None in parts or id in ("sites", "batches", "clusters", "features"):
            continue  # names come from the data in training, from the record in inference
        assert parts[0] == parts[1], f"{id} differs"
        pending += references(parts[0]) - seen
    assert "model" in seen and len(seen) > 3


def _at(config: dict[str, Any], id: str) -> Any:
    part: Any = config
    for key in ReferenceResolver.split_id(id):
        part = part.get(key) if isinstance(part, dict) else None
    return part


@pytest.mark.parametrize("file", MODELS, ids=name)
def test_a_model_is_said_once_for_training_evaluation_and_inference(file):
    workflows = [("train",), ("train", "evaluate"), ("inference",)]
    for before in workflows[:2] if file.stem in TRAINING_ALONE else workflows:
        parser = ConfigParser()
        parser.read_config([str(file.parent / f"{other}.json") for other in (*before, file.stem)])
        assert parser["model"] is not None


@pytest.mark.parametrize("bundle", ["armed_mci", "armed_spirals"])
@pytest.mark.parametrize("step", ["train", "evaluate", "inference"])
def test_properties_that_tools_look_for(bundle, step, tmp_path):
    names = ["train", "evaluate"] if step == "evaluate" else [step]
    files = [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names]
    kind = "infer" if step == "inference" else "train"
    options = {"workflow_type": kind, "logging_file": False, "output_dir": str(tmp_path)}
    assert not create_workflow(config_file=files, **options).check_properties()


@pytest.mark.parametrize("bundle", ["armed_ad_mri", "armed_cell_aec"])
def test_an_image_whose_cluster_is_not_named_is_of_an_unknown_one(bundle):
    """As the audit gives it to the bundle's preprocessing: a list's column of the site may be called otherwise."""
    parser = ConfigParser(globals=False)
    parser.read_config(str(ROOT / "bundles" / bundle / "configs" / "inference.json"))
    cluster = {**parser["cluster"], "clusters": ["a", "b"], "unknown": "unknown"}
    parser.update({"cluster": cluster})
    assert parser.get_parsed_content("cluster")({"image": 1}) == {"image": 1}


@pytest.mark.parametrize("bundle", ["armed_ad_mri", "armed_cell_aec", "armed_mci"])
def test_a_report_on_data_of_ones_own_does_not_call_them_simulated(bundle):
    about = read(ROOT / "bundles" / bundle / "configs" / "compare.json")
    assert "simulated" not in about["title"]
    assert about["notes"].split(".")[0].count("simulated unless dataset_dir was given") == 1
