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

"""Errors as one sentence, where somebody runs a bundle or a command of ours; never in another program's session."""

from __future__ import annotations

import difflib
import errno
import inspect
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from pydoc import locate
from types import TracebackType
from typing import Any

import torch

__all__ = ["plain_errors", "print_plainly", "sentence_of"]

PROGRAMS = ("monai.bundle.__main__", "monai_armed.__main__")
NO_ACCESS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
)
# an error of ours in the traceback that a process of a DataLoader sends as text
WORKER_ERROR = re.compile(r'File ".*[\\/]monai_armed[\\/].*\n(?: .*\n)+(?:ValueError|FileNotFoundError): (.*)')
NO_DEVICE = re.compile(
    r"not compiled with \w+ enabled|not linked with support for \w+ devices|no NVIDIA driver|invalid device ordinal"
    r"|No \w+ GPUs? (?:are|is) available|Could not run 'aten::empty\w*' with arguments from the"
    r"|device type at start of device string|Invalid device string"
    r"|torch\.(?:cuda|xpu)\.is_available\(\) is False",
    re.IGNORECASE,
)
NO_BATCH = "Expected more than 1 value per channel when training"
NO_PART = re.compile(r"Failed to instantiate component '(.*?)'")
NO_ARGUMENT = re.compile(r"got an unexpected keyword argument '(\w+)'")
LACKS = re.compile(r"missing \d+ required .*argument.*")
BUILDING_DEPTH = 4  # frames between MONAI's call of a part and the check that its arguments fail


def plain_errors() -> None:
    """
    If the program is MONAI's bundle command or a command of ours, an error that ends it is printed as its one sentence
    from now on, see :py:func:`sentence_of`. The whole traceback is shown if the environment variable
    MONAI_ARMED_TRACEBACK is set.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is not None and program.name in PROGRAMS and not os.environ.get("MONAI_ARMED_TRACEBACK"):
        sys.excepthook = print_plainly
        threading.excepthook = _print_of_thread


def print_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error's sentence, or its traceback where it has none; a ``sys.excepthook``."""
    sentence = sentence_of(error)
    if not sentence:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {sentence}", file=sys.stderr)
    print("(set MONAI_ARMED_TRACEBACK=1 to see where)", file=sys.stderr)


def _print_of_thread(failure: threading.ExceptHookArgs) -> None:
    """The same of an error that ends a thread, such as TensorBoard's on a full disk; it may end the program, too."""
    sentence = sentence_of(failure.exc_value) if failure.exc_value is not None else ""
    if sentence:
        print(f"error in a thread: {sentence}", file=sys.stderr)
    else:
        threading.__excepthook__(failure)


def sentence_of(error: BaseException) -> str:
    """
    What to tell the user of an error: bad data and bad arguments in our own words; what a part of the config says
    against its arguments; files, folders and devices that cannot be used.

    Args:
        error: the error, with those that it came from.

    Returns:
        one sentence; empty where only the traceback can help.
    """
    place = ""
    for cause in _chain(error):
        place = _config_id(cause) or place
        if sentence := _of_ours(cause) or _of_the_machine(cause) or _of_the_config(cause, place):
            return sentence
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_ours(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if frames and "monai_armed" in Path(frames[-1].filename).parts and isinstance(error, (ValueError, OSError)):
        if not isinstance(error, OSError) or error.errno is None:
            return str(error)
    found = WORKER_ERROR.findall(str(error))
    return str(found[0]) if found else ""


def _of_the_machine(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in NO_ACCESS:
        place = f"{error.filename} cannot be read or written" if error.filename else "a file cannot be written"
        return f"{place} ({error.strerror}); choose another place, such as with --output_dir FOLDER."
    if isinstance(error, torch.OutOfMemoryError):
        return "the memory of the GPU is full: give a smaller batch_size, or another device."
    if isinstance(error, (RuntimeError, AssertionError)) and NO_DEVICE.search(str(error)):
        return f"this machine has no such device ({str(error).splitlines()[0].rstrip('.')}): give --device cpu."
    if isinstance(error, ValueError) and NO_BATCH in str(error):
        return "a batch of one sample, maybe the last one, cannot be normalised in training: give another batch_size."
    return ""


def _of_the_config(error: BaseException, place: str) -> str:
    """What a part says against what the config gives it, or MONAI against the config; not what fails long after."""
    where = f"{place.replace('::', '#')}: " if place else ""
    frames = traceback.extract_tb(error.__traceback__)
    last = Path(frames[-1].filename).parts[-3:] if frames else ()
    if isinstance(error, ValueError) and last[:2] == ("monai", "bundle"):
        return f"{where}{error}"
    if isinstance(error, ModuleNotFoundError) and "Cannot locate class or function" in str(error):
        return f"{where}there is no {str(error).rpartition(': ')[2].rstrip('.')}: check _target_ and what is installed."
    part, cause = NO_PART.search(str(error)), error.__cause__
    if part is None or not isinstance(cause, (TypeError, ValueError)):
        return ""
    frames = traceback.extract_tb(cause.__traceback__)
    if wrong := NO_ARGUMENT.search(str(cause)):
        known = _arguments(locate(part[1]))
        close = difflib.get_close_matches(wrong[1], known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}."
        return f"{where}{part[1]} has no argument {wrong[1]!r}: {hint}"
    if lacks := LACKS.search(str(cause)):
        return f"{where}{part[1]} is {lacks[0]}."
    ours = "monai_armed" in Path(frames[-1].filename).parts
    return "" if ours or len(frames) > 1 + BUILDING_DEPTH else f"{where}{str(cause).rstrip('.')} ({part[1]})."


def _arguments(part: Any) -> list[str]:
    """Arguments that a part takes, a class also those that it hands on to what it derives from."""
    found: dict[str, inspect.Parameter] = {}
    for place in inspect.getmro(part) if inspect.isclass(part) else (part,):
        taken = inspect.signature(place).parameters
        found.update(taken)
        if all(argument.kind is not argument.VAR_KEYWORD for argument in taken.values()):
            break
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [name for name, argument in found.items() if argument.kind not in variable]


def _config_id(error: BaseException) -> str:
    """Id of the innermost part of a config that an error went through."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "_resolve_one_item":
            found = str(trace.tb_frame.f_locals.get("id", ""))
        trace = trace.tb_next
    return found
