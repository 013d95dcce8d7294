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

import warnings

import numpy as np
import pytest

from monai_armed.data import split_by_subject, split_seen_unseen
from monai_armed.data.splits import check_several_clusters
from monai_armed.studies.ad_mri.cohort import draw_cohort


def cohort_datalist(scale=1.0):
    return [
        {
            "image": f"{subject.name}_{scan.months}",
            "label": int(subject.diagnosis == "AD"),
            "site": subject.site.name,
            "subject": subject.name,
            "site_role": subject.site.role,
        }
        for subject in draw_cohort(scale, 0)
        for scan in subject.scans
    ]


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_subjects_stay_together_and_classes_are_balanced(scale, seed):
    seen, _ = split_seen_unseen(cohort_datalist(scale))
    parts = split_by_subject(seen, seed=seed)
    subjects = [{item["subject"] for item in part} for part in parts]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    assert sorted(item["image"] for part in parts for item in part) == sorted(item["image"] for item in seen)
    for part, fraction in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert len(part) / len(seen) == pytest.approx(fraction, abs=0.04 if scale == 1.0 else 0.1)
        if scale == 1.0:
            share = np.mean([item["label"] for item in seen])
            assert np.mean([item["label"] for item in part]) == pytest.approx(share, abs=0.07)


def test_every_site_is_trained_on():
    seen, _ = split_seen_unseen(cohort_datalist())
    train, _, _ = split_by_subject(seen)
    assert {item["site"] for item in train} == {item["site"] for item in seen}


def test_seed_decides_the_split():
    seen, _ = split_seen_unseen(cohort_datalist(0.3))
    assert split_by_subject(seen, seed=5) == split_by_subject(seen, seed=5)
    assert split_by_subject(seen, seed=5) != split_by_subject(seen, seed=6)


def toy(num_ad, num_cn):
    labels = [1] * num_ad + [0] * num_cn
    return [{"label": label, "site": "a", "subject": str(k)} for k, label in enumerate(labels)]


def test_no_validation_partition():
    train, val, test = split_by_subject(toy(10, 20), (0.8, 0.0, 0.2))
    assert (len(train), len(val), len(test)) == (24, 0, 6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("datalist", "fractions", "message"),
    [
        (toy(1, 20), (0.7, 0.1, 0.2), r"partition .* no image of class \[1\]"),
        (toy(0, 20), (0.7, 0.1, 0.2), "all images have the label 0"),
        (toy(3, 4), (0.7, 0.1, 0.2), "as many subjects, got 7: give more subjects"),
        (
            toy(6, 6),
            (0.7, 0.1, 0.2),
            "12 subjects are too few to be divided .* 10 samples .the largest has 6",
        ),
        ([], (0.7, 0.1, 0.2), "there is no image; a classifier needs"),
        (toy(10, 20), (0.7, 0.1, 0.1), "multiples of 0.1"),
        (toy(10, 20), (0.75, 0.05, 0.2), "multiples of 0.1"),
    ],
)
def test_bad_splits_get_a_sentence(datalist, fractions, message):
    with pytest.raises(ValueError, match=message):
        split_by_subject(datalist, fractions)


def test_seen_and_unseen_by_role_list_or_neither():
    datalist = cohort_datalist(0.1)
    seen, unseen = split_seen_unseen(datalist)
    assert len({item["site"] for item in seen}) == 12 and len({item["site"] for item in unseen}) == 51
    seen, unseen = split_seen_unseen(datalist, ["002", "U01"])
    assert {item["site"] for item in seen} == {"002", "U01"} and len(seen) + len(unseen) == len(datalist)
    assert split_seen_unseen(toy(1, 2)) == (toy(1, 2), [])


def test_seen_and_unseen_errors():
    with pytest.raises(ValueError, match=r"\['zz'\]; the data have \['a'\]"):
        split_seen_unseen(toy(1, 2), ["a", "zz"])
    with pytest.raises(ValueError, match="list of site names"):
        split_seen_unseen(toy(1, 2), "a")
    with pytest.raises(ValueError, match="maybe"):
        split_seen_unseen([{"site": "a", "site_role": "maybe"}])


def test_sites_and_roles_are_told_in_any_spelling():
    items = [{"site": site, "site_role": role} for site, role in (("002", "Seen"), ("Mayo", "UNSEEN "), ("5", "seen"))]
    assert [item["site"] for item in split_seen_unseen(items)[0]] == ["002", "5"]
    assert [item["site"] for item in split_seen_unseen(items, [2, "mayo"])[0]] == ["002", "Mayo"]
    with pytest.raises(ValueError, match=r"no image of the seen sites \['20'\]"):
        split_seen_unseen(items, ["20", "2.0"])
    with pytest.raises(ValueError, match=r"got \[''\] for 1 of 4"):
        split_seen_unseen([*items, {"site": "6", "site_role": ""}])


def test_a_site_that_is_seen_and_unseen_is_named():
    items = [{"site": site, "site_role": role} for site, role in (("a", "seen"), ("b", "seen"), ("b", "unseen"))]
    with pytest.raises(ValueError, match=r"site_role calls the sites \['b'\] both 'seen' and 'unseen'"):
        split_seen_unseen(items)


def test_a_subject_at_two_sites_stays_together_and_is_named():
    items = [{**item, "site": site} for item in toy(15, 15) for site in ("a", "b")]
    with pytest.warns(UserWarning, match="30 of 30 subjects are at more than one site .first: 0. and stay together"):
        parts = split_by_subject(items)
    assert sum(len({item["subject"] for item in part}) for part in parts) == 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_by_subject(items[::2])


def test_a_single_cluster_is_refused():
    check_several_clusters(["a", "b"], "site", "study")
    with pytest.raises(ValueError, match="'a' is the only seen site of study; effects of the site need at least two"):
        check_several_clusters(["a"], "site", "study")
