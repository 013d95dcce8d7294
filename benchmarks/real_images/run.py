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

"""Dermoscopic images with one source left out in turn; ``python benchmarks/real_images/run.py --data FOLDER``.

Every network of :py:data:`training.TRAININGS` is trained on the other sources and kept in ``OUT/networks``, so that a
run that is stopped goes on where it was; then each row of :py:data:`rows.ROWS` is made from a trained network, and
``results.csv``, ``results.md`` and the picture ``trade_off.png`` are written.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from dermoscopy import leave_one_out, read_dermoscopy
from results import write_results
from rows import ROWS, Latents, read_latents
from scores import score
from tqdm import tqdm
from trade_off import draw_trade_off
from training import TRAININGS, build_network, read_images, train

from monai_armed.data.replaced_file import replaced_file


def trained(folder: Path, name: str, left_out: str, seed: int, args: argparse.Namespace, parts: dict, images: dict):
    """
    The network of a training, and the seconds that it took: read where it is there, else trained and kept. Of what an
    earlier version has kept, seconds and training images are not known.

    Raises:
        ValueError: when the network that is there was trained on other images.
    """
    path = folder / f"{name} {left_out} {seed}.pt".replace(" ", "_")
    note, own = path.with_suffix(".json"), _hash(parts["train"])
    if path.exists():
        known = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        if known.get("images", own) != own:
            raise ValueError(f"{path} was trained on other images than those of {args.data}: give another --out.")
        network = build_network(args.size).to(args.device)
        network.load_state_dict(torch.load(path, map_location=args.device, weights_only=True))
        return network.eval(), known.get("seconds", float("nan"))
    begun = time.monotonic()
    network = train(name, parts["train"], images, args.size, args.epochs, seed, args.device)
    seconds = round(time.monotonic() - begun, 1)
    note.write_text(json.dumps({"seconds": seconds, "images": own}), encoding="utf-8")
    with replaced_file(path) as partial:
        torch.save(network.state_dict(), partial)
    return network, seconds


def _hash(part: pd.DataFrame) -> str:
    """Of the names, labels and sources of a part's images, wherever they lie."""
    names = [Path(image).stem for image in part["image"]]
    return hashlib.sha256(part.assign(image=names).to_csv(index=False).encode()).hexdigest()


def arguments(description: str | None) -> argparse.Namespace:
    """Of the command line: data, networks and where they are kept."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of HAM10000, or with images.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/real_images"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=48, help="pixels of a side")
    parser.add_argument("--trainings", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def read_trainings(
    args: argparse.Namespace,
) -> Iterator[tuple[dict[str, Any], dict[str, pd.DataFrame], dict[str, Latents], torch.nn.Linear, float]]:
    """Of each network: which it is, the parts of its data, what its last layer reads of them, that layer, seconds."""
    table = read_dermoscopy(args.data)
    images = read_images(table, args.size)
    folder = args.out / f"networks_{args.size}px_{args.epochs}_epochs"
    folder.mkdir(parents=True, exist_ok=True)
    plan = list(itertools.product(args.trainings, range(args.seeds), sorted(set(table["source"]))))
    for name, seed, left_out in tqdm(plan, desc="trainings"):
        parts = leave_one_out(table, left_out, seed)
        network, seconds = trained(folder, name, left_out, seed, args, parts, images)
        which = {"training": name, "left out": left_out, "seed": seed}
        yield which, parts, read_latents(network, parts, images, args.device), network.head.cpu(), seconds


def main() -> None:
    args = arguments(__doc__)
    results: list[dict[str, Any]] = []
    text = ""
    for which, parts, latents, head, training_seconds in read_trainings(args):
        split = {name: which[name] for name in ("left out", "seed")}
        for row, make in ROWS.get(which["training"], {}).items():
            begun = time.monotonic()
            prediction = make(head, latents)
            seconds = {"training seconds": training_seconds, "further seconds": time.monotonic() - begun}
            results.append({"model": row, **split, **score(prediction, parts), **seconds})
        text = write_results(pd.DataFrame(results), args.out)
    if results:
        draw_trade_off(pd.DataFrame(results), args.out / "trade_off.png")
    print(text)


if __name__ == "__main__":
    main()
