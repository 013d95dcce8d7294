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
"""What a model was trained on is known again, and nothing else is taken for it."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from monai_armed.data.held_out import held_out, provenance
from monai_armed.data.sample_marks import sample_content, sample_mark, study_name

COLUMNS = ("site", "subject")


def hospital(folder, sites=("002", "005"), subjects=10, seed=0, sessions=2):
    """A data list of files with random content: the subjects sub-001, sub-002 ... of each site, with their images."""
    rng, items = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(subjects * len(sites)):
        for session in range(sessions):
            file = folder / f"sub-{number:03d}_ses-{session}_T1w.nii.gz"
            file.write_bytes(rng.bytes(100))
            items.append({"image": str(file), "site": sites[number % len(sites)], "subject": f"sub-{number:03d}"})
    return items


def divided(items, train=8, val=4):
    """Partitions by the number of the subject, with the record of a training on them as JSON gives it back."""
    number = {item["subject"]: int(item["subject"][-3:]) for item in items}
    bounds = {"train": (0, train), "val": (train, train + val), "test": (train + val, 1000)}
    parts = {
        name: [item for item in items if low <= number[item["subject"]] < high] for name, (low, high) in bounds.items()
    }
    sites = sorted({item["site"] for item in items})
    partitions = {**parts, "unseen": [], "sites": sites, "study": study_name(items)}
    return partitions, json.loads(json.dumps(provenance(partitions)))


def roles(parts):
    return {name: len(items) for name, items in parts.items()}


def changed(items, **columns):
    return [{**item, **{name: change(item[name]) for name, change in columns.items()}} for item in items]


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_record_names_study_clusters_and_pairs(tmp_path):
    partitions, record = divided(hospital(tmp_path))
    assert record["study"] == partitions["study"] and record["clusters"] == ["002", "005"]
    assert record["train"][:2] == [["002", "sub-000"], ["002", "sub-002"]] and len(record["train"]) == 8
    assert record["val"] == [["002", "sub-008"], ["002", "sub-010"], ["005", "sub-009"], ["005", "sub-011"]]


def test_the_same_data_and_a_copy_of_them(tmp_path, quiet, capsys):
    items = hospital(tmp_path / "a")
    partitions, record = divided(items)
    (tmp_path / "a").rename(tmp_path / "b")
    copy = changed(items, image=lambda path: path.replace("/a/", "/b/"))
    assert study_name(copy) == partitions["study"]
    assert roles(held_out(copy, record, study_name(copy))) == {"train": 16, "val": 8, "test": 16, "unseen": 0}
    told = "16 were trained on and 8 validated on, which are left out of the test; 16 are of a site that it knows"
    assert told in capsys.readouterr().out


def test_data_that_have_grown_or_shrunk(tmp_path, quiet):
    items = hospital(tmp_path / "a")
    _, record = divided(items)
    new = hospital(tmp_path / "new", sites=("002", "009"), subjects=20, seed=1)[40:]
    grown = [*items, *new]
    parts = held_out(grown, record, study_name(grown))
    assert roles(parts) == {"train": 16, "val": 8, "test": 16 + 20, "unseen": 20}
    held_back = items[-6:]  # test subjects alone
    parts = held_out(held_back, record, study_name(held_back))
    assert roles(parts) == {"train": 0, "val": 0, "test": 6, "unseen": 0}
    with pytest.raises(ValueError, match="trained on the subject of every one of the 6 images: none is left"):
        held_out(items[:6], record, study_name(items[:6]))


@pytest.mark.parametrize("sites", [("002", "005"), ("002", "007"), ("008", "009")])
def test_another_hospital_with_the_same_names_is_unseen(tmp_path, sites, capsys):
    _, record = divided(hospital(tmp_path / "a"))
    other = hospital(tmp_path / "b", sites, seed=1)  # the same relative names
    with pytest.warns(
        UserWarning,
        match=r"the subject of 24 .* but other data: it counts as another subject, of",
    ):
        parts = held_out(other, record, study_name(other))
    assert roles(parts) == {"train": 0, "val": 0, "test": 0, "unseen": 40}
    assert "other data than the model was trained on: of 40 samples 0 were trained on" in capsys.readouterr().out
    assert not {item["site"] for item in parts["unseen"]} & set(record["clusters"])  # nobody takes them for the model's
    assert {item["site"].removesuffix(" (not the model's)") for item in parts["unseen"]} == set(sites)


def test_the_user_can_say_that_it_is_the_same_study(tmp_path):
    _, record = divided(hospital(tmp_path / "a"))
    again = hospital(tmp_path / "b", seed=1)  # such as another preprocessing
    parts = held_out(again, record, study_name(again), seen=["2", "5"])
    assert roles(parts) == {"train": 16, "val": 8, "test": 16, "unseen": 0}
    parts = held_out(again, record, study_name(again), seen=[5])
    assert roles(parts) == {"train": 16, "val": 8, "test": 8, "unseen": 8}
    with pytest.raises(ValueError, match=r"was trained on \['002', '005'\], not on \['9'\]: name clusters"):
        held_out(again, record, study_name(again), seen=["9"])
    with pytest.raises(ValueError, match="must be a list, got the string '002'"):
        held_out(again, record, study_name(again), seen="002")


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("site", lambda site: site.lstrip("0")),
        ("site", lambda site: site.lstrip("0") + ".0"),
        ("site", lambda site: f" {site} "),
        ("subject", lambda subject: subject.removeprefix("sub-")),
        ("subject", str.upper),
        ("subject", lambda subject: str(int(subject[-3:]))),
    ],
)
def test_other_spellings_are_the_same_names(tmp_path, quiet, column, change):
    items = hospital(tmp_path)
    partitions, record = divided(items)
    spelled = changed(items, **{column: change})
    assert study_name(spelled) == partitions["study"]
    parts = held_out(spelled, record, study_name(spelled))
    assert roles(parts) == {"train": 16, "val": 8, "test": 16, "unseen": 0}
    assert {item["site"] for item in parts["test"]} == {"002", "005"}  # as the model spells them


def test_images_under_other_names_are_left_out_all_the_same(tmp_path):
    items = hospital(tmp_path)
    _, record = divided(items)
    renamed = changed(items, site=lambda site: f"Hospital {site}", subject=lambda subject: f"p{subject[-3:]}")
    with pytest.warns(UserWarning, match="the subject of 24 samples is one .* by what is in them"):
        parts = held_out(renamed, record, study_name(renamed))
    assert roles(parts) == {"train": 16, "val": 8, "test": 0, "unseen": 16}


def test_a_content_that_many_have_tells_nothing(tmp_path, quiet):
    """Such as black images, or empty files."""
    for content in (b"", b"black"):
        items, other = hospital(tmp_path / "a", subjects=4), hospital(tmp_path / "b", ("x", "y"), subjects=4)
        for item in (*items, *other):
            with open(item["image"], "wb") as file:
                file.write(content)
        partitions, record = divided(items, 4, 2)
        assert roles(held_out(items, record, partitions["study"])) == {"train": 8, "val": 4, "test": 4, "unseen": 0}
        less = items[:-2]
        assert roles(held_out(less, record, study_name(less))) == {"train": 8, "val": 4, "test": 2, "unseen": 0}
        with pytest.raises(UserWarning, match=r"1[26] samples"):
            held_out(other, record, study_name(other))


def test_a_subject_of_the_same_name_at_another_site_is_another(tmp_path):
    items = hospital(tmp_path)
    moved = [{**item, "site": "009"} if item["subject"] == "sub-000" else item for item in items]
    _, record = divided(items[2:])
    with pytest.warns(UserWarning, match="the subject of 2 samples has the name of one .* at another site of this"):
        record["train"].append(["002", "sub-000"])
        parts = held_out(moved, record, record["study"])
    assert [item["subject"] for item in parts["unseen"]] == ["sub-000"] * 2


def test_cells_are_numbered_anew_in_each_batch(tmp_path, quiet):
    keys = {"clusters": "batches", "cluster": "batch", "subject": "cell"}
    items = []
    for batch in ("b1", "b2", "b3"):
        for cell in range(10):
            (tmp_path / f"{batch}_{cell}.png").write_bytes(f"{batch}{cell}".encode())
            items.append({"image": str(tmp_path / f"{batch}_{cell}.png"), "batch": batch, "cell": str(cell)})
    seen = [item for item in items if item["batch"] != "b3"]
    parts = {"train": seen[:14], "val": seen[14:16], "test": seen[16:], "unseen": items[20:]}
    study = study_name(items, keys)
    record = provenance({**parts, "batches": ["b1", "b2"], "study": study, "keys": keys})
    assert held_out(items, record, study, keys) == parts


def test_an_index_of_another_study_is_unknown():
    keys = {"clusters": "clusters", "cluster": "cluster", "subject": "index"}
    points = [{"image": np.full(2, i, np.float32), "cluster": i % 2, "index": i} for i in range(10)]
    parts = {"train": points[:6], "val": points[6:8], "test": points[8:], "unseen": []}
    record = provenance({**parts, "clusters": ["0", "1"], "study": study_name(points, keys), "keys": keys})
    assert record["train"][0] == ["0", "0"]
    assert [item["index"] for item in held_out(points, record, study_name(points, keys), keys)["test"]] == [8, 9]
    others = [{**point, "image": point["image"] + 100} for point in points]
    with pytest.warns(UserWarning, match="the index of 8 samples has"):
        unseen = held_out(others, record, study_name(others, keys), keys)["unseen"]
    assert {item["cluster"] for item in unseen} == {-1} and len(unseen) == 10


def test_a_record_of_an_older_version_gets_one_sentence(tmp_path):
    items = hospital(tmp_path)
    with pytest.raises(ValueError, match=r"lacks \['clusters', 'samples', 'contents'\]: train the model again"):
        held_out(items, {"study": "data", "sites": ["002"], "train": [], "val": []}, "data")


def test_a_simulated_study_has_the_name_of_its_draw(tmp_path):
    items, marker = hospital(tmp_path), tmp_path / "simulation.json"
    assert study_name(items, marker=marker) == study_name(items) != study_name(items[1:])
    marker.write_text('{"seed": 3}')
    assert study_name(items, marker=marker) == "simulated draw 3"


def test_the_content_of_a_large_file_is_read_in_its_middle_too(tmp_path):
    file, item = tmp_path / "a.nii", {"image": str(tmp_path / "a.nii"), "site": "1", "subject": "s"}
    content = bytearray(10**6)
    seen = set()
    for place in (0, 500_000, 999_999):
        content[place] = 1
        file.write_bytes(content)
        seen.add(sample_mark(item))
        content[place] = 0
    assert len(seen) == 3
    file.unlink()
    assert sample_content(item) == "" and sample_mark(item)  # a link to a file that is not there
