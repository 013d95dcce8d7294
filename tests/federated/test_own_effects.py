"""The random effects that a hospital infers around what is shared do not depend on the draws of the inference."""

from __future__ import annotations

import torch
from monai.data import Dataset

from monai_armed.bundle import Erasure
from monai_armed.federated.hospital import fit_own_effects
from monai_armed.networks.nets import ARMED


def test_two_inferences_of_other_draws_agree():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.PReLU(), torch.nn.Linear(64, 1))
    net = ARMED(network, 1, (8,), adversary=None, random_effects={"prior_scale": 0.3})
    x = 10 * torch.randn(300, 8)
    label = (x[:, :1] + torch.randn(300, 1) > 10).float()
    samples = [{"image": a, "label": b, "cluster": 0} for a, b in zip(x, label)]
    start = {name: value.clone() for name, value in net.state_dict().items()}

    def effects(seed: int) -> torch.Tensor:
        net.load_state_dict(start)
        fit_own_effects(net, Erasure(Dataset(samples), torch.nn.BCEWithLogitsLoss(), num_classes=2, seed=seed))
        with torch.no_grad():
            return net.eval()(x, torch.zeros(300, dtype=torch.long), effects="random")

    one, other = effects(0), effects(1)
    assert (one - other).norm() < 0.02 * other.norm()  # by one draw a cluster .035
    assert net.random_effects.sampling == "cluster"  # as it was
