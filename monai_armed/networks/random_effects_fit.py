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

"""Learning the random effects of a network that is trained in all else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from monai.networks.utils import eval_mode, train_mode
from monai.utils import convert_to_tensor

from ..engines.prepare_batch import default_prepare_batch
from ..utils.parallel import unwrap
from .adaptation import checked_error
from .layers.feature_layers import find_layer
from .nets.armed import ARMED

__all__ = ["fit_random_effects"]

LEARNING_RATE = 0.05


def fit_random_effects(
    net: ARMED,
    loader: Iterable[Mapping[str, Any]],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    steps: int = 300,
    batch_size: int = 4096,
    seed: int = 0,
    prepare_batch: Callable | None = None,
) -> float:
    """
    Learn a network's random effects, all else as it is, by variational inference (Eq. 7 of
    https://arxiv.org/abs/2202.11783) on features that are computed once: around a network that was trained without
    them, or anew after its fixed effects have changed, by :py:func:`monai_armed.networks.erasure.fit_erasers` for
    example. Exactly, and without draws, :py:func:`monai_armed.mixed_model.fit_mixed_model` does it for few effects.

    Args:
        net: a network with random effects, also inside ``DistributedDataParallel``. Their posteriors are changed, and
            their prior if it is learned, starting from what they are. ``random_effects={"sampling": "sample"}`` of the
            network makes the inference less noisy.
        loader: batches of the training data, without augmentation; in several processes each needs all of them.
        loss: mean loss of logits and labels in nats, the negative log-likelihood of a sample, such as
            ``torch.nn.BCEWithLogitsLoss()``.
        steps: steps of the inference.
        batch_size: samples of a step.
        seed: seed of the draws and batches.
        prepare_batch: as for a trainer; by default :py:class:`monai_armed.engines.PrepareBatchCluster`. Its targets
            ``"offset"`` and ``"weight"`` count, see :py:class:`monai_armed.losses.ARMEDLoss`.

    Returns:
        the mean of the objective (negative ELBO of a sample, in nats) over the last tenth of the steps.

    Raises:
        ValueError: when the network has no random effects or they are frozen, there are no samples, values that are
            not finite, or a loss that is no mean.

    Example:
        >>> net = ARMED(trained, num_clusters=3, input_shape=(3, 64, 64), adversary=None)
        >>> fit_random_effects(net, loader, torch.nn.BCEWithLogitsLoss())
    """
    net = unwrap(net)
    if not len(net.random_slopes):
        raise ValueError("the network has no random effects to fit: build it with slopes or an intercept.")
    parameters = [parameter for parameter in net.random_slopes.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the random effects are frozen: let them learn by net.random_slopes.requires_grad_().")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    whole = _read(net, loader, default_prepare_batch(net.factors) if prepare_batch is None else prepare_batch)
    error = checked_error(loss, whole.fixed, whole.target["label"])
    head, device = find_layer(net.network, net.head), whole.fixed.device
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, values = torch.Generator().manual_seed(seed), []
    with torch.random.fork_rng(), eval_mode(head), train_mode(net.random_slopes):
        torch.manual_seed(seed)
        for _ in range(steps):
            part = whole
            if len(whole.fixed) > batch_size:
                part = whole.rows(torch.randperm(len(whole.fixed), generator=generator)[:batch_size].to(device))
            random = net.random_slopes(part.clusters, part.latent, part.x, part.fixed, head)
            outputs = {"mixed": part.fixed + random, "kl": net.random_slopes.kl()}
            terms = error.terms(outputs, part.target)
            value = terms["mixed"] + terms["kl"] / len(whole.fixed)
            for parameter, gradient in zip(parameters, torch.autograd.grad(value, parameters)):
                parameter.grad = gradient
            optimizer.step()
            schedule.step()
            values.append(value.detach())
    optimizer.zero_grad()
    return float(torch.stack(values[-max(1, steps // 10) :]).mean())


class _Samples(NamedTuple):
    """What the random effects act on, (N, ...) each: it is the same in every step."""

    fixed: torch.Tensor
    latent: torch.Tensor
    x: torch.Tensor
    target: dict[str, torch.Tensor]
    clusters: dict[str, torch.Tensor]

    def rows(self, index: torch.Tensor) -> _Samples:
        """Some of the samples."""
        of_each = [{name: tensor[index] for name, tensor in part.items()} for part in (self.target, self.clusters)]
        return _Samples(self.fixed[index], self.latent[index], self.x[index], *of_each)


def _read(net: ARMED, loader: Iterable[Mapping[str, Any]], prepare_batch: Callable) -> _Samples:
    """Run the network over the data once, in evaluation mode."""
    parts: list[_Samples] = []
    with eval_mode(net):
        for batch in loader:
            x, target, _, options = prepare_batch(batch, next(net.random_slopes.parameters()).device)
            fixed, latent = net.fixed_and_latent(x)
            if latent.ndim > fixed.ndim:  # of maps the mean over space counts, and is all that need be kept
                latent = latent.flatten(2).mean(2)
            clusters = net.clusters(x, options.get("cluster"), "population")
            x = x if x.ndim == 2 else x[:, :0]  # linear slopes are of tables
            target = {name: tensor for name, tensor in target.items() if name in ("label", "offset", "weight")}
            parts.append(_Samples(*convert_to_tensor((fixed, latent, x, target, clusters), track_meta=False)))
    if not parts:
        raise ValueError("the loader gave no batch: random effects are learned from the training data.")
    whole = _Samples(
        torch.cat([part.fixed for part in parts]),
        torch.cat([part.latent for part in parts]),
        torch.cat([part.x for part in parts]),
        {name: torch.cat([part.target[name] for part in parts]) for name in parts[0].target},
        {name: torch.cat([part.clusters[name] for part in parts]) for name in parts[0].clusters},
    )
    for name, tensor in {"the fixed logits": whole.fixed, "the latent": whole.latent, **whole.target}.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name}: there are values that are not finite, such as NaN: leave these samples out.")
    return whole
