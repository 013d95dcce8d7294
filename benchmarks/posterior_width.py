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


"""How much narrower the variational intervals of random effects are than NUTS's; all measured in one run.

Run ``python benchmarks/posterior_width.py``. A linear mixed model (random intercept and slope) is simulated and fitted
by ARMED with a learned prior. Then the posterior of the random effects is drawn by NUTS twice: given the fixed effects
and variance components that ARMED has learned, and with all of these unknown, as they are. The first comparison shows
what the form of the posterior costs, the second also what is lost by taking learned weights for known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import pyro
import torch
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.networks import ARMED, DFNN

CLUSTERS, SAMPLES, RESIDUAL = 20, 10, 1.0
TRUE_SD = torch.tensor([0.6, 1.0])  # of the slope and the intercept

Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def simulate(mean: float, seed: int = 0) -> Data:
    """Feature, target and cluster; the further the feature's mean is from 0, the more slope and intercept correlate."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.arange(CLUSTERS).repeat_interleave(SAMPLES)
    x = mean + torch.randn(len(cluster), 1, generator=generator)
    u = TRUE_SD * torch.randn(CLUSTERS, 2, generator=generator)
    noise = RESIDUAL * torch.randn(len(cluster), generator=generator)
    return x, 2 + 1.5 * x[:, 0] + u[cluster, 0] * x[:, 0] + u[cluster, 1] + noise, cluster


def fit(data: Data, covariance: str, steps: int = 1500) -> tuple[ARMED, float]:
    """Linear ARMED with a learned prior, and the residual's s.d."""
    torch.manual_seed(0)
    x, y, cluster = data
    options = {"learn_prior": True, "covariance": covariance, "sampling": "sample", "prior_scale": 1.0}
    net = ARMED(DFNN(1, hidden_channels=()), CLUSTERS, (1,), adversary=None, random_effects=options)
    loss = ARMEDLoss(GaussianLikelihoodLoss(), lambda_fixed=0, lambda_kl=1 / len(y))
    optimizer = torch.optim.Adam([*net.parameters(), *loss.parameters()], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net(x, cluster), {"label": y, "cluster": cluster}).backward()
        optimizer.step()
        schedule.step()
    assert isinstance(loss.loss, GaussianLikelihoodLoss)
    return net.eval().requires_grad_(False), loss.loss.scale.item()


def given_weights(net: ARMED, residual: float, data: Data) -> Callable[[], None]:
    """Pyro model of the random effects alone, the rest as learned."""
    x, y, cluster = data

    def model() -> None:
        logits = net.pyro_model(x, cluster).squeeze(1)
        pyro.sample("y", dist.Normal(logits, residual).to_event(1), obs=y)

    return pyro.poutine.block(model, hide=["u_new"])


def all_unknown(data: Data, full: bool) -> Callable[[], None]:
    """Pyro model of the whole linear mixed model, with weak priors."""
    x, y, cluster = data

    def model() -> None:
        beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        sd = pyro.sample("sd", dist.HalfNormal(5.0).expand([2]).to_event(1))
        residual = pyro.sample("residual", dist.HalfNormal(5.0))
        tril = sd.diag()
        if full:
            tril = tril @ pyro.sample("corr", dist.LKJCholesky(2, 1.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([CLUSTERS, 2]).to_event(2))
        u = pyro.deterministic("u", z @ tril.T)
        mean = (beta[0] + u[cluster, 0]) * x[:, 0] + beta[1] + u[cluster, 1]
        pyro.sample("y", dist.Normal(mean, residual).to_event(1), obs=y)

    return model


def posterior_sd(model: Callable[[], None], draws: int) -> torch.Tensor:
    """Posterior s.d. of each effect by NUTS, (CLUSTERS, 2)."""
    pyro.set_rng_seed(0)
    chain = MCMC(NUTS(model, jit_compile=True, ignore_jit_warnings=True), draws, draws // 2, disable_progbar=True)
    chain.run()
    samples = chain.get_samples()
    if "u" not in samples:
        samples = pyro.infer.Predictive(model, posterior_samples=samples, return_sites=["u"])()
    return samples["u"].reshape(draws, CLUSTERS, 2).std(0)


def main() -> None:
    """Print the ratio of the variational s.d. to NUTS's, as the mean over clusters."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500, help="draws of NUTS after half as many to warm up")
    draws = parser.parse_args().draws
    torch.set_num_threads(1)
    print("SIMULATED data; variational s.d. / NUTS s.d., mean over clusters")
    print("covariance  feature      NUTS with           slope  intercept  seconds")
    for mean in (0.0, 2.0):
        data = simulate(mean)
        for covariance in ("diagonal", "full"):
            net, residual = fit(data, covariance)
            assert net.random_effects is not None
            models = {
                "weights as learned": given_weights(net, residual, data),
                "all unknown": all_unknown(data, covariance == "full"),
            }
            for name, model in models.items():
                start = time.perf_counter()
                ratio = (net.random_effects.scale / posterior_sd(model, draws)).mean(0)
                seconds = time.perf_counter() - start
                text = f"mean {mean:g}"
                print(
                    f"{covariance:11} {text:12} {name:19} {ratio[0]:.2f}   {ratio[1]:.2f}       {seconds:.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
