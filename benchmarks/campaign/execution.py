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

"""Commands in processes of their own, forked from one that has imported everything: a start takes no 10 seconds."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["run_command", "start_server"]

PRELOADED = [
    "monai.bundle",
    "monai_armed.bundle.evaluate",
    "monai_armed.bundle.training",
    "monai_armed.compare.runner",
    "monai_armed.handlers",
    "monai_armed.studies.ad_mri.saliency",
    "monai_armed.studies.cells.evaluation",
    "monai_armed.studies.mci.study",
    "monai_armed.studies.spirals.study",
]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)


def start_server() -> None:
    """Import everything now, so that the first command takes no longer than the others."""
    process = SERVER.Process(target=os.getpid)
    process.start()
    process.join()


def run_command(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    limit: float,
    kill: Callable[[], bool] = lambda: False,
) -> tuple[int | None, str]:
    """
    What ``python`` with these words would do.

    Args:
        words: ``-m``, a module and its arguments.
        folder: current folder of the command.
        environment: variables in addition to this process's.
        limit: seconds after which it is killed, with all that it has started.
        kill: asked again and again; it is killed as soon as the answer is yes.

    Returns:
        the exit code, None where it was killed; and all that it printed.
    """
    printed = folder / "printed.txt"
    process = SERVER.Process(target=_become, args=(list(words), str(folder), dict(environment), str(printed)))
    process.start()
    end = time.monotonic() + limit
    while process.is_alive() and time.monotonic() < end and not kill():
        process.join(0.02)
    killed = process.is_alive()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid or 0, signal.SIGKILL)  # children that it left behind, too
    process.join()
    text = printed.read_text(encoding="utf-8", errors="replace") if printed.is_file() else ""
    return None if killed else process.exitcode, text


def _become(words: list[str], folder: str, environment: dict[str, str], printed: str) -> None:
    """Turn a forked process into ``python -m module ...``, and end it with that command's exit code."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    sys.argv, sys.path[0] = words[1:], folder
    code: object = 0
    try:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    sys.exit(code if isinstance(code, int) else int(code is not None))
