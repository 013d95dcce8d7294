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

"""Several factors at once: nested and crossed random effects, in the network, in training and in reading them."""

from __future__ import annotations

import copy
import warnings

import pandas as pd
import pyro
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ROCAUC
from monai.utils import set_determinism
from torch.func import functional_call, stack_module_state, vmap

from monai_armed.engines import ARMEDTrainer, PrepareBatchCluster, PrepareBatchRandomCluster
from monai_armed.handlers import RandomEffectsWriter
from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.metrics.mixed_model import VarCorr, ranef, to_arviz
from monai_armed.networks import ARMED, DFNN, ZPredictor
from monai_armed.networks.adaptation import adapt

FACTORS = {"site": 3, "subject": 6}


def _network(**kwargs) -> ARMED:
    torch.manual_seed(0)
    effects = {"subject": {"nonlinear_slopes": False, "prior_scale": 0.8}}
    net = ARMED(DFNN(4), FACTORS, (4,), **{"adversary": "dense", "random_effects": effects, **kwargs})
    with torch.no_grad():
        for slopes in net.random_slopes.values():
            slopes.effects.loc.normal_()
    return net


def _batch() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return torch.randn(4, 4), {"site": torch.tensor([0, 1, 2, -1]), "subject": torch.tensor([0, -1, 5, -1])}


def test_effects_of_all_factors_are_added():
    net, (x, cluster) = _network().eval(), _batch()
    site, subject = (net.random_slopes[name].effects for name in FACTORS)
    assert net.random_effects is site
    assert (site.num_clusters, site.num_effects) == (3, 5) and (subject.num_clusters, subject.num_effects) == (6, 1)
    fixed, random = net(x, effects="fixed"), net(x, cluster, effects="random")
    torch.testing.assert_close(net(x, cluster), fixed + random)
    h = net.network.hidden(x)
    of_site = (h * site.loc[cluster["site"], :4]).sum(1, keepdim=True) + site.loc[cluster["site"], 4:]
    of_subject = subject.loc[cluster["subject"]]
    torch.testing.assert_close(random[[0, 2]], (of_site + of_subject)[[0, 2]])
    torch.testing.assert_close(random[1], of_site[1])  # a new subject of a known site
    assert random[3].item() == 0
    torch.testing.assert_close(net(x, {"site": cluster["site"]}, effects="random")[:3], of_site[:3])
    torch.testing.assert_close(net(x, cluster["site"]), net(x, {"site": cluster["site"]}))
    torch.testing.assert_close(net(x), fixed)


def test_training_gives_one_kl_and_an_adversary_of_the_first_factor():
    net, (x, cluster) = _network(), _batch()
    out = net(x, cluster)
    assert set(out) == {"mixed", "fixed", "adversary", "kl"} and out["adversary"].shape == (4, 3)
    torch.testing.assert_close(out["kl"], sum(slopes.effects.kl() for slopes in net.random_slopes.values()))
    loss, label = ARMEDLoss(torch.nn.BCEWithLogitsLoss()), torch.ones(4)
    loss(out, {"label": label, "cluster": torch.arange(4) % 3}).backward()
    for slopes in net.random_slopes.values():
        assert slopes.effects.loc.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="the adversary guesses one factor, the network's first"):
        loss(net(x, cluster), {"label": label, "cluster": cluster})


def test_one_factor_is_the_case_of_one():
    torch.manual_seed(0)
    plain = ARMED(DFNN(4), 3, (4,), adversary=None)
    torch.nn.init.normal_(plain.random_effects.loc)
    named = ARMED(copy.deepcopy(plain.network), {"site": 3}, (4,), adversary=None)
    assert list(plain.random_slopes) == ["cluster"] and list(named.random_slopes) == ["site"]
    named.load_state_dict({k.replace("slopes.cluster.", "slopes.site."): v for k, v in plain.state_dict().items()})
    x, cluster = _batch()
    plain.eval(), named.eval()
    torch.testing.assert_close(named(x, {"site": cluster["site"]}), plain(x, cluster["site"]))
    torch.testing.assert_close(named(x, cluster["site"]), plain(x, {"cluster": cluster["site"]}))


def test_a_factor_may_be_for_the_adversary_alone():
    nothing = {"nonlinear_slopes": False, "intercept": False}
    net, (x, cluster) = _network(random_effects={"site": nothing}), _batch()
    assert list(net.random_slopes) == ["subject"] and net(x, cluster)["adversary"].shape == (4, 3)
    neither = _network(random_effects={"site": nothing, "subject": nothing})
    assert not len(neither.random_slopes) and set(neither(x, cluster)) == {"fixed", "adversary"}


