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


"""``make demo``: the AD study from simulated MRI, conventional networks beside an ARMED one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.transforms import Compose
from sklearn.metrics import roc_auc_score

from monai_armed.bundle import find_bundle
from monai_armed.bundle.config_warning import environment_after_warning
from monai_armed.studies.ad_mri.figures import plot_loss_terms, plot_results, plot_slices
from monai_armed.studies.ad_mri.partitions import ad_mri_partitions
from monai_armed.studies.ad_mri.simulator import simulate_ad_mri
from monai_armed.transforms import CoronalSliced, LoadVolumed
from monai_armed.visualize.mixed_model import plot_caterpillar

__all__ = ["run_demo"]

SCALE, UNSEEN_SCALE = 1.0, 0.3
SIMULATION_SEED = 1  # the bundle's hyperparameters were chosen on the draw of seed 0, so that is not shown
MODELS = {
    "conventional": ("conventional", "unaugmented"),
    "conventional, augmented": ("conventional",),
    "ARMED": (),
}  # override files of each


def run_demo(folder: str | Path = "demo_output") -> pd.DataFrame:
    """
    Simulate the study, train and evaluate the networks through ``python -m monai.bundle run``, print how they did
    beside what is possible, and write figures. What an earlier, interrupted run has done is not done again.

    Args:
        folder: where everything is written.

    Returns:
        the table that is printed, a row for each partition, model and prediction.
    """
    folder = Path(folder).resolve()
    data = simulate_ad_mri(folder / "data", SCALE, SIMULATION_SEED, unseen_scale=UNSEEN_SCALE)
    tables, environment = [], dict(os.environ)
    for model, overrides in MODELS.items():
        output = folder / model
        print(f"\n=== {model} network: training and evaluation through monai.bundle ===", flush=True)
        if not (output / "model.pt").is_file():
            _bundle("train", overrides, output, data, environment, resume="true")
            environment = environment_after_warning(os.environ)
        _bundle("evaluate", overrides, output, data, environment, ckpt_path=output / "model.pt")
        environment = environment_after_warning(os.environ)
        tables.append(pd.read_csv(output / "metrics.csv").assign(model=model))
    table = pd.concat(tables, ignore_index=True)
    _report(table, folder)
    return table


def _bundle(
    step: str,
    overrides: tuple[str, ...],
    output: Path,
    data: Path,
    environment: dict[str, str],
    **options: object,
) -> None:
    configs = find_bundle("armed_ad_mri") / "configs"
    steps = ["train"] if step == "train" else ["train", step]
    files = [str(configs / f"{name}.json") for name in (*steps, *overrides)]
    arguments = {"dataset_dir": data, "output_dir": output, "cache_dir": output.parent / "cache", **options}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
    for name, value in arguments.items():
        command += [f"--{name}", str(value)]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise ValueError(f"{step} of {output.name} failed, see above; what is done is kept in {output}.")


def _report(table: pd.DataFrame, folder: Path) -> None:
    partitions = ad_mri_partitions(folder / "data")
    ceilings = json.loads((folder / "data" / "derivatives" / "truth" / "ceilings.json").read_text())
    site_only = _site_only(partitions)
    columns = [
        "partition",
        "model",
        "prediction",
        "samples",
        "auroc",
        "balanced_accuracy",
        "sensitivity",
        "specificity",
    ]
    print("\n=== SIMULATED study: 12 seen sites (test subjects) and 51 unseen sites ===")
    for partition in ("seen", "unseen"):
        rows = table[table["partition"] == partition].sort_values(["model", "prediction"], ascending=[False, True])
        shown = [*columns[1:], "leak"] if partition == "unseen" else columns[1:]
        print(f"\n{partition} sites\n" + rows[shown].to_string(index=False, float_format="%.3f"))
        for name in ("h_v", "roi_volumes", "roi_areas"):
            print(f"  ceiling, {CEILINGS[name]}: AUROC {ceilings[f'{partition}/{name}']:.3f}")
        if partition == "seen":
            print(f"  site alone, no image (its AD share in training): AUROC {site_only:.3f}")
            print(f"  ceiling, {CEILINGS['roi_areas']} and site: AUROC {ceilings['seen/roi_areas_site']:.3f}")
    print(
        "\nleak: AUROC with which the score tells General Electric scanners among CONTROLS of unseen sites; 0.5 is none"
    )
    effects = _random_effects(folder / "ARMED", partitions)
    _verdicts(table, effects)
    lines = {p: {"ceiling: areas in the slice": ceilings[f"{p}/roi_areas"], "chance": 0.5} for p in ("seen", "unseen")}
    lines["seen"]["site alone"] = site_only
    lines["leak"] = {"no leak": 0.5}
    figures = [
        plot_slices(*_example_slices(partitions["train"]), folder / "figures" / "slices.png"),
        plot_results(table, lines, folder / "figures" / "results.png"),
        plot_caterpillar(effects, folder / "figures" / "random_intercepts.png"),
        plot_loss_terms(_loss_terms(folder / "ARMED"), math.log(len(effects)), folder / "figures" / "training.png"),
    ]
    print("\nfigures:", *figures, sep="\n  ")


CEILINGS = {
    "h_v": "the volumes drawn",
    "roi_volumes": "hippocampus and ventricle volumes in the image",
    "roi_areas": "their areas in the slice",
}


def _site_only(partitions: dict) -> float:
    train = pd.DataFrame(partitions["train"])
    share = train.groupby("site")["label"].mean()
    test = pd.DataFrame(partitions["test"])
    return float(roc_auc_score(test["label"], test["site"].map(share).fillna(train["label"].mean())))


def _random_effects(folder: Path, partitions: dict) -> pd.DataFrame:
    """Random intercepts of the trained ARMED network; prints whether the effects have left their start."""
    state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    loc, log_scale = (state[f"random_slopes.cluster.effects.{name}"] for name in ("loc", "log_scale"))
    scale = log_scale.exp()
    intercept, intercept_scale = loc[:, -1].numpy(), scale[:, -1].numpy()
    print(
        f"\nrandom effects: slopes' posterior means have s.d. {loc[:, :-1].std():.3f}, "
        f"intercepts' {intercept.std():.3f} "
        f"(start 0); posterior s.d. of slopes {scale[:, :-1].mean():.3f}, of intercepts {scale[:, -1].mean():.3f} "
        "(start 0.050)"
    )
    share = pd.DataFrame(partitions["train"]).groupby("site")["label"].mean().reindex(partitions["sites"])
    correlation = np.corrcoef(intercept, share.fillna(share.mean()))[0, 1]
    print(f"random intercepts and the sites' AD share in training: Pearson r = {correlation:.2f}")
    return pd.DataFrame(
        {
            "mean": intercept,
            "low": intercept - 1.96 * intercept_scale,
            "high": intercept + 1.96 * intercept_scale,
            "note": ["(none in training)" if np.isnan(s) else f"({s:.0%} AD)" for s in share],
        },
        index=partitions["sites"],
    )


def _verdicts(table: pd.DataFrame, effects: pd.DataFrame) -> None:
    """Say in words what the numbers show, whichever way they point."""
    values = table.set_index(["model", "partition", "prediction"])
    mixed, random = (values.loc[("ARMED", "seen", p), "auroc"] for p in ("mixed", "randomized"))
    print(
        f"randomized Z {'lowers' if random < mixed else 'DOES NOT LOWER'} the mixed prediction on seen sites: "
        f"AUROC {mixed:.3f} with the true site, {random:.3f} with a random one"
    )
    leak = values.loc[("ARMED", "unseen", "fixed"), "leak"]
    for model in MODELS:
        if model != "ARMED":
            before = values.loc[(model, "unseen", "fixed"), "leak"]
            print(
                f"ARMED's leak (fixed effects) is {'below' if leak < before else 'NOT BELOW'} that of {model}: "
                f"{leak:.3f} against {before:.3f}"
            )


def _example_slices(datalist: list[dict]) -> tuple[list[np.ndarray], list[str]]:
    from monai.transforms import ScaleIntensityRangePercentilesd

    load = Compose(
        [
            LoadVolumed("image", ensure_channel_first=True),
            CoronalSliced("image", size=80),
            ScaleIntensityRangePercentilesd("image", 2, 98, 0, 1),
        ]
    )
    wanted = [(m, d) for d in (0, 1) for m in ("General Electric", "Philips", "Siemens")]
    chosen = []
    for maker, label in wanted:
        found = [d for d in datalist if d["manufacturer"] == maker and d["label"] == label]
        chosen += found[:1] + found[-1:]
    names = {0: "CN", 1: "AD"}
    slices = [np.asarray(load({"image": d["image"]})["image"][0]) for d in chosen]
    return slices, [f"{names[d['label']]}, {d['manufacturer']}\nsite {d['site']}" for d in chosen]


def _loss_terms(folder: Path) -> pd.DataFrame:
    """Mean of each loss term by epoch, from what training wrote for TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    frame = pd.DataFrame(
        {
            name: pd.Series({event.step: event.value for event in events.Scalars(name)})
            for name in ("mixed", "fixed", "adversary", "kl")
        }
    )
    last = torch.load(folder / "network" / "checkpoint.pt", map_location="cpu", weights_only=True)["progress"]
    steps = last["iteration"] // last["epoch"]
    return frame.groupby((frame.index - 1) // steps + 1).mean()
