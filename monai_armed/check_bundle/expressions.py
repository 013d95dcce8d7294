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
"""The small grammar that a config's expressions are held against; they are parsed and never evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from monai.bundle.reference_resolver import ReferenceResolver

from .arguments import call_faults, given_in, key_fault
from .names import TrustedNames

__all__ = ["ADDRESS", "expression_faults", "imported"]

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|^//|:/$", re.IGNORECASE)  # or either part of one that is put together
MOST_CHARACTERS = 500
REFERENCES = "__local_refs"  # what MONAI puts in the place of @id
ROOTS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # what MONAI lets expressions see
CALLED = frozenset("abs bool dict float getattr int len list max min range round sorted str sum tuple".split())
SYNTAX: tuple[type[ast.AST], ...] = (
    *(ast.Expression, ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.Load),
    *(ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Dict, ast.IfExp),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    *(ast.UnaryOp, ast.UAdd, ast.USub, ast.Not, ast.BoolOp, ast.And, ast.Or),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn),
)


def imported(text: str, names: TrustedNames) -> tuple[dict[str, str], list[str]]:
    """
    What an import statement brings in.

    Args:
        text: ``import package`` or ``from package import part``, of one name.
        names: where packages are looked up.

    Returns:
        the dotted name by the name that expressions know it by, and what is wrong, in words.
    """
    (statement,) = ast.parse(text).body[:1]
    assert isinstance(statement, (ast.Import, ast.ImportFrom))
    if len(ast.parse(text).body) > 1 or len(statement.names) != 1 or bool(getattr(statement, "level", 0)):
        return {}, [f"{text!r} is more than one plain import"]
    alias = statement.names[0]
    full = f"{statement.module}.{alias.name}" if isinstance(statement, ast.ImportFrom) else alias.name
    known_by = alias.asname or alias.name
    if known_by in CALLED or ROOTS.get(known_by, full) != full:
        return {}, [f"{text!r} gives {known_by!r} another meaning"]
    if wrong := names.name(full, imported=True):
        return {known_by: full}, [wrong]
    return {known_by: full}, list(call_faults(full, names.found(full), None))


def expression_faults(text: str, names: TrustedNames, imports: dict[str, str]) -> list[str]:
    """
    Args:
        text: an expression, without its ``$``.
        names: where packages are looked up.
        imports: dotted names by the names that the config imports them as.

    Returns:
        what is wrong, in words; nothing where it is made of numbers, text, lists, references (``@id``), calls and some
        attributes of these, arithmetic, comparisons, a few functions of Python, and the parts that bundles may use.
    """
    if len(text) > MOST_CHARACTERS:
        return [f"it has {len(text)} characters, more than {MOST_CHARACTERS}"]
    written = "$" + text
    found = ReferenceResolver.match_refs_pattern(written)
    python = ReferenceResolver.update_refs_pattern(written, dict.fromkeys(found, 0))[1:]  # what MONAI evaluates
    try:
        tree = ast.parse(python, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [f"it cannot be parsed: {error}"]
    faults = list(_Grammar(names, {**ROOTS, **imports}).faults(tree.body))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts = [str(node.value) for node in sorted(nodes, key=lambda node: node.col_offset)]
    if any(map(ADDRESS.search, [*texts, "".join(texts)])):
        faults.append("its texts make an address of the network")
    return list(dict.fromkeys(faults))


class _Grammar:
    def __init__(self, names: TrustedNames, roots: dict[str, str]) -> None:
        self.names, self.roots = names, roots

    def faults(self, node: ast.AST) -> Iterator[str]:
        """All that is wrong with a part of an expression."""
        if not isinstance(node, SYNTAX):
            yield f"{type(node).__name__} is not among what expressions may be made of"
            return
        if isinstance(node, (ast.Name, ast.Attribute)) and (dotted := self._dotted(node)):
            yield from self._of_package(dotted, None)
            return
        if isinstance(node, ast.Name):
            yield f"the name {node.id!r} is none that expressions may use, or not in this place"
            return
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == REFERENCES:
            if not isinstance(node.slice, ast.Constant):
                yield "a reference is no plain @id"
            return
        if isinstance(node, ast.Attribute):
            yield from self._of_attribute(node.attr)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "__" in node.value:
            yield f"the text {node.value!r} names something private"
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call):
            children = children[1:]
            yield from self._of_call(node)
        for child in children:
            yield from self.faults(child)

    def _of_call(self, call: ast.Call) -> Iterator[str]:
        """What is called, and the names of its arguments."""
        called, given = call.func, given_in(call, None)
        if any(keyword.arg is None for keyword in call.keywords):
            yield "arguments by ** are not among what expressions may be made of"
        if isinstance(called, ast.Name) and called.id in CALLED and called.id not in self.roots:
            yield from self._of_getattr(call) if called.id == "getattr" else ()
        elif isinstance(called, (ast.Name, ast.Attribute)) and (dotted := self._dotted(called)):
            if not self.names.name(dotted):
                given = given_in(call, self.names.found(dotted))
            yield from self._of_package(dotted, given)
        elif isinstance(called, ast.Attribute) and called.attr == "eval" and not call.args and not call.keywords:
            yield from self.faults(called.value)  # of a network; that of a table evaluates text
        else:
            yield from self.faults(called)
        yield from filter(None, (key_fault(key, value) for key, value in given.items()))

    def _dotted(self, node: ast.AST) -> str | None:
        """The dotted name that a chain of attributes of an imported package is; None for anything else."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.roots:
            return None
        return ".".join([self.roots[node.id], *reversed(parts)])

    def _of_package(self, dotted: str, given: dict[str, Any] | None) -> Iterator[str]:
        if wrong := self.names.name(dotted):  # a module is no value, which others may look into
            yield wrong
        else:
            yield from call_faults(dotted, self.names.found(dotted), given)

    def _of_attribute(self, name: str) -> Iterator[str]:
        if name not in self.names.attributes or name == "eval":
            yield f"the attribute {name!r} is none that expressions may use"

    def _of_getattr(self, call: ast.Call) -> Iterator[str]:
        name = call.args[1] if len(call.args) > 1 else None
        if not isinstance(name, ast.Constant) or name.value not in self.names.attributes - {"eval"}:
            yield "getattr may ask for an attribute that expressions may use, by its name in quotes"
