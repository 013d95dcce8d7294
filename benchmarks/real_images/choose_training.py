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

"""
Which training lies best beneath ARMED's erasure: ``python benchmarks/real_images/choose_training.py --data FOLDER``

Looks at validation images of seen sources alone, with the networks that ``run.py`` has kept in ``OUT``. Of the
trainings whose fixed effects, erased within class, leak at most .55 there (mean over seeds and sources left out), the
one with the highest AUROC within a source is chosen.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import pandas as pd
from dermoscopy import leave_one_out, read_dermoscopy
from rows import ROWS, read_latents
from run import trained
from scores import score
from tqdm import tqdm
from training import TRAININGS, read_images

MOST_LEAK = 0.55


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of HAM10000, or with images.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/real_images"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=48, help="pixels of a side")
    parser.add_argument("--trainings", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    table = read_dermoscopy(args.data)
    images = read_images(table, args.size)
    folder = args.out / f"networks_{args.size}px_{args.epochs}_epochs"
    erase = ROWS["conventional"]["ARMED: erased within class"]
    found = []
    plan = list(itertools.product(args.trainings, range(args.seeds), sorted(set(table["source"]))))
    for name, seed, left_out in tqdm(plan, desc="erased"):
        parts = leave_one_out(table, left_out, seed)
        network, _ = trained(folder, name, left_out, seed, args, parts, images)
        parts = {"train": parts["train"], "test": parts["val"], "unseen": parts["val"]}  # nothing else is looked at
        latents, head = read_latents(network, parts, images, args.device), network.head.cpu()
        found.append({"training": name, "left out": left_out, "seed": seed, **score(erase(head, latents), parts)})
    results = pd.DataFrame(found)
    scores = ["within source", "leak", "seen fixed", "seen mixed"]
    print(results.pivot_table(values=scores, index="training", columns="left out", sort=False).round(3).to_markdown())
    means = results.groupby("training", sort=False)[scores].mean()
    print(means.round(4).to_markdown())
    allowed = means[means["leak"] <= MOST_LEAK]
    print(f"chosen: {allowed['within source'].idxmax()}" if len(allowed) else f"none leaks at most {MOST_LEAK}")


if __name__ == "__main__":
    main()
