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

"""MONAI's warning that a config is a program, which it gives for each config that it runs: shown once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

__all__ = ["environment_after_warning", "warn_of_configs_once"]

BEGINNING = "parsing config_file"  # of the warning of `_target_` and eval(); another text for each file


def warn_of_configs_once() -> None:
    """What MONAI has warned of for the config that is being run is not said again for others in this process."""
    warnings.filterwarnings("ignore", re.escape(BEGINNING), UserWarning)


def environment_after_warning(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Environment for further commands that run configs, in which the warning is not said again, and every other one is.

    Args:
        environment: that of the first command.
    """
    filters = [environment.get("PYTHONWARNINGS", ""), f"ignore:{BEGINNING}:UserWarning"]
    return {**environment, "PYTHONWARNINGS": ",".join(filter(None, filters))}
