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

"""MONAI's experiment tracking, ``--tracking mlflow``, made to fit these bundles."""

from __future__ import annotations

import re
from typing import Any

from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

__all__ = ["ends_epoch", "mend_tracking", "without_trackers"]

HANDLER = "MLFlowHandler"
TRANSFORM = DEFAULT_MLFLOW_SETTINGS["configs"]["trainer"]["output_transform"]  # type: ignore[index]


def mend_tracking(parser: ConfigParser) -> None:
    """
    Three of MONAI's defaults, mended in place: the loss is taken from an output that is one dict, as these trainers'
    is, where MONAI's makes a tuple of it that MLflow refuses; it is written once an epoch, since each time costs a
    database some tenths of a second; and the copy of the config that becomes an artifact is looked for where it was
    written, also if ``output_dir`` is a plain path.
    """
    terms = {"_target_": "monai_armed.handlers.loss_terms", "_mode_": "callable"}
    handlers = parser.get("train#handlers")
    for handler in handlers if isinstance(handlers, list) else []:
        if _is_tracker(handler) and handler.get("output_transform") == TRANSFORM:
            handler["output_transform"] = terms
            handler["iteration_log"] = {"_target_": "monai_armed.bundle.tracking.ends_epoch", "_mode_": "callable"}
    written = parser.get("save_execute_config")
    if isinstance(written, str) and (parts := re.fullmatch(r"([^$].*) \+ '(/config_\d+_\d+\.json)'", written)):
        parser["save_execute_config"] = "".join(parts.groups())


def ends_epoch(engine: Engine, iteration: int) -> bool:
    """Whether an iteration is the last one of its epoch; a filter of ignite's events."""
    return iteration % engine.state.epoch_length == 0  # type: ignore[operator]


def without_trackers(value: Any) -> Any:
    """A config value without the handlers that only watch a training."""
    if isinstance(value, dict):
        return {key: without_trackers(part) for key, part in value.items()}
    return [without_trackers(part) for part in value if not _is_tracker(part)] if isinstance(value, list) else value


def _is_tracker(value: Any) -> bool:
    return isinstance(value, dict) and value.get("_target_") == HANDLER
