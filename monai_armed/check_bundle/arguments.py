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
"""Arguments by which a part that is trusted would import, unpickle or fetch something."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["COMPUTED", "call_faults", "given_in", "key_fault"]

COMPUTED = object()
"""Stands for an argument that is only known when a config is run."""
# MONAI imports and calls what these name, unless they name its own classes.
NAMING = ("merger_cls", "reader", "writer")
CLASSES = frozenset(
    "avgmerger cucim itkreader itkwriter nibabelreader nibabelwriter nrrdreader numpyreader openslide pilreader "
    "pilwriter pydicomreader tifffile wsireader zarravgmerger".split()
)
ONLY: Mapping[str, tuple[Any, ...]] = {
    "allow_pickle": (False,),
    "compile_kwargs": (None,),  # torch.compile takes the compiler's path
    "init_method": (None,),  # of a process group, which takes addresses
    "weights_only": (True,),
}
PRETRAINED = "pretrained"


def key_fault(key: str, value: Any) -> str | None:
    """
    Args:
        key: name of an argument, of whatever it may be.
        value: as it is written.

    Returns:
        what is wrong, in words; None if nothing is.
    """
    if key.startswith(PRETRAINED) and not any(value is allowed for allowed in (False, None)):
        return "pretrained weights would be fetched from the network"
    if key in ONLY and not any(value is allowed for allowed in ONLY[key]):
        return f"{key!r} must be {' or '.join(map(str, ONLY[key]))}, written out"
    if key in NAMING and not isinstance(value, list) and value is not None:
        plain = isinstance(value, str) and value.lower() in CLASSES
        if not plain and not (key == "writer" and isinstance(value, dict)):
            return f"{key!r} must be one of MONAI's classes by its bare name, as what it names is imported and called"
    return None


def _guarded(key: str) -> bool:
    return key.startswith(PRETRAINED) or key in NAMING or key in ONLY


def call_faults(name: str, found: Any, given: Mapping[str, Any] | None) -> Iterator[str]:
    """
    Args:
        name: of what is called.
        found: class or function.
        given: its arguments by their names; None where it is not called but handed on, to be called with others.

    Yields:
        what is wrong, in words: an argument whose default fetches something and that is not given, and parts that
        have such arguments handed on.
    """
    parameters = _parameters(found)
    if guarded := next(filter(_guarded, parameters), None):
        further = any(key in parameters and _takes_any(parameters[key]) for key in given or ())
        if given is None or further:
            yield f"{name!r} may only be called with named arguments, as its {guarded!r} must be seen"
    for key, parameter in parameters.items():
        if key.startswith(PRETRAINED) and key not in (given or ()) and parameter.default not in (False, None):
            if parameter.default is not inspect.Parameter.empty:
                yield f"pretrained weights would be fetched from the network, unless {key!r} of {name!r} is false"


def _takes_any(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.VAR_POSITIONAL


def given_in(call: ast.Call, found: Any) -> dict[str, Any]:
    """
    Args:
        call: of an expression.
        found: class or function that is called; None if it is not known.

    Returns:
        the arguments by their names, of which those that are no constants are :py:data:`COMPUTED`.
    """
    names = [key for key, parameter in _parameters(found).items() if parameter.kind is not parameter.KEYWORD_ONLY]
    given = {key: _constant(value) for key, value in zip(names, call.args, strict=False)}
    return given | {keyword.arg: _constant(keyword.value) for keyword in call.keywords if keyword.arg}


def _constant(node: ast.AST) -> Any:
    return node.value if isinstance(node, ast.Constant) else COMPUTED


def _parameters(found: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(found).parameters
    except (TypeError, ValueError):  # of a class or function that is not written in Python
        return {}
