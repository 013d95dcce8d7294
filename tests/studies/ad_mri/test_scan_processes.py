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

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from monai_armed.studies.ad_mri.scan_processes import in_processes

PARENT = """
import os, sys, time
from monai_armed.studies.ad_mri.scan_processes import in_processes

def write_process_and_work(file):
    with open(file, "w") as opened:
        opened.write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    list(in_processes(write_process_and_work, sys.argv[1:], 2))
"""


def die_on_b(name):
    if name == "b":
        os._exit(9)
    return name.upper()


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_process_is_this_one():
    assert list(in_processes(str.upper, ["a", "c"], 1)) == [("a", "A"), ("c", "C")]


@pytest.mark.slow
def test_a_killed_process_takes_no_other_task_with_it():
    names = "abcdefg"
    found = list(in_processes(die_on_b, names, 2))
    assert dict(found) == {name: None if name == "b" else name.upper() for name in names}
    assert len(found) == len(names)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="it looks into /proc for the processes")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_no_process(tmp_path, how):
    files = [tmp_path / name for name in "ab"]
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, script, *files])
    wait_until(lambda: all(file.is_file() and file.read_text() for file in files))
    parent.send_signal(how)
    parent.wait()
    wait_until(lambda: not any(alive(file.read_text()) for file in files), seconds=30)


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
