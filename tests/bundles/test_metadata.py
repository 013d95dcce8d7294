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
"""The metadata of all bundles against MONAI's schema."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = (
    Path(os.environ.get("MONAI_ARMED_TEST_DATA", ".")).resolve().parent / "schema",
    ROOT.parent / "shared" / "schema",
)


@pytest.mark.parametrize("bundle", sorted(ROOT.glob("bundles/*")), ids=lambda folder: folder.name)
def test_metadata_is_valid(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["version"] in metadata["changelog"]
    found = [folder / Path(metadata["schema"]).name for folder in SCHEMAS]
    schema = next((path for path in found if path.is_file()), None)
    if schema is None:
        pytest.skip(f"MONAI's schema {found[0].name} is not at hand; MONAI_ARMED_TEST_DATA says where to look")
    jsonschema.validate(metadata, json.loads(schema.read_text(encoding="utf-8")))
