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

import pandas as pd
from rows import ROWS
from run import arguments, read_trainings
from scores import score

MOST_LEAK = 0.55


def main() -> None:
    erase = ROWS["conventional"]["ARMED: erased within class"]
    found = []
    for which, parts, latents, head, _ in read_trainings(arguments(__doc__)):
        seen = [{"train": kept["train"], "test": kept["val"], "unseen": kept["val"]} for kept in (latents, parts)]
        found.append({**which, **score(erase(head, seen[0]), seen[1])})  # nothing else is looked at
    results = pd.DataFrame(found)
    scores = ["within source", "leak", "seen fixed", "seen mixed"]
    print(results.pivot_table(values=scores, index="training", columns="left out", sort=False).round(3).to_markdown())
    means = results.groupby("training", sort=False)[scores].mean()
    print(means.round(4).to_markdown())
    allowed = means[means["leak"] <= MOST_LEAK]
    print(f"chosen: {allowed['within source'].idxmax()}" if len(allowed) else f"none leaks at most {MOST_LEAK}")


if __name__ == "__main__":
    main()
