# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from monai_armed.studies.ad_mri.quality_sheet import plot_quality_sheets


def test_bad_scans_come_first_and_old_pages_go(tmp_path):
    count = 45
    table = pd.DataFrame({"scan": [f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in range(count)]})
    table["status"] = ["ok"] * 43 + ["left out", "turned"]
    table["similarity"] = [0.7] * 43 + [np.nan, 0.6]
    table["brain_volume_ml"] = [1400.0] * 43 + [np.nan, 1500.0]
    slices = [tmp_path / f"{n}.png" for n in range(count)]
    for file in slices[:43]:
        Image.fromarray(np.full((192, 192), 255, np.uint8)).save(file)
    (tmp_path / "quality_9.png").write_bytes(b"old")
    pages = plot_quality_sheets(table, slices, (120.0, 127.0), tmp_path)
    assert [page.name for page in pages] == ["quality_1.png", "quality_2.png"]
    assert sorted(tmp_path.glob("quality_*.png")) == pages
    first = np.asarray(Image.open(pages[0]).convert("RGB")).astype(int)
    tenth = first[:, : first.shape[1] // 8], first[:, -first.shape[1] // 8 :]
    reds = [((part[..., 0] - part[..., 1]) > 120).sum() for part in tenth]
    assert reds[0] > reds[1]  # the red frame of the one left out is in the first column
