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

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn

from .feature_layers import LayerRecord, first_tensor, record_layers

__all__ = [
    "DryRun",
    "check_one_output",
    "default_feature_layers",
    "dry_run",
    "find_head",
    "gives_output",
    "left_as_it_was",
    "observe",
]


@dataclass
class DryRun:
    """What a network did with some samples; in a dry run two of noise."""

    input: torch.Tensor
    output: torch.Tensor  # the logits
    record: LayerRecord  # inputs and outputs of all layers, in evaluation mode
    overwritten: set[tuple[str, str]]  # kind and layer of what a later operation overwrites, in either mode
    returned: list[Any]  # all that the network returned, in evaluation and, if it can be trained so, in training mode


def dry_run(network: nn.Module, input_shape: Sequence[int]) -> DryRun:
    """
    Run a network on two samples of noise, once in training mode, to see which layers' outputs a later operation
    overwrites, and once in evaluation mode, to see what its layers take and give. Samples of zeros would hide what is
    done after a layer: where biases are zero, three times the logits, their tanh or a flipped view's are the same. The
    network, its buffers and PyTorch's random numbers are left as they were.

    Args:
        network: the network.
        input_shape: shape of one sample without the batch dimension.

    Raises:
        ValueError: when it does not take that shape, returns no logits (batch, channels, ...), or several of them in
            training.
    """
    tensor = next((t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()), torch.empty(0))
    names = [name for name, _ in network.named_modules() if name]
    with torch.inference_mode(False), torch.no_grad(), left_as_it_was(network, tensor.device):
        x = torch.rand((2, *input_shape), generator=torch.Generator().manual_seed(0)).to(tensor)
        in_training, overwritten = _train_once(network.train(), x, names)
        with record_layers(network.eval(), inputs=names, outputs=names, check=False) as record:
            try:
                output = network(x)
            except Exception as error:
                raise ValueError(
                    f"{type(network).__name__} does not take input_shape {tuple(input_shape)}, which is the "
                    f"shape of one sample, channels first, without the batch: {error}"
                ) from error
    logits = first_tensor(output)
    if logits.ndim < 2 or logits.shape[0] != 2:
        hint = ": build it without the squeeze that takes the one channel away" if tuple(logits.shape) == (2,) else ""
        raise ValueError(
            f"network must return logits (batch, channels, ...), got {tuple(logits.shape)} for 2 samples{hint}."
        )
    returned = [found for found in (output, in_training) if found is not None]
    return DryRun(x, logits, record, overwritten | record.overwritten(), returned)


def observe(network: nn.Module, x: torch.Tensor, part: nn.Module | None = None, **options: Any) -> DryRun:
    """What all layers of the network, or of a part of it, do with samples (B, ...), in the mode that it is in."""
    watched = network if part is None else part
    names = [name for name, _ in watched.named_modules() if name]
    with record_layers(watched, inputs=names, outputs=names, check=False) as record:
        output = network(x, **options)
    return DryRun(x, output, record, set(), [])


def _train_once(network: nn.Module, x: torch.Tensor, names: list[str]) -> tuple[Any, set[tuple[str, str]]]:
    """Output in training mode, and what was overwritten; a network that fails there may say so when it is trained."""
    with record_layers(network, inputs=names, outputs=names, check=False) as record:
        try:
            return network(x), record.overwritten()
        except Exception:
            return None, set()


@contextmanager
def left_as_it_was(network: nn.Module, device: torch.device) -> Iterator[None]:
    """After the context the network's modes and buffers, and PyTorch's random numbers, are what they were."""
    modes = {m: m.training for m in network.modules()}
    buffers = [(m, name, b, b.clone()) for m in modes for name, b in m._buffers.items() if b is not None]
    forked = device.type in ("cuda", "xpu") and getattr(torch, device.type).is_available()
    kept = {"devices": [device.index or 0], "device_type": device.type} if forked else {"devices": []}
    try:
        with torch.random.fork_rng(**kept):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, name, buffer, before in buffers:
            module._buffers[name] = buffer
            buffer.copy_(before)


def check_one_output(network: nn.Module, dry: DryRun) -> None:
    """
    Refuse deep supervision, which gives further logits that no loss here would see.

    Raises:
        ValueError: when a network returns several logits, or others in training than in evaluation.
    """
    logits = dry.output
    for returned in dry.returned:
        parts = returned if isinstance(returned, (tuple, list)) and returned else [returned]
        tensors = [t for t in parts if isinstance(t, torch.Tensor)]
        alike = [t for t in tensors if t.ndim == logits.ndim and t.shape[:2] == logits.shape[:2]]
        if len(alike) > 1 or not isinstance(parts[0], torch.Tensor) or parts[0].shape != logits.shape:
            raise ValueError(
                f"{type(network).__name__} returns {type(returned).__name__} of {[tuple(t.shape) for t in tensors]} "
                f"where one tensor of logits {tuple(logits.shape)} is needed, in training too: build it without deep "
                "supervision, whose further outputs would not be trained."
            )


