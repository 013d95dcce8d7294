# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.from __future__ import annotations

import pytest

from monai_armed.studies.spirals.points import points_to_predict


def test_points_with_other_features_than_the_models(tmp_path):
    (tmp_path / "points.csv").write_text("x1,x2,x3\n1,2,3\n4,5,6\n")
    assert [item["file"] for item in points_to_predict(tmp_path / "points.csv", ["x1", "x2", "x3"], {})] == ["0", "1"]
    with pytest.raises(ValueError, match=r"points\.csv have 3 features, the model was trained on 2, x1, x2: give"):
        points_to_predict(tmp_path / "points.csv", ["x1", "x2"], {})
