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
"""Mixed effects deep learning for MONAI.

Nothing heavy is imported here: import from the rooms, such as ``monai_armed.networks.nets`` and ``monai_armed.losses``.
"""

from __future__ import annotations

import os

# ONNX Runtime and MLflow tell their makers of their use unless told not to before they are imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__version__ = "0.1.0"
