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

"""What comes before every run of a bundle: the one line of ``initialize``."""

from __future__ import annotations

from pathlib import Path

import monai
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from packaging.version import Version

from monai_armed.bundle.caller import bundle_root, calling_parser, calling_workflow, command_argument, config_files
from monai_armed.bundle.config_ids import bundle_ids, check_ids, read_words, take_reading
from monai_armed.bundle.config_values import check_values, check_whole_numbers
from monai_armed.bundle.config_warning import warn_of_configs_once
from monai_armed.bundle.plain_errors import plain_errors
from monai_armed.bundle.tracking import mend_tracking

__all__ = ["prepare_run", "require_versions"]


def prepare_run() -> None:
    """
    Prepare the run whose config is being read: errors of a command become one sentence, MONAI's warning of
    configs is not said again in this process, versions are checked, values
    are taken as a command line meant them, mistyped ids are refused, the bundle's folder is settled, and all random
    generators start from the config's ``seed``.

    Raises:
        ValueError: when an id is mistyped, a value is none for its id, or the config is an override that was given
            without the config that it is one of.
    """
    plain_errors()
    warn_of_configs_once()
    require_versions()
    parser, workflow = calling_parser(), calling_workflow()
    if parser is None:
        return
    if workflow is not None:
        _settle(parser, workflow)
    check_whole_numbers(parser)
    if "amp" in parser and not isinstance(amp := parser.get_parsed_content("amp"), bool):
        raise ValueError(f"amp must be true or false, got {amp!r}.")
    monai.utils.set_determinism(parser.get_parsed_content("seed") if "seed" in parser else 0)


def require_versions() -> None:
    """
    Check what ``metadata.json`` promises, which MONAI does not.

    Raises:
        ValueError: when MONAI or PyTorch is too old.
    """
    for name, found, wanted in (("MONAI", monai.__version__, "1.6.1"), ("PyTorch", torch.__version__, "2.8")):
        if Version(Version(found).base_version) < Version(wanted):
            raise ValueError(f"{name} {found} is too old: this bundle needs {wanted} or newer, update it.")


def _settle(parser: ConfigParser, workflow: ConfigWorkflow) -> None:
    """The config as the user meant it; what MONAI has read of it already is read anew."""
    config, folder = parser.config, Path(workflow.config_root_path)
    assert isinstance(config, dict)
    if "bundle_root" not in config:
        raise ValueError(_override_alone(folder))
    for id, value in (command_argument("override") or {}).items():
        if value is None:  # MONAI drops it
            parser[id] = None
    read_words(config)
    take_reading(config)
    tracking = command_argument("tracking")
    settings = ConfigParser.load_config_files(tracking) if tracking and tracking != "mlflow" else {}
    mend_tracking(parser)
    check_ids(config, bundle_ids(folder), settings.get("configs", {}))
    check_values(config, folder)
    if isinstance(config["bundle_root"], dict):  # for whoever asks the parser later, when nobody knows its file
        config["bundle_root"] = bundle_root()
    parser.ref_resolver.reset()


def _override_alone(folder: Path) -> str:
    given = [file.name for file in config_files()] or ["evaluate.json"]
    files = ",".join(f"'{folder / name}'" for name in ["train.json", *given])
    return f'{" and ".join(given)} overrides train.json: give --config_file "[{files}]", and the file of a model last.'
