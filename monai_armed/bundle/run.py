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

"""What the bundles' configs need beside MONAI's own: where the bundle lies, and errors as one sentence."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch

__all__ = ["bundle_root", "find_bundle", "plain_errors", "require_versions"]

NO_ACCESS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOSPC,
    errno.EDQUOT,
)
# an error of ours in the traceback that a process of a DataLoader sends as text
WORKER_ERROR = re.compile(r'File ".*[\\/]monai_armed[\\/].*\n(?: .*\n)+(?:ValueError|FileNotFoundError): (.*)')


def bundle_root() -> str:
    """
    Folder of the bundle that is being run: that of the ``--config_file`` on the command line, else the first one in
    ``sys.path`` with a ``configs/metadata.json``, where MONAI puts it when it runs a config (but too late for
    ``initialize``), else the current folder.
    """
    for folder in [*_folders_of_config_files(sys.argv), *map(Path, filter(None, sys.path))]:
        if (folder / "configs" / "metadata.json").is_file():
            return str(folder.resolve())
    return os.getcwd()


def _folders_of_config_files(arguments: Sequence[str]) -> list[Path]:
    """Bundles of the files of ``--config_file FILE``, ``--config_file=FILE`` or ``--config_file "['FILE', ...]"``."""
    for name, value in zip(arguments, [*arguments[1:], ""]):
        option, _, attached = name.partition("=")
        if option.lstrip("-").replace("-", "_") == "config_file" and option.startswith("-"):
            names = [part.strip(" '\"") for part in (attached or value).strip("[]()").split(",")]
            return [Path(part).resolve().parent.parent for part in names if part]
    return []


def find_bundle(name: str) -> Path:
    """
    Folder of one of this project's bundles, in a clone or as installed.

    Raises:
        FileNotFoundError: when there is none of that name.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "bundles" / name, package / "bundles" / name):
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    raise FileNotFoundError(f"there is no bundle {name!r} beside or in {package}.")


def plain_errors() -> None:
    """
    From now on, an error that ends the program and that monai_armed itself raised (bad data, bad arguments) is printed
    as its one sentence, and so is a file or folder that cannot be read or written. The whole traceback is shown if the
    environment variable MONAI_ARMED_TRACEBACK is set.
    """
    if not os.environ.get("MONAI_ARMED_TRACEBACK"):
        sys.excepthook = _print_plainly


def _print_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause: BaseException | None = error
    while cause is not None:
        sentence = _sentence(cause)
        if sentence:
            print(f"error: {sentence}", file=sys.stderr)
            print("(set MONAI_ARMED_TRACEBACK=1 to see where)", file=sys.stderr)
            return
        cause = cause.__cause__ or cause.__context__
    sys.__excepthook__(kind, error, trace)


def _sentence(error: BaseException) -> str:
    """What to tell the user of an error; empty where only its traceback can help."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and "monai_armed" in Path(frames[-1].filename).parts
    if ours and isinstance(error, (ValueError, FileNotFoundError)):
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_ACCESS:
        place = f"{error.filename} cannot be read or written" if error.filename else "a file cannot be written"
        return f"{place} ({error.strerror}); choose another place, such as with --output_dir FOLDER."
    found = WORKER_ERROR.findall(str(error))
    return str(found[0]) if found else ""


def require_versions() -> None:
    """
    Check what ``metadata.json`` promises, which MONAI does not.

    Raises:
        ValueError: when MONAI or PyTorch is too old.
    """
    import monai
    from packaging.version import Version

    for name, found, wanted in (("MONAI", monai.__version__, "1.6.1"), ("PyTorch", torch.__version__, "2.8")):
        if Version(Version(found).base_version) < Version(wanted):
            raise ValueError(f"{name} {found} is too old: this bundle needs {wanted} or newer, update it.")
