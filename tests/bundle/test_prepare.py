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

import json
import re

import pytest
from monai.bundle import create_workflow
from monai.bundle.scripts import run

from monai_armed.bundle import find_bundle
from monai_armed.bundle.plain_errors import sentence_of
from monai_armed.bundle.prepare import require_versions

TRAIN = {
    "bundle_root": {"_target_": "monai_armed.bundle.bundle_root"},
    "output_dir": "$@bundle_root + '/output'",
    "seed": 0,
    "max_epochs": 3,
    "lambda_adversary": 1.0,
    "names": None,
    "seen_sites": None,
    "simulated_dir": "data",
    "num_clusters": None,
    "patience": "$7",
    "resume": False,
    "z_predictor": {"max_epochs": 2, "part": {"_target_": "builtins.dict", "a": 1}},
    "adversary": "pooled",
    "initialize": {"_target_": "monai_armed.bundle.prepare_run"},
    "run": "$print('ran')",
}
EVALUATE = {
    "adversary": "$@nothing",
    "initialize": {"_target_": "monai_armed.bundle.prepare_run"},
    "run": "$print(@max_epochs)",
}


@pytest.fixture
def configs(tmp_path):
    folder = tmp_path / "bundle" / "configs"
    folder.mkdir(parents=True)
    for name, content in {"train": TRAIN, "evaluate": EVALUATE, "metadata": {}}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def prepared(configs):
    def parser_with(**options):
        return create_workflow(config_file=str(configs / "train.json"), logging_file=False, **options).parser

    return parser_with


def refused(prepared, **options) -> str:
    with pytest.raises(RuntimeError) as error:
        prepared(**options)
    return sentence_of(error.value)


@pytest.mark.parametrize(
    ("id", "meant"),
    [
        ("max_epoch", "max_epochs"),
        ("lamda_adversary", "lambda_adversary"),
        ("z_predictor#max_epoch", "z_predictor#max_epochs"),
        ("Seed", "seed"),
    ],
)
def test_a_mistyped_id_is_refused_and_the_right_one_named(prepared, id, meant):
    assert refused(prepared, **{id: 5}) == f"there is no id {id!r} in this bundle: did you mean {meant!r}?"


@pytest.mark.parametrize("name", ["armed_ad_mri", "armed_cell_aec", "armed_mci", "armed_spirals"])
@pytest.mark.parametrize("id", ["z_predictor#max_epoch", "train#handlrs", "max_epoch"])
def test_no_bundle_takes_a_mistyped_id(name, id):
    """Also the spirals, which have no Z-predictor: MONAI itself knows no id below one that is not there."""
    config = str(find_bundle(name) / "configs" / "train.json")

    def parser_with(**options):
        return create_workflow(config_file=config, logging_file=False, **options).parser

    assert f"there is no id {id!r} in this bundle: did you mean" in refused(parser_with, **{id: 5})


def test_ids_that_mean_something_are_taken(prepared, configs):
    parser = prepared(
        **{
            "names": {"Dementia": 1, "CN": 0},  # what a user says in place of nothing
            "z_predictor#part#b": 2,  # an argument, which the part itself may refuse
            "factor": 3,
            "lambda_adversary": "$2 * @factor",
        }
    )
    assert parser.get_parsed_content("lambda_adversary") == 6
    assert parser.get_parsed_content("z_predictor#part") == {"a": 1, "b": 2}
    (configs / "model.json").write_text(json.dumps({"extra": 1, "z_predictor#extra": 2}))
    assert prepared(extra=5)["extra"] == 5
    assert "there is no id 'extras'" in refused(prepared, extras=5)


def test_words_of_the_command_line(prepared):
    words = {"adversary": "null", "patience": "None", "resume": "true", "output_dir": 5, "names": [2, "none"]}
    parser = prepared(**words)
    assert parser["adversary"] is None and parser["patience"] is None and parser["resume"] is True
    assert parser["output_dir"] == "5" and parser["names"] == [2, "none"]
    assert prepared(resume="False")["resume"] is False


