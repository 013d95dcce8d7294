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

"""NVFLARE's client script (Client API): one hospital that answers the server's messages."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path
from urllib.parse import unquote

import nvflare.client as flare

from monai_armed.federated.hospital_config import hospitals_study
from monai_armed.federated.hospital_process import HospitalProcess
from monai_armed.federated.message import Message
from monai_armed.federated.nvflare_messages import from_flare, to_flare
from monai_armed.federated.record import recorded

ERROR = "error.txt"


def answer_without_names(hospital: HospitalProcess, message: Message, folder: Path) -> Message:
    """
    What is wrong with a hospital's data, and names subjects and files, stays in its folder: NVFLARE logs errors, and
    its clients send the error log to the server.
    """
    try:
        return hospital.answer(message)
    except Exception:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR).write_text(traceback.format_exc(), encoding="utf-8")
        raise RuntimeError(f"no answer to {message.kind!r}: {ERROR} in the hospital's own folder says why.") from None


def main() -> None:
    """Answer until the job is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle on this machine")
    parser.add_argument("--folder", type=Path, required=True, help="where the hospital keeps what is its own")
    parser.add_argument("--hospitals", type=int, default=1, help="simulated hospitals that share the bundle's clusters")
    parser.add_argument("--model", default="", help="its override files, names joined by '+'")
    parser.add_argument("--set", default="{}", help="config values by id, as JSON")
    arguments = parser.parse_args([unquote(word) for word in sys.argv[1:]])

    flare.init()
    site = flare.get_site_name()
    number = int(site.rpartition("-")[2]) - 1 if arguments.hospitals > 1 else 0
    study = hospitals_study(arguments.bundle, json.loads(arguments.set), arguments.model)
    own = arguments.folder / site
    (own / ERROR).unlink(missing_ok=True)
    hospital = HospitalProcess(study, own, number, arguments.hospitals)
    ask = recorded(lambda message: {site: answer_without_names(hospital, message, own)}, own / "messages.csv")
    while flare.is_running():
        if (question := flare.receive()) is None:
            break
        flare.send(to_flare(ask(from_flare(question))[site]))
    hospital.close()


if __name__ == "__main__":
    main()
