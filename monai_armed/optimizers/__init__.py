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

"""What optimizers are given: parameters in groups, and schedules of the learning rate."""

from __future__ import annotations

from .parameter_groups import adversary_optimizer, parameter_groups
from .staged_cosine import staged_cosine

__all__ = ["adversary_optimizer", "parameter_groups", "staged_cosine"]