def test_names_that_are_numbers(prepared):
    parser = prepared(seen_sites=[2, "003"], simulated_dir=["a", 5], num_clusters={"site": 12})
    assert parser["seen_sites"] == ["2", "003"] and parser["simulated_dir"] == ["a", "5"]
    assert parser["num_clusters"] == {"site": 12}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("150312", ["150312"]),
        (150312, ["150312"]),
        ("day 1", ["day 1"]),
        ([], []),
        ((1, "a"), ["1", "a"]),
        ("null", None),
    ],
)
def test_a_single_name_is_a_list_of_one(prepared, given, meant):
    assert prepared(seen_sites=given)["seen_sites"] == meant


def test_an_expression_is_no_name(prepared):
    assert prepared(seen_sites="$['a', 'b']").get_parsed_content("seen_sites") == ["a", "b"]


def test_what_is_said_of_a_table_reaches_reading(configs):
    (configs / "train.json").write_text(json.dumps({**TRAIN, "reading": {"site_column": None}}))

    def parser_with(**options):
        return create_workflow(config_file=str(configs / "train.json"), logging_file=False, **options).parser

    parser = parser_with(diagnoses={"Dementia": 1, "CN": 0}, site_column=12, **{"reading#image_column": "file"})
    said = {"diagnoses": {"Dementia": 1, "CN": 0}, "site_column": 12, "image_column": "file"}
    assert parser["reading"] == said and "diagnoses" not in parser and "site_column" not in parser
    assert parser_with()["reading"] == {"site_column": None}
    for wrong, meant in (("site_colum", "site_column"), ("reading#site_colum", "reading#site_column")):
        assert (
            refused(parser_with, **{wrong: "x"}) == f"there is no id {wrong!r} in this bundle: did you mean {meant!r}?"
        )


def test_none_is_not_dropped_as_monai_drops_it(configs, capsys):
    """Python Fire makes None of the word None, and MONAI leaves arguments out that are None."""
    run(
        config_file=str(configs / "train.json"),
        logging_file=False,
        patience=None,
        run="$print(@patience)",
    )
    assert capsys.readouterr().out.splitlines()[-1] == "None"


@pytest.mark.parametrize("seed", [-1, "abc", 1.5, True])
def test_a_seed_that_is_none(prepared, seed):
    assert re.match("seed must be a (whole number of at least 0|number), got ", refused(prepared, seed=seed))


@pytest.mark.parametrize("id", ["max_epochs", "z_predictor#max_epochs"])
@pytest.mark.parametrize("number", [0, -1, 2.5])
def test_a_number_of_epochs_that_is_none(prepared, id, number):
    assert refused(prepared, **{id: number}) == f"{id} must be a whole number of at least 1, got {number!r}."


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_epochs": "abc"}, "max_epochs must be a number, got 'abc'."),
        ({"resume": "maybe"}, "resume must be true or false, got 'maybe'."),
        ({"output_dir": "null"}, "output_dir must name a file or folder, got null."),
        ({"amp": "maybe"}, "amp must be true or false, got 'maybe'."),
    ],
)
def test_a_value_that_is_none_for_its_id(configs, options, says):
    (configs / "train.json").write_text(json.dumps({**TRAIN, "amp": "$False"}))

    def parser_with(**options):
        return create_workflow(config_file=str(configs / "train.json"), logging_file=False, **options).parser

    assert refused(parser_with, **options) == says


def test_an_override_without_what_it_overrides_says_the_command(configs):
    with pytest.raises(RuntimeError) as error:
        create_workflow(config_file=str(configs / "evaluate.json"), logging_file=False)
    files = f"['{configs}/train.json','{configs}/evaluate.json']"
    assert sentence_of(error.value).startswith(f'evaluate.json overrides train.json: give --config_file "{files}"')


@pytest.mark.parametrize("name", ["armed_ad_mri", "armed_cell_aec", "armed_mci", "armed_spirals"])
def test_the_old_commands_of_our_bundles_say_the_new_ones(name):
    with pytest.raises(RuntimeError) as error:
        create_workflow(config_file=str(find_bundle(name) / "configs" / "evaluate.json"), logging_file=False)
    assert "train.json','" in sentence_of(error.value)


def test_old_versions_are_refused(monkeypatch):
    require_versions()
    monkeypatch.setattr("monai.__version__", "1.6.0")
    with pytest.raises(ValueError, match=r"MONAI 1\.6\.0 is too old: this bundle needs 1\.6\.1"):
        require_versions()