def test_traces_exports_compiles_and_stacks():
    torch.manual_seed(0)
    many = {"site": 3, "subject": 1500}  # so many that training estimates the KL
    nets = [ARMED(DFNN(4), many, (4,), adversary=None) for _ in range(2)]
    x, cluster = _batch()
    params, buffers = stack_module_state(nets)
    out = vmap(lambda p, b: functional_call(nets[0], (p, b), (x, cluster)), randomness="different")(params, buffers)
    assert out["mixed"].shape == (2, 4, 1) and out["kl"].shape == (2,)
    assert torch.compile(nets[0], backend="eager")(x, cluster)["mixed"].shape == (4, 1)
    net = nets[0].eval()
    exported = torch.export.export(net, (x, cluster)).module()
    torch.testing.assert_close(exported(x, cluster), net(x, cluster))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(torch.jit.trace(net, x)(x), net(x))


def test_unknown_clusters_by_factor():
    net, (x, cluster) = _network().eval(), _batch()
    with pytest.raises(ValueError, match="the subject of 2 of 4 samples is not known"):
        net(x, {**cluster, "site": torch.tensor([0, 1, 2, 0])}, unknown="error")
    with pytest.raises(ValueError, match="no subject was given"):
        net(x, {"site": torch.tensor([0, 1, 2, 0])}, unknown="error")
    z_predictor = ZPredictor(DFNN(4, 3), 3).eval()
    net.attach_z_predictor(z_predictor)
    z = z_predictor(x)
    z[:3] = torch.eye(3)
    torch.testing.assert_close(net(x, cluster), net(x, {**cluster, "site": z}))  # of the site, not of the subject
    torch.testing.assert_close(net(x), net(x, {"site": z_predictor(x), "subject": torch.full((4,), -1)}))


def test_draws_are_those_of_pyro():
    net, (x, cluster) = _network().eval(), _batch()
    predictive = pyro.infer.Predictive(net.pyro_model, guide=net.pyro_guide, num_samples=3000)
    draws = predictive(x, cluster)
    assert draws["u_site"].shape == (3000, 3, 5) and draws["u_subject"].shape == (3000, 6, 1)
    logits = draws["logits"].squeeze(-1)
    ours = net.sample_logits(x, cluster, 3000).squeeze(-1)
    torch.testing.assert_close(ours.mean(0), logits.mean(0), atol=0.07, rtol=0)
    torch.testing.assert_close(ours.std(0), logits.std(0), atol=0.02, rtol=0.1)
    # a new subject's intercept is drawn from its prior, on top of its site's posterior
    assert float(ours[:, 1].std()) == pytest.approx((0.8**2 + float(ours[:, 0].std()) ** 2) ** 0.5, rel=0.1)