def gives_output(dry: DryRun, name: str) -> bool:
    """Whether a layer's output is the network's as it is, without an operation after it, in place or not."""
    out = dry.record.outputs.get(name)
    if out is None or out.shape != dry.output.shape or ("output", name) in dry.overwritten:
        return False
    return torch.equal(out, dry.output)


def find_head(network: nn.Module, dry: DryRun) -> str:
    """
    Name of the last layer: the linear or convolutional one whose output is the network's output, the logits, or else
    the innermost module with weights of which that is so, such as the last residual unit of MONAI's UNet.

    Raises:
        ValueError: when the output is no logits but a probability, or no layer with weights gives it as it is.
    """
    layers = dict(network.named_modules())
    found = [n for n in dry.record.outputs if gives_output(dry, n)]
    for name in found:
        if isinstance(layers[name], (nn.Sigmoid, nn.Softmax, nn.LogSoftmax, nn.Tanh)):
            raise ValueError(
                f"{type(network).__name__} ends with {name!r}, a {type(layers[name]).__name__}: random effects are "
                "added to the logits, so build the network without it."
            )
    weighted = [n for n in found if isinstance(layers[n], (nn.Linear, nn.modules.conv._ConvNd))]
    heads = weighted[-1:] or [n for n in found if any(True for _ in layers[n].parameters())][:1]
    if not heads and not any(True for _ in network.children()):
        raise ValueError(f"a bare {type(network).__name__} has no last layer to name: put it in torch.nn.Sequential.")
    if not heads:
        raise ValueError(
            f"no layer of {type(network).__name__} gives its output as it is: random effects are added to the logits, "
            "so build the network without a reshape or function after its last layer."
        )
    return heads[0]


def _stages(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the children of a network, and of their children where they are only containers."""
    for name, child in module.named_children():
        if not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield prefix + name
        if isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            yield from _stages(child, f"{prefix}{name}.")


def _lower(network: nn.Module, dry: DryRun, prefix: str = "", around: int = 0) -> Iterator[str]:
    """Names of layers that give smaller maps than what is around them takes and gives, as between skip connections."""
    ndim, record = dry.input.ndim, dry.record
    for name, child in network.named_children():
        name = prefix + name
        maps = (record.inputs.get(name), record.outputs.get(name))
        taken, given = (m.shape[2:].numel() if m is not None and m.ndim == ndim > 2 else 0 for m in maps)
        if 1 < given < around:
            yield name
        container = isinstance(child, (nn.ModuleList, nn.ModuleDict))
        if container or min(taken, given):
            yield from _lower(child, dry, name + ".", around if container else min(taken, given))


def _in_question(network: nn.Module, dry: DryRun, names: set[str]) -> Iterator[str]:
    """Those of the layers, in the order of execution, that come after weights and are not the output."""
    layers, learned = dict(network.named_modules()), False
    for name, out in dry.record.outputs.items():
        learned = learned or any(True for _ in layers[name].parameters())
        if learned and name in names and out.shape[0] == len(dry.output) and not torch.equal(out, dry.output):
            yield name


def default_feature_layers(network: nn.Module, dry: DryRun, head: str = "") -> list[str]:
    """
    Layers whose outputs an adversary looks at unless it is told otherwise: the last layer at each spatial size, and
    each one that feeds a vector into a linear layer (so: all hidden layers of a dense network). What comes before the
    first layer with weights, such as a flattened or padded input, can forget nothing and is left out, as is what has
    one number a token, such as attention weights.

    Raises:
        ValueError: when there is none, and no ``head`` is given, the last layer, which stands for its input.
    """
    record, ndim = dry.record, dry.input.ndim
    fed = {id(record.inputs[n]) for n, m in network.named_modules() if isinstance(m, nn.Linear) and n in record.inputs}
    stages = {name: record.outputs[name] for name in _in_question(network, dry, set(_stages(network)))}
    weights = tuple(f"{name}." for name, out in stages.items() if out.ndim == 3 < ndim and out.shape[-1] == 1)
    last_at_size: dict[tuple, str] = {}
    vectors: dict[int, str] = {}
    for name, out in stages.items():
        if out.ndim > 2 and not f"{name}.".startswith(weights):
            last_at_size[tuple(out.shape[2:])] = name
        elif out.ndim == 2 and id(out) in fed:
            vectors.setdefault(id(out), name)
    depth: dict[tuple, int] = {}
    for name in _in_question(network, dry, set(_lower(network, dry))):
        size, level = tuple(record.outputs[name].shape[2:]), name.count(".")
        if size not in last_at_size or level <= depth.get(size, -1):  # of those that are least deep inside the last
            last_at_size[size], depth[size] = name, level
    chosen = {*last_at_size.values(), *vectors.values()}
    if not chosen and head:
        return [head]
    if not chosen:
        raise ValueError(
            f"found no layer of {type(network).__name__} for the adversary to see: name some as `feature_layers`, or "
            "use adversary=None."
        )
    return [name for name in record.outputs if name in chosen]
