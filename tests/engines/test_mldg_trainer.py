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

"""MLDG: the objective against its definition written out, and the trainer against the objective."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.data import DataLoader

from monai_armed.engines import MLDGObjective, MLDGTrainer, PrepareBatchCluster
from monai_armed.losses import ARMEDLoss
from monai_armed.networks.nets import DFNN

C = 4


def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, generator=generator)
    label = (x[:, :1] > 0).float()
    return x, label, torch.arange(20) % C


def loss(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target["label"])


def by_definition(network, x, label, cluster, held_out, rate, beta):
    """Li et al. 2018, Algorithm 1, with autograd's second-order gradient."""
    test = held_out[cluster] > 0
    parameters = dict(network.named_parameters())

    def mean_loss(theta, chosen):
        logits = torch.func.functional_call(network, theta, (x[chosen],))
        return F.binary_cross_entropy_with_logits(logits, label[chosen])

    inner = mean_loss(parameters, ~test)
    slopes = torch.autograd.grad(inner, list(parameters.values()), create_graph=True)
    moved = {n: p - rate * g for (n, p), g in zip(parameters.items(), slopes)}
    total = inner + beta * mean_loss(moved, test)
    return total.detach(), torch.autograd.grad(total, list(parameters.values()))


def test_value_and_second_order_gradient_are_those_of_the_definition():
    torch.manual_seed(1)
    x, label, cluster = batch()
    network = DFNN(2, act="TANH").double()
    x, label = x.double(), label.double()
    objective = MLDGObjective(loss, C, num_meta_test=2, inner_learning_rate=0.7, beta=0.5)
    held_out = torch.tensor([0.0, 1.0, 1.0, 0.0])
    parameters = dict(network.named_parameters())

    def predict(theta):
        return torch.func.functional_call(network, theta, (x,))

    value, logits = objective(predict, parameters, {"label": label, "cluster": cluster}, held_out)
    gradient = torch.autograd.grad(value, list(parameters.values()))
    expected, expected_gradient = by_definition(network, x, label, cluster, held_out, 0.7, 0.5)
    torch.testing.assert_close(value.detach(), expected)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(logits, network(x))
    _, first_order = by_definition(network, x, label, cluster, held_out, 1e-12, 0.5)
    assert (gradient[0] - first_order[0]).abs().max() > 1e-4  # the inner step matters


def test_draw_holds_out_the_asked_number_of_clusters():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([MLDGObjective(loss, 10, num_meta_test=3).draw(generator) for _ in range(50)])
    assert (draws.sum(1) == 3).all() and (draws.sum(0) > 0).all()


def test_trainer_steps_along_the_objective_and_learns():
    torch.manual_seed(2)
    x, label, cluster = batch()
    items = [{"image": a, "label": b, "cluster": c} for a, b, c in zip(x, label, cluster)]
    network = DFNN(2, hidden_channels=(8,))
    objective = MLDGObjective(ARMEDLoss(torch.nn.BCEWithLogitsLoss()), C, num_meta_test=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    held_out = torch.tensor([0.0, 0.0, 1.0, 0.0])
    objective.draw = lambda generator=None: held_out
    losses = []

    def trainer(epochs):
        made = MLDGTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(items, batch_size=20),
            network=network,
            optimizer=optimizer,
            loss_function=objective.loss,
            prepare_batch=PrepareBatchCluster(pass_cluster=False),
            decollate=False,
            objective=objective,
        )
        made.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output["loss"])))
        return made

    reference = DFNN(2, hidden_channels=(8,))
    reference.load_state_dict(start)
    value, gradient = by_definition(reference, x, label, cluster, held_out, 0.01, 1.0)
    trainer(1).run()
    assert losses[0] == pytest.approx(float(value), rel=1e-5)
    for (name, p), g in zip(network.named_parameters(), gradient):
        torch.testing.assert_close(p.detach(), start[name] - 0.5 * g, atol=1e-6, rtol=1e-4)
    trainer(30).run()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "arguments", [{"num_meta_test": 4}, {"num_meta_test": 0}, {"inner_learning_rate": 0}, {"beta": -1}]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="must be"):
        MLDGObjective(loss, C, **{"num_meta_test": 1, **arguments})
