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

"""A hospital that comes when the others have trained."""

from __future__ import annotations

from pathlib import Path

from ..compare.study_bundle import StudyBundle
from ..handlers.training_checkpoint import read_checkpoint
from .hospital import Hospital
from .hospital_config import check_agreed, hospital_config, hospital_training
from .message import Message

__all__ = ["join_late"]


def join_late(study: StudyBundle, folder: Path, shared: Path) -> Path:
    """
    Learn the random effects of a hospital's own clusters, and nothing else, around what others have trained: as
    :py:func:`monai_armed.networks.adapt` does for one new cluster.

    Args:
        study: the bundle, see :py:func:`monai_armed.federated.hospital_config.hospitals_study`.
        folder: where the model is written.
        shared: what the others share, the ``shared.pt`` of their training. It holds no random effects.

    Returns:
        the model, ``model.pt``.

    Raises:
        ValueError: when the file is damaged or of another network, or something that hospitals agree on is not given.
    """
    check_agreed(study)
    hospital = Hospital(hospital_training(hospital_config(study, folder)))
    hospital.answer(Message("start"))
    hospital.answer(Message("finish", read_checkpoint(shared)))
    return hospital.training.model_path
