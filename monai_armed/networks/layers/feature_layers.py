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

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
import torch.nn as nn

from ...utils.cluster_index import can_look

__all__ = ["LayerRecord", "find_layer", "first_tensor", "record_layers", "temporary_hooks"]

Change = Callable[[Any], Any]

_REGISTERING = threading.Lock()  # PyTorch counts the ids of hooks without one, and two threads may get the same


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
    """The layer that is called ``name`` in ``network.named_modules()``; a ValueError names similar ones."""
    try:
        return network.get_submodule(name or " ")
    except AttributeError:
        similar = get_close_matches(name, dict(network.named_modules()), n=3, cutoff=0.0)
        message = f"{type(network).__name__} has no layer {name!r}; the most similar names are {similar}."
        raise ValueError(message) from None


@contextmanager
def temporary_hooks(network: nn.Module, before: Mapping[str, Change], after: Mapping[str, Change]) -> Iterator[None]:
    """
    While the context is open, functions see, and may change, what goes into and comes out of named layers of a network.
    Forward hooks do it; they are gone when the context is left, also by an exception. They heed the passes of the
    thread that opened the context alone, so that threads may share one network.

    Args:
        network: any module.
        before: functions of a layer's (first) input, by the layer's name; what one returns, unless None, goes in.
        after: functions of a layer's output, by the layer's name; what one returns, unless None, comes out.
    """
    compiling = torch.compiler.is_compiling()  # a compiler follows neither locks nor threads
    opened_by = 0 if compiling else threading.get_ident()
    lock = nullcontext() if compiling else _REGISTERING

    def elsewhere() -> bool:
        return not torch.compiler.is_compiling() and threading.get_ident() != opened_by

    def pre_hook(function: Change) -> Callable:
        def hook(_module: nn.Module, args: tuple, kwargs: dict | None = None) -> tuple | None:
            if elsewhere() or kwargs is None:
                return None
            name = None if args else next(iter(kwargs))
            changed = function(args[0] if name is None else kwargs[name])
            if changed is None:
                return None
            return ((changed, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: changed})

        return hook

    def post_hook(function: Change) -> Callable:
        return lambda _module, _args, output: None if elsewhere() else function(output)

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        with lock:
            for name, function in before.items():
                layer = find_layer(network, name)
                handles.append(layer.register_forward_pre_hook(pre_hook(function), with_kwargs=True))
            for name, function in after.items():
                handles.append(find_layer(network, name).register_forward_hook(post_hook(function)))
        yield
    finally:
        with lock:
            for handle in handles:
                handle.remove()


@dataclass
class LayerRecord:
    """
    What went into and came out of the recorded layers in one forward pass, in the order of execution, and what came out
    of changed layers before it was changed.
    """

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    unchanged: dict[str, torch.Tensor] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)

    def keep(self, kind: str, name: str, tensor: Any, copy: bool = False) -> None:
        """Record an ``"input"`` or ``"output"``, the last one of a layer that is used twice, or a copy of it."""
        kept = self.inputs if kind == "input" else self.outputs
        if isinstance(tensor, torch.Tensor):
            kept.pop(name, None)  # to its place in the order
            kept[name] = tensor.clone() if copy else tensor
            if can_look(tensor) and not tensor.is_inference():
                self.versions[kind, name] = kept[name]._version

    def overwritten(self) -> set[tuple[str, str]]:
        """Kind and layer of the recorded tensors that a later operation has written into."""
        kept = {"input": self.inputs, "output": self.outputs}
        return {(kind, name) for (kind, name), v in self.versions.items() if kept[kind][name]._version != v}


@contextmanager
def record_layers(
    network: nn.Module,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    copied: Collection[tuple[str, str]] = (),
    changes: Mapping[str, Change] | None = None,
    check: bool = True,
) -> Iterator[LayerRecord]:
    """
    While the context is open, record what goes into and comes out of the named layers of ``network`` in the passes of
    this thread, see :py:func:`temporary_hooks`.

    Args:
        network: any module.
        inputs: names of the layers whose (first) input is recorded.
        outputs: names of the layers whose output is recorded.
        copied: kind, ``"input"`` or ``"output"``, and name of those that are copied, since a later operation in place
            writes into them.
        changes: functions by the name of a layer, which change its output before the network goes on and before it is
            recorded among the ``outputs``.
        check: whether to raise an error when a recorded tensor was written into before the context was left, so that it
            is not what the layer gave.
    """
    record = LayerRecord()

    def before(name: str, given: Any) -> None:
        record.keep("input", name, given, ("input", name) in copied)

    def after(name: str, output: Any) -> Any:
        changed = None
        if changes and name in changes:
            given = first_tensor(output)
            record.unchanged[name] = given.clone() if ("output", name) in copied else given
            changed = changes[name](given)
            if isinstance(output, (tuple, list)):  # as of recurrent layers
                changed = type(output)((changed, *output[1:]))
            output = changed
        if name in outputs:
            tensor = (output or (None,))[0] if isinstance(output, (tuple, list)) else output
            record.keep("output", name, tensor, ("output", name) in copied)
        return changed

    hooks_before = {name: partial(before, name) for name in inputs}
    hooks_after = {name: partial(after, name) for name in (*(changes or ()), *outputs)}
    with temporary_hooks(network, hooks_before, hooks_after):
        yield record
    if check and (overwritten := record.overwritten()):
        kind, name = min(overwritten)
        raise ValueError(
            f"the {kind} of layer {name!r} was overwritten by a later operation in place, so it is not what the layer "
            "gave: build the network without `inplace=True` after it, or name another layer."
        )
