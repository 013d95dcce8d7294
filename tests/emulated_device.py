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

"""
A CUDA device where there is none: tensors that say they are on it hold their data on the CPU and refuse what CUDA, or
Apple's GPU, which has no double precision, refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
RESHAPED = {"squeeze_", "unsqueeze_", "t_", "transpose_"}  # in place, as `matmul` of a vector does it
MIXED = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_"}  # CUDA takes a CPU tensor besides
COMPOSED = (torch.nn.functional.one_hot, torch._C._nn.one_hot, torch.quantile, torch.Tensor.quantile)
NO_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."


class DeviceTensor(torch.Tensor):
    """A tensor of the device; ``held`` is its data on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> DeviceTensor:
        return torch.Tensor._make_subclass(cls, held, False)

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    is_cuda = True

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(NO_NUMPY)

    __array__ = numpy

    def tolist(self) -> list:
        return self.held.tolist()

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        copied = DeviceTensor(self.held.detach().clone())
        parameter = isinstance(self, torch.nn.Parameter)
        memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if parameter else copied
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    name, flat = func._schema.name.split("::")[1], tree_flatten((args, kwargs))[0]
    tensors = [t for t in flat if isinstance(t, torch.Tensor)]
    here = [t for t in tensors if isinstance(t, DeviceTensor)]
    elsewhere = [t for t in tensors if not isinstance(t, DeviceTensor) and t.ndim]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    alike = bool(here) and (
        name.startswith("new_") or name.endswith("_like")
    )  # as autograd's own, which asks for a CPU
    stays = bool(here) if asked is None or alike else asked == "cuda"
    if here and elsewhere and (name not in MIXED or ("index" in name and not isinstance(args[0], DeviceTensor))):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")
    if stays and any(isinstance(g, torch.Generator) and g.device.type == "cpu" for g in flat):
        raise RuntimeError(f"{name}: expected a 'cuda' generator, but found 'cpu'")
    held = {id(t.held): t for t in here}  # what an operation in place returns is the tensor itself
    own_args, own = tree_map(lambda t: t.held if isinstance(t, DeviceTensor) else t, (args, kwargs))
    try:
        result = func(*own_args, **(own if asked is None else {**own, "device": "cpu"}))
        if name in RESHAPED and here:
            with torch._C._DisableTorchDispatch():
                func(*args, **kwargs)  # the tensor that holds it has the new shape as well
    except IndexError as error:
        raise RuntimeError(f"{name}: CUDA error: device-side assert triggered, the process is lost") from error

    def wrapped(value: torch.Tensor) -> torch.Tensor:
        if id(value) in held:
            return held[id(value)]
        if value.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{name}: this device, as Apple's, has no double precision, got {value.dtype}")
        return DeviceTensor(value)

    return tree_map(lambda t: wrapped(t) if isinstance(t, torch.Tensor) else t, result) if stays else result


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """What PyTorch decides before any operation, by the device that it knows the data to be on."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        options = dict(kwargs or {})
        if func is torch.Tensor.cpu:
            func, args = torch.Tensor.to, (args[0], "cpu")
        if func is torch.Tensor.to:
            other = next((t for t in (*args[1:], options.pop("other", None)) if isinstance(t, torch.Tensor)), None)
            options.pop("copy", None)
            parsed = torch._C._nn._parse_to(*args[1:], **options) if other is None else (other.device, other.dtype)
            device, dtype = parsed[0] or args[0].device, parsed[1] or args[0].dtype
            if device.type == args[0].device.type:
                return func(args[0], dtype)
            return torch.ops.aten._to_copy(args[0], dtype=dtype, device=device)
        if func in (torch.tensor, torch.as_tensor) and torch.device(options.get("device") or "cpu").type == "cuda":
            made = func(*args, **{**options, "device": None})
            return made if isinstance(made, DeviceTensor) else torch.ops.aten._to_copy(made, device=DEVICE)
        if func in COMPOSED and isinstance(args[0], DeviceTensor):
            held = [t.held if isinstance(t, DeviceTensor) else t for t in args]
            if any(a is b and isinstance(a, torch.Tensor) and a.ndim for a, b in zip(args, held)):
                raise RuntimeError(f"{func.__name__}: expected all tensors to be on the same device")
            return torch.ops.aten._to_copy(func(*held, **options), device=DEVICE)
        return func(*args, **options)


@contextmanager
def emulated_device() -> Iterator[torch.device]:
    """While it is open there is a device "cuda:0"; modules and tensors are moved to it by ``.to(device)``."""
    lazy_init, overwrite = torch.cuda._lazy_init, torch.__future__.get_overwrite_module_params_on_conversion()
    torch.cuda._lazy_init = lambda: None  # type: ignore[assignment]
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Operations(), _Calls():
            yield DEVICE
    finally:
        torch.cuda._lazy_init = lazy_init
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
