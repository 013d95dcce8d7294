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

"""A bundle's training as one hospital runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
from monai.bundle import ConfigParser

from ..bundle.training import Training
from ..compare.study_bundle import StudyBundle, evaluated

__all__ = ["hospital_config", "hospital_training", "part_of", "rounds_as_long"]

MODEL = "federated"  # the bundle's override file


def hospital_config(
    bundle: str | Path, folder: str | Path, overrides: Mapping[str, Any], hospital: int = 0, hospitals: int = 1
) -> ConfigParser:
    """
    Config of a bundle's federated training in one hospital.

    Args:
        bundle: folder of the bundle, with a ``configs/federated.json``.
        folder: where the hospital keeps what is its own.
        overrides: config values by id, such as its ``dataset_dir``.
        hospital, hospitals: for simulating: the bundle's clusters are shared out among so many hospitals, and this is
            the one of this number, from 0. With one hospital all of the data are its own.

    Returns:
        the config, not yet evaluated. Simulated hospitals scale inputs alike, as hospitals must agree to: if it has an
        id ``scaling``, the partitions that scales are learned from, these are those of all.

    Raises:
        FileNotFoundError: when the bundle has no such file.
        ValueError: when an override is mistyped.
    """
    study = StudyBundle(Path(bundle).resolve())
    study.models(MODEL)
    places = {"output_dir": str(folder), "ckpt_dir": str(folder)}
    parser = study.config("train", MODEL, {**overrides, **places})
    if hospitals > 1:
        parser["whole"] = parser["partitions"]
        if "scaling" in parser:
            parser["scaling"] = "@whole"
        if "sites" in parser:
            parser["sites"] = "$@partitions['sites']"
        parser["partitions"] = {
            "_target_": "monai_armed.federated.hospital_config.part_of",
            "partitions": "@whole",
            "hospital": hospital,
            "hospitals": hospitals,
        }
    return parser


def rounds_as_long(bundle: str | Path, overrides: Mapping[str, Any], local_epochs: int) -> int:
    """How many rounds of so many local epochs see every sample as often as the bundle's own training does."""
    return math.ceil(hospital_config(bundle, ".", overrides).get_parsed_content("max_epochs") / local_epochs)


def hospital_training(parser: ConfigParser, start: int = 0) -> Training:
    """The training of a config, its random generators started from the config's seed; or from another start's."""
    monai.utils.set_determinism(parser.get_parsed_content("seed") + start)
    return evaluated(parser, "training")


def part_of(partitions: Mapping[str, Any], hospital: int, hospitals: int) -> dict[str, Any]:
    """
    What one of several simulated hospitals has: some of the clusters, numbered from 0, and their samples.

    Args:
        partitions: of a study, data lists whose samples have a ``"cluster"``, the number of one of the clusters, or a
            ``"site"``, its name; and the names of the clusters.
        hospital: its number, from 0.
        hospitals: how many there are.

    Returns:
        its partitions, clusters numbered anew from 0; samples of no known cluster are not among them.

    Raises:
        ValueError: when there are more hospitals than clusters, or not this one.
    """
    key = partitions.get("keys", {}).get("clusters", "sites")
    names = list(partitions[key])
    if not 0 <= hospital < hospitals <= len(names):
        raise ValueError(f"hospital {hospital} of {hospitals} has none of {len(names)} clusters: number them from 0.")
    own = [int(cluster) for cluster in np.array_split(np.arange(len(names)), hospitals)[hospital]]

    def of_own(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        clusters = [int(i["cluster"]) if "cluster" in i else names.index(i["site"]) for i in items]
        return [{**item, "cluster": own.index(cluster)} for item, cluster in zip(items, clusters) if cluster in own]

    parts = {name: of_own(partitions[name]) for name in ("train", "val", "test")}
    return {**partitions, **parts, "unseen": [], key: [names[cluster] for cluster in own]}
