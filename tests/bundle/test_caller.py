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
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow

from monai_armed.bundle import bundle_root, find_bundle

ROOT = {"bundle_root": {"_target_": "monai_armed.bundle.bundle_root"}, "run": "$print(@bundle_root)"}


@pytest.fixture
def two_bundles(tmp_path, monkeypatch):
    """Folders of two bundles, neither of which is the current folder."""
    folders = [tmp_path / "first bundle", tmp_path / "second"]
    for folder in folders:
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "metadata.json").write_text("{}")
        (folder / "configs" / "train.json").write_text(json.dumps(ROOT))
    monkeypatch.chdir(tmp_path)
    # other tests run bundles in this process, which leaves their folders in the path
    elsewhere = [folder for folder in sys.path if not (Path(folder) / "configs").is_dir()]
    monkeypatch.setattr(sys, "path", ["", *elsewhere])
    return folders


def config(folder: Path) -> str:
    return str(folder / "configs" / "train.json")


def test_root_is_that_of_the_workflow_whoever_started_it(two_bundles, monkeypatch, capsys):
    first, second = two_bundles
    monkeypatch.setattr(sys, "path", [str(second), *sys.path])
    for file in (config(first), "first bundle/configs/train.json"):
        create_workflow(config_file=file, logging_file=False).run()
        assert capsys.readouterr().out.splitlines()[-1] == str(first)
    workflow = ConfigWorkflow(config(first), logging_file=False)
    other = ConfigWorkflow(config(second), logging_file=False)
    assert workflow.parser.get_parsed_content("bundle_root") == str(first)
    assert other.parser.get_parsed_content("bundle_root") == str(second)


def test_root_is_that_of_the_arguments_file(two_bundles, tmp_path, capsys):
    (tmp_path / "args.json").write_text(json.dumps({"config_file": config(two_bundles[1]), "logging_file": False}))
    create_workflow(args_file=str(tmp_path / "args.json")).run()
    assert capsys.readouterr().out.splitlines()[-1] == str(two_bundles[1])


def test_root_is_in_the_path_or_here(two_bundles, tmp_path, monkeypatch):
    parser = ConfigParser(dict(ROOT))
    assert parser.get_parsed_content("bundle_root") == str(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(two_bundles[1])])
    assert bundle_root() == str(two_bundles[1])


def test_find_bundle():
    assert (find_bundle("armed_ad_mri") / "configs" / "train.json").is_file()
    with pytest.raises(FileNotFoundError, match="no bundle 'nosuch'"):
        find_bundle("nosuch")