def test_adapt_finds_a_new_subject_given_its_site():
    # conjugate: y = fixed + u_site + u_subject + e, of which all but u_subject is known
    torch.manual_seed(0)
    effects = {"subject": {"prior_scale": 0.8}}
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": effects}
    net = ARMED(DFNN(2, hidden_channels=()), FACTORS, (2,), **options).eval()
    torch.nn.init.normal_(net.random_slopes["site"].effects.loc)
    x, site = torch.randn(10, 2), torch.full((10,), 1)
    with torch.no_grad():
        known = net(x, {"site": site}).squeeze(1)
    y = known + 0.9 + 0.5 * torch.randn(10)
    adapted = adapt(
        net, x, y, GaussianLikelihoodLoss(0.5), steps=600, num_draws=64, factor="subject", cluster={"site": site}
    )
    precision = 10 / 0.25 + 1 / 0.8**2
    mean = (y - known).sum() / 0.25 / precision
    subject = adapted.random_slopes["subject"].effects
    assert subject.loc[6].item() == pytest.approx(mean.item(), abs=0.02)
    assert subject.scale[6].item() == pytest.approx(precision**-0.5, rel=0.05)
    assert adapted.factors == {"site": 3, "subject": 7} and net.factors == FACTORS
    new = adapted(x, {"site": site, "subject": torch.full((10,), 6)}).squeeze(1)
    torch.testing.assert_close(new, known + subject.loc[6])
    with pytest.raises(ValueError, match="what a new subject is like"):
        adapt(net, x, factor="subject")
    with pytest.raises(ValueError, match=r"random effects of \['site', 'subject'\], not of the factor 'scanner'"):
        adapt(net, x, y, GaussianLikelihoodLoss(0.5), factor="scanner")
    with pytest.raises(ValueError, match="whose subject is the new one: leave it out"):
        adapt(net, x, y, GaussianLikelihoodLoss(0.5), factor="subject", cluster={"subject": site})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: net.train()(x, torch.tensor([0, 1, 2, 0])), r"in training pass the cluster as a dict"),
        (lambda net, x: net(x, {"scanner": torch.zeros(4).long()}), r"given for \['scanner'\], but the network has"),
        (lambda net, x: net(x, {"subject": torch.tensor([0, 1, 6, 0])}), "subject index 6 is out of range.* 0 to 5"),
        (lambda net, x: net(x, {"site": torch.rand(4, 6)}), r"soft site assignment .* \(4, 3\), got \(4, 6\)"),
        (lambda net, x: _network(random_effects={"scanner": {}}), r"random_effects is for \['scanner'\]"),
        (lambda net, x: ARMED(DFNN(4), {"type": 3}, (4,)), "a factor cannot be called 'type'"),
        (lambda net, x: ARMED(DFNN(4), {}, (4,)), "num_clusters must name a factor"),
        (lambda net, x: ranef(net, ["a", "b", "c"]), "must be a mapping of .* to lists, got list"),
        (lambda net, x: ranef(net, {"site": ["a"]}), "3 clusters of the factor 'site', got 1 names"),
        (lambda net, x: PrepareBatchCluster(cluster_key=[]), "cluster_key must name one key"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(_network().eval(), _batch()[0])


def test_reading_names_the_factor():
    net, names = _network(), {"site": list("abc")}
    effects = ranef(net, names)
    columns = ["factor", "cluster", "group", "effect", "mean", "sd", "low", "high"]
    assert list(effects.columns) == columns and len(effects) == 3 * 5 + 6
    of_b = effects[(effects["cluster"] == "b") & (effects["effect"] == "(Intercept)")]
    assert of_b["mean"].item() == net.random_slopes["site"].effects.loc[1, 4].item()
    of_5 = effects[(effects["factor"] == "subject") & (effects["cluster"] == 5)]
    assert of_5["mean"].item() == net.random_slopes["subject"].effects.loc[5, 0].item()
    components = VarCorr(net, residual_scale=0.5)
    assert components["factor"].tolist()[:6] == ["site"] * 5 + ["subject"] and components["share"].sum() == 1
    assert list(components.columns) == ["factor", "group", "effect", "sd", "share", "source"]
    pytest.importorskip("arviz_base")
    posterior = to_arviz(net, names, num_draws=2000)["posterior"]
    assert dict(posterior["u_site"].sizes) == {"chain": 1, "draw": 2000, "site": 3, "effect_site": 5}
    drawn = posterior["u_site"].sel(site="b", effect_site="(Intercept)")
    assert float(drawn.mean()) == pytest.approx(of_b["mean"].item(), abs=0.005)


def _loader() -> DataLoader:
    """Subjects within sites, whose intercepts differ by both; simulated."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(240, 3, generator=generator)
    subject = torch.arange(240) % 12
    site = subject // 4
    effects = torch.tensor([1.5, -1.5, 0.0])[site] + torch.tensor([1.0, -1.0, 2.0, -2.0])[subject % 4]
    label = (x[:, 0] + effects > 0).long()
    items = [{"image": x[i], "label": label[i], "site": site[i], "subject": subject[i]} for i in range(240)]
    return DataLoader(Dataset(items), batch_size=30, shuffle=True)


def _auroc(network: ARMED, prepare_batch) -> float:
    metric = ROCAUC(output_transform=lambda out: (out["pred"], out["label"]["label"].unsqueeze(1)))
    evaluator = SupervisedEvaluator(
        "cpu", _loader(), network, prepare_batch=prepare_batch, key_val_metric={"auroc": metric}, decollate=False
    )
    evaluator.run()
    return evaluator.state.metrics["auroc"]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [(SupervisedTrainer, ["site", "subject"]), (ARMEDTrainer, {"site": "site", "person": "subject"})],
)
def test_trains_under_the_trainers(kind, keys, tmp_path):
    set_determinism(0)
    first, second = keys
    intercepts = {first: {"prior_scale": 1.0}, second: {"prior_scale": 1.0}}
    network = ARMED(
        DFNN(3, hidden_channels=(16, 16)),
        {first: 3, second: 12},
        (3,),
        adversary="dense",
        nonlinear_slopes=False,
        random_effects=intercepts,
    )
    adversary = [p for n, p in network.named_parameters() if n.startswith("adversary.")]
    rest = [p for n, p in network.named_parameters() if not n.startswith("adversary.")]
    options = {}
    if kind is ARMEDTrainer:
        options = {"adversary": network.adversary, "adversary_optimizer": torch.optim.Adam(adversary, 0.02)}
    prepare = PrepareBatchCluster(cluster_key=keys)
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_kl=1 / 240)
    optimizer = torch.optim.Adam(rest if options else network.parameters(), 0.03)
    trainer = kind("cpu", 30, _loader(), network, optimizer, loss, prepare_batch=prepare, decollate=False, **options)
    RandomEffectsWriter(tmp_path, network, {first: ["x", "y", "z"]}).attach(trainer)
    trainer.run()
    mixed = _auroc(network, prepare)
    of_sites = _auroc(network, PrepareBatchCluster(cluster_key={first: "site"}))  # whose subject is not known
    fixed = _auroc(network, PrepareBatchCluster(cluster_key=keys, effects="fixed"))
    assert mixed > 0.95 and fixed + 0.03 < of_sites < mixed - 0.03
    assert _auroc(network, PrepareBatchRandomCluster({first: 3, second: 12}, cluster_key=keys)) < 0.85
    written = pd.read_csv(tmp_path / "ranef.csv")
    assert written["factor"].tolist() == [first] * 3 + [second] * 12 and written["cluster"][0] == "x"
    assert set(pd.read_csv(tmp_path / "varcorr.csv")["factor"]) == {first, second}
