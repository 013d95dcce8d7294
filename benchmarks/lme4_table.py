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

"""``fit_mixed_model`` beside lme4 on real data; run ``python benchmarks/lme4_table.py`` (a minute of CPU).

lme4's figures and seconds of CPU are those of ``lme4_reference.csv`` in ``tests/mixed_model``, which
``lme4_reference.R`` in the same folder writes; ours are of this run. Printed is a Markdown table: s.d. of the effects
and residual, log-likelihood, and the largest difference of a fixed effect in units of its standard error.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch

from monai_armed.mixed_model import fit_mixed_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "mixed_model"))
from lme4_models import TABLE, linear_network, model_of, prepare


def row(name: str) -> str:
    """One model's line of the table."""
    wanted = TABLE[TABLE["model"] == name]
    kind = name.rsplit("_", 1)[1]
    model = model_of(name)
    net, _, batch, names = linear_network(model)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit = fit_mixed_model(net, [batch], kind, model.family, prepare_batch=prepare, feature_names=names)
    seconds = time.process_time() - start
    components = fit.VarCorr().set_index(["factor", "effect"])["sd"]
    theirs = wanted[wanted["what"] == "sd"]
    ours = [components[r.group.replace(":", "_").removesuffix(".1"), r.effect] for r in theirs.itertuples()]
    fixed = wanted[wanted["what"] == "fixef"].set_index("effect")
    apart = ((fit.fixef().set_index("effect")["estimate"] - fixed["value"]).abs() / fixed["error"]).max()
    (log_likelihood,) = wanted.loc[wanted["what"] == "loglik", "value"]
    (call,) = wanted.loc[wanted["what"] == "call", "error"]
    shown = [" / ".join(f"{value:.4g}" for value in values) for values in (ours, theirs["value"])]
    return (
        f"| {name.replace('_', ' ')} | {shown[0]} | {shown[1]} | {fit.log_likelihood:.2f} | {log_likelihood:.2f} "
        f"| {apart:.4f} | {seconds:.2f} | {call:.2f} |"
    )


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| model | s.d.: ours | lme4 | log-likelihood: ours | lme4 | fixed effects apart | seconds: ours | lme4 |")
    print("|---|---|---|---|---|---|---|---|")
    for name in TABLE["model"].unique():
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
