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

"""Training across hospitals whose data, and whose random effects, stay in the house."""

from __future__ import annotations

from .hospital import Hospital
from .message import Message
from .rounds import federate
from .shared import average, load_shared, shared_state

__all__ = ["Hospital", "Message", "average", "federate", "load_shared", "shared_state"]
