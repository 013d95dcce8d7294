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

"""Training step of a mixed effects network with 10,000 clusters against 10; run ``python benchmarks/clusters.py``.

A dense network on 16 features with random intercept and 16 linear slopes, batch 256, no adversary. A step looks up and
draws the batch's clusters only, and the KL term is estimated from 256 clusters where there are more than 1,000. What
still goes over the whole table is the optimizer: PyTorch's fused Adam does that in a fraction of the time of Nadam,
which has no fused form.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from step_cost import Step, measure, report, step_of

from monai_armed.networks import ARMED, DFNN

FEATURES, BATCH_SIZE = 16, 256
OPTIMIZERS = {"fused Adam": partial(torch.optim.Adam, fused=True), "Nadam": torch.optim.NAdam}


def step_with(num_clusters: int, optimizer: str) -> Step:
    """Training step with this number of clusters."""
    network = ARMED(
        DFNN(FEATURES), num_clusters, (FEATURES,), adversary=None, nonlinear_slopes=False, linear_slopes=True
    )
    batch = {
        "image": torch.randn(BATCH_SIZE, FEATURES),
        "label": torch.randint(2, (BATCH_SIZE,)),
        "cluster": torch.randint(num_clusters, (BATCH_SIZE,)),
    }
    return step_of(network, batch, make_optimizer=OPTIMIZERS[optimizer])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for optimizer in OPTIMIZERS:
        steps = {f"{n:,} clusters, {optimizer}": step_with(n, optimizer) for n in (10, 100, 1_000, 10_000)}
        report(measure(steps, arguments.rounds), digits=2)


if __name__ == "__main__":
    main()
