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
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
import torch.nn as nn

__all__ = ["LayerRecord", "default_taps", "dry_run", "find_head", "find_layer", "first_tensor", "record_layers"]


@dataclass
class LayerRecord:
    """Tensors that went into and came out of the recorded layers in one forward pass, in the order of execution."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)


def first_tensor(output: torch.Tensor | Sequence) -> torch.Tensor:
    """The tensor of a module's output; the first one of a tuple or list, as MONAI's ViT returns it."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor):
        raise ValueError(
            f"a network that returns a tensor (or a tuple that begins with one) is needed, got {type(output)}."
        )
    return output


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """
    The layer of ``network`` that is called ``name`` in ``network.named_modules()``.

    Raises:
        ValueError: when there is none; names the most similar ones.
    """
    try:
        return network.get_submodule(name or " ")
    except AttributeError:
        similar = get_close_matches(name, dict(network.named_modules()), n=3, cutoff=0.0)
        message = f"{type(network).__name__} has no layer {name!r}; the most similar names are {similar}."
        raise ValueError(message) from None


@contextmanager
def record_layers(network: nn.Module, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Iterator[LayerRecord]:
    """
    While the context is open, record what goes into and comes out of the named layers of ``network``.

    Forward hooks do it; they are gone when the context is left, also by an exception.

    Args:
        network: any module.
        inputs: names of the layers whose (first) input is recorded.
        outputs: names of the layers whose output is recorded.
    """
    record = LayerRecord()
    handles = []
    try:
        for name in inputs:
            handles.append(
                find_layer(network, name).register_forward_pre_hook(_input_hook(record, name), with_kwargs=True)
            )
        for name in outputs:
            handles.append(find_layer(network, name).register_forward_hook(_output_hook(record, name)))
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _input_hook(record: LayerRecord, name: str):
    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        record.inputs[name] = args[0] if args else next(iter(kwargs.values()))

    return hook


def _output_hook(record: LayerRecord, name: str):
    def hook(_module: nn.Module, _args: tuple, output: torch.Tensor | Sequence) -> None:
        tensor = (output or (None,))[0] if isinstance(output, (tuple, list)) else output
        if isinstance(tensor, torch.Tensor):
            record.outputs.pop(name, None)  # a layer that is used twice: its last use, in its place in the order
            record.outputs[name] = tensor

    return hook


def dry_run(network: nn.Module, input_shape: Sequence[int]) -> tuple[LayerRecord, torch.Tensor]:
    """
    Run a network once, on two samples of zeros in evaluation mode, to see what its layers take and give.

    Args:
        network: the network; its modes are left as they were.
        input_shape: shape of one sample without the batch dimension.

    Returns:
        inputs and outputs of all layers, and the network's output, the logits.

    Raises:
        ValueError: when it does not take that shape, or returns no logits (batch, channels, ...).
    """
    parameter = next(network.parameters(), torch.empty(0))
    x = torch.zeros((2, *input_shape), device=parameter.device, dtype=parameter.dtype)
    names = [name for name, _ in network.named_modules() if name]
    training = {m: m.training for m in network.modules()}
    try:
        with torch.no_grad(), record_layers(network.eval(), inputs=names, outputs=names) as record:
            try:
                output = network(x)
            except Exception as error:
                raise ValueError(
                    f"{type(network).__name__} does not take input_shape {tuple(input_shape)}, which is the "
                    f"shape of one sample, channels first, without the batch: {error}"
                ) from error
            logits = first_tensor(output)
    finally:
        for module, mode in training.items():
            module.training = mode
    if logits.ndim < 2 or logits.shape[0] != 2:
        raise ValueError(f"network must return logits (batch, channels, ...), got {tuple(logits.shape)} for 2 samples.")
    return record, logits


def find_head(network: nn.Module, record: LayerRecord, output: torch.Tensor) -> str:
    """
    Name of the last layer: the linear or convolutional one whose output is the network's output, the logits, or else
    the innermost module with weights of which that is so, such as the last residual unit of MONAI's UNet.

    Args:
        network: the network.
        record: all its layers' outputs in a pass.
        output: the network's output in that pass.

    Raises:
        ValueError: when the output is no logits but a probability, or no layer with weights gives it as it is.
    """
    layers = dict(network.named_modules())
    found = [n for n, out in record.outputs.items() if out.shape == output.shape and torch.equal(out, output)]
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


def default_taps(network: nn.Module, record: LayerRecord, output: torch.Tensor) -> list[str]:
    """
    Layers whose outputs an adversary looks at unless it is told otherwise: the last layer at each spatial size, and
    each one that feeds a vector into a linear layer (so: all hidden layers of a dense network). What comes before the
    first layer with weights, such as a flattened or padded input, can forget nothing and is not tapped.

    Args:
        network: the network.
        record: inputs and outputs of all its layers in a pass.
        output: the network's output in that pass, which is not tapped.

    Raises:
        ValueError: when there is none.
    """
    fed = {id(record.inputs[n]) for n, m in network.named_modules() if isinstance(m, nn.Linear) and n in record.inputs}
    stages = set(_stages(network))
    last_at_size: dict[tuple, str] = {}
    vectors: dict[int, str] = {}
    layers, learned = dict(network.named_modules()), False
    for name, out in record.outputs.items():
        learned = learned or any(True for _ in layers[name].parameters())
        if not learned or name not in stages or out.shape[0] != output.shape[0] or torch.equal(out, output):
            continue
        if out.ndim > 2:
            last_at_size[tuple(out.shape[2:])] = name
        elif id(out) in fed:
            vectors.setdefault(id(out), name)
    chosen = {*last_at_size.values(), *vectors.values()}
    if not chosen:
        name = type(network).__name__
        raise ValueError(
            f"found no layer of {name} for the adversary to tap: name some as `taps`, or use adversary=None."
        )
    return [name for name in record.outputs if name in chosen]
