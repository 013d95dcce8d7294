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

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from monai.bundle import create_workflow

from monai_armed.bundle.config_warning import environment_after_warning, warn_of_configs_once

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "armed_spirals" / "configs"


@pytest.fixture
def untouched_interpreter(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("untouched_interpreter")
def test_the_second_config_of_a_process_is_not_warned_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("train", "inference", "train"):
            create_workflow(config_file=str(CONFIGS / f"{name}.json"), workflow_type="train", logging_file=False)
    told = [str(w.message) for w in caught if "_target_" in str(w.message)]
    assert len(told) == 1 and "train.json" in told[0] and "eval()" in told[0]


def test_every_other_warning_is_still_shown():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_configs_once()
        for text, kind in (("parsing config_file x", UserWarning), ("parsing", UserWarning), ("sites", UserWarning)):
            warnings.warn(text, kind, stacklevel=1)
        warnings.warn("parsing config_file x", DeprecationWarning, stacklevel=1)
    assert [str(w.message) for w in caught] == ["parsing", "sites", "parsing config_file x"]


def test_further_commands_are_not_warned_again_and_keep_their_filters():
    code = "import warnings as w; w.warn('parsing config_file a'); w.warn('b'); w.warn('c', FutureWarning)"
    environment = environment_after_warning({**os.environ, "PYTHONWARNINGS": "ignore::FutureWarning"})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "UserWarning: b" in done.stderr and "config_file" not in done.stderr.replace(code, "")
    assert "FutureWarning" not in done.stderr.replace(code, "")
