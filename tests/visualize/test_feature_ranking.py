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
from matplotlib import pyplot as plt

from monai_armed.visualize import feature_ranking
from monai_armed.visualize.feature_ranking import plot_feature_ranking


def test_the_top_features_of_each_model_are_shown_in_order(tmp_path, monkeypatch):
    rows = [
        {"model": model, "feature": f"f{i}", "importance": sign * i + 10 + fold}
        for model, sign in (("a", 1), ("b", -1))
        for fold in range(2)
        for i in range(5)
    ]
    figures = []
    monkeypatch.setattr(feature_ranking, "save_figure", lambda figure, path: figures.append(figure) or path)
    plot_feature_ranking(pd.DataFrame(rows), tmp_path / "f.png", top=3, marked=["f4"])
    shown = [[text.get_text() for text in axis.get_yticklabels()] for axis in figures[0].axes]
    assert shown == [["f2", "f3", "f4"], ["f2", "f1", "f0"]]
    reds = [
        [bool(np.allclose(bar.get_facecolor()[:3], (0.839, 0.153, 0.157), atol=0.01)) for bar in a.patches]
        for a in figures[0].axes
    ]
    assert reds == [[False, False, True], [False] * 3]
    plt.close("all")
