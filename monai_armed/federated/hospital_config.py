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
from ..compare.study_bundle import BASE_MODEL, StudyBundle, evaluated

__all__ = ["check_agreed", "hospital_config", "hospital_training", "hospitals_study", "part_of", "rounds_as_long"]

DEFAULT_MODEL = ("without_adversary", "erased")  # those of them that the bundle has


def hospitals_study(bundle: str | Path, overrides: Mapping[str, Any], model: str = "") -> StudyBundle:
    """
    A bundle with the model that hospitals train.

    Args:
        bundle: folder of the bundle.
        overrides: config values by id, such as a hospital's ``dataset_dir``.
        model: the bundle's override files, names joined by ``+``. By default ``without_adversary+erased``, less the
            one that the bundle has not, such as the first where ``train.json`` has no adversary.

    Returns:
        the bundle.

    Raises:
        FileNotFoundError: when the folder is no bundle.
        ValueError: when it has no such model, or several are named.
    """
    study = StudyBundle(Path(bundle).resolve())
    present = [name for name in DEFAULT_MODEL if (study.root / "configs" / f"{name}.json").is_file()]
    models = study.models(model or "+".join(present) or BASE_MODEL)
    if len(models) != 1:
        raise ValueError(f"hospitals train one model, names joined by '+': got {model!r}.")
    return StudyBundle(study.root, [name for name in models[0].split("+") if name != BASE_MODEL], overrides)


def hospital_config(study: StudyBundle, folder: str | Path, hospital: int = 0, hospitals: int = 1) -> ConfigParser:
    """
    Config of a bundle's federated training in one hospital.

    Args:
        study: see :py:func:`hospitals_study`.
        folder: where the hospital keeps what is its own.
        hospital, hospitals: for simulating: the bundle's clusters are shared out among so many hospitals, and this is
            the one of this number, from 0. With one hospital all of the data are its own.

    Returns:
        the config, not yet evaluated. A simulated hospital's has what the bundle's ``compare.json`` says under
        ``hospital``: values by id, in which ``@partitions`` are its own samples and ``@whole`` those of all, as where
        scales are learned that hospitals must agree on.

    Raises:
        ValueError: when an override is mistyped.
    """
    parser = study.config("train", BASE_MODEL, {"output_dir": str(folder), "ckpt_dir": str(folder)})
    if hospitals > 1:
        parser["whole"] = parser["partitions"]
        for name, value in _not_overridden(study).items():
            parser[name] = value
        parser["partitions"] = {
            "_target_": "monai_armed.federated.hospital_config.part_of",
            "partitions": "@whole",
            "hospital": hospital,
            "hospitals": hospitals,
        }
    return parser


def _not_overridden(study: StudyBundle) -> dict[str, Any]:
    """What the bundle says of hospitals, less the ids (or what they are in) that the overrides have settled."""
    return {
        name: value
        for name, value in study.options["hospital"].items()
        if not any(f"{name}#".startswith(f"{given}#") for given in study.overrides)
    }


def check_agreed(study: StudyBundle) -> None:
    """
    See that a real hospital learns nothing of its own that it must have as all have it.

    Args:
        study: see :py:func:`hospitals_study`.

    Raises:
        ValueError: when the bundle learns something from the data of all hospitals, and no override gives it.
    """
    if open_ids := [name.split("#")[0] for name, value in _not_overridden(study).items() if "@whole" in str(value)]:
        raise ValueError(
            f"{', '.join(map(repr, open_ids))}: learned from the data of all hospitals, which none has. Agree on it, "
            f"and give it to all with --set {open_ids[0]}=..."
        )


def rounds_as_long(study: StudyBundle, local_epochs: int) -> int:
    """How many rounds of so many local epochs see every sample as often as the bundle's own training does."""
    return math.ceil(hospital_config(study, ".").get_parsed_content("max_epochs") / local_epochs)


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
