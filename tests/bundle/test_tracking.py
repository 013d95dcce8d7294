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

"""``--tracking mlflow``: MONAI's own in the bundles, and a run for each fold of a comparison."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from monai.bundle import ConfigWorkflow

from monai_armed.bundle.tracking import ends_epoch, mend_tracking

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/train.json"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["run", None])
def test_monais_handlers_fit_every_bundle(name, folder, tmp_path):
    """MONAI appends its handlers to lists of the config; what they say is what these trainers give."""
    root = tmp_path / name
    shutil.copytree(BUNDLES / name / "configs", root / "configs")
    given = {"output_dir": str(tmp_path / folder)} if folder else {}
    workflow = ConfigWorkflow(str(root / "configs" / "train.json"), tracking="mlflow", bundle_root=str(root), **given)
    parser = workflow.parser
    mend_tracking(parser)
    for id in ("train#handlers", "validate#handlers"):
        assert [h.get("_target_") for h in parser[id]].count("MLFlowHandler") == 1
    handler = parser["train#handlers"][-1]
    assert handler["output_transform"]["_target_"] == "monai_armed.handlers.loss_terms"
    artifact = Path(parser.get_parsed_content("save_execute_config"))
    assert artifact.is_file() and json.loads(artifact.read_text())["tracking_uri"]


def test_the_loss_is_written_once_an_epoch():
    engine = SimpleNamespace(state=SimpleNamespace(epoch_length=4))
    assert [i for i in range(1, 13) if ends_epoch(engine, i)] == [4, 8, 12]
