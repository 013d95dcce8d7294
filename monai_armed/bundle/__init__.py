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

"""What the bundles' configs call beside MONAI's own parts."""

from __future__ import annotations

from .caller import bundle_root, find_bundle
from .erasure import Erasure
from .evaluate import evaluate_partitions, with_samples
from .fingerprint import fingerprint
from .kept_predictions import kept_predictions
from .model_file import read_record, write_model
from .models import load_model, load_part, predictions_of, with_z_predictor
from .prepare import prepare_run
from .processes import join_processes
from .training import Training
from .training_record import recorded_subjects, same_clusters, training_record
from .z_predictor_training import ZPredictorTraining

__all__ = [
    "Erasure",
    "Training",
    "ZPredictorTraining",
    "bundle_root",
    "evaluate_partitions",
    "find_bundle",
    "fingerprint",
    "join_processes",
    "kept_predictions",
    "load_model",
    "load_part",
    "predictions_of",
    "prepare_run",
    "read_record",
    "recorded_subjects",
    "same_clusters",
    "training_record",
    "with_samples",
    "with_z_predictor",
    "write_model",
]
