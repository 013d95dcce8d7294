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

import numpy as np
import pandas as pd
from PIL import Image

from monai_armed.studies.ad_mri import quality_sheet


def test_the_worst_come_first_and_remarks_are_on_the_sheet(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        quality_sheet, "save_figure", lambda figure, path: titles.extend(a.get_title() for a in figure.axes) or path
    )
    rows = [
        ("good", "ok", "", 0.7, 1500.0),
        ("thick", "ok", "slices of 5.0 mm: its coronal slice is interpolated", 0.72, 1500.0),
        ("fair", "ok", "", 0.6, 1500.0),
        ("unread", "left out", "", None, None),
        ("kept", "kept", "2% of the brain are missing (temporal poles 90%)", 0.4, 1400.0),
        ("turned", "turned", "", 0.7, 1500.0),
    ]
    table = pd.DataFrame(rows, columns=["scan", "status", "remarks", "similarity", "brain_volume_ml"])
    table["scan"] = "sub-1/anat/" + table["scan"] + "_T1w.nii.gz"
    pictures = [tmp_path / f"{name}.png" for name, *_ in rows]
    for picture in pictures[:3]:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    assert quality_sheet.plot_quality_sheets(table, pictures, (4.0, 4.0), tmp_path) == [tmp_path / "quality_1.png"]
    shown = [title.split("\n") for title in titles if title]
    assert [lines[0] for lines in shown] == ["unread", "kept", "turned", "thick", "fair", "good"]
    assert shown[0] == ["unread", "left out"]
    assert shown[1][1:3] == ["0.40, 1400 ml", "kept"] and "temporal poles" in " ".join(shown[1])
    assert "slices of 5.0 mm" in " ".join(shown[3])
