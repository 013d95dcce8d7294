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

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from monai_armed.data.checksums import check_shipped
from monai_armed.handlers import load_weights

BUNDLES = sorted((Path(__file__).resolve().parents[2] / "bundles").iterdir())


@pytest.fixture
def shipped(tmp_path) -> Path:
    """Weights with the names of their sites, as they are shipped."""
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "model.pt")
    (tmp_path / "sites.json").write_text('["a", "b"]')
    names = ("model.pt", "sites.json")
    lines = [f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (tmp_path / "SHA256SUMS").write_text("".join(lines))
    return tmp_path / "model.pt"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda folder: folder.name)
def test_all_that_the_bundles_ship_is_listed_and_as_listed(bundle, tmp_path):
    models = Path(shutil.copytree(bundle / "models", tmp_path / "models"))
    for file in models.iterdir():
        if file.name != "SHA256SUMS":
            check_shipped(models / "model.pt")
            content = file.read_bytes()
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(ValueError, match=f"{file} is not the file that was shipped"):
                check_shipped(models / "model.pt")
            file.write_bytes(content)


def test_other_weights_in_the_place_of_shipped_ones_are_not_loaded(shipped):
    load_weights(torch.nn.Linear(2, 1), shipped)
    torch.save(torch.nn.Linear(2, 1).state_dict(), shipped)
    with pytest.raises(ValueError, match=r"model\.pt is not the file that was shipped .* if the files are your own"):
        load_weights(torch.nn.Linear(2, 1), shipped)


def test_a_file_that_was_shipped_with_them_is_missing(shipped):
    (shipped.parent / "sites.json").unlink()
    with pytest.raises(ValueError, match=r"sites\.json is not the file that was shipped"):
        check_shipped(shipped)


def test_weights_of_a_users_own_have_no_checksum(shipped, tmp_path):
    own = shipped.with_name("own.pt")
    torch.save(torch.nn.Linear(2, 1).state_dict(), own)  # in the same folder, but not listed
    check_shipped(own)
    (tmp_path / "SHA256SUMS").unlink()
    torch.save(torch.nn.Linear(2, 1).state_dict(), shipped)
    load_weights(torch.nn.Linear(2, 1), shipped)


def test_a_damaged_list_is_no_free_pass(shipped):
    for text in ("", "model.pt\n", "zz  model.pt"):
        (shipped.parent / "SHA256SUMS").write_text(text)
        with pytest.raises(ValueError, match="SHA256SUMS is damaged"):
            check_shipped(shipped)
