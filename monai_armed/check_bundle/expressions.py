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

from monai.bundle.reference_resolver import ReferenceResolver

from .names import TrustedNames

__all__ = ["expression_faults", "imported"]

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
# Attributes of objects, of which it is not known what they are, that no config needs.
NO_ATTRIBUTES = re.compile(
    r"_.*|(gi|cr|ag|f|tb|co|func)_.*|mro|format(_map)?|system|popen|spawn\w*|exec\w*|fork\w*|open|load|loads|unlink"
    r"|remove\w*|rmdir|rmtree|rename|replace_file|urlopen|urlretrieve|load_library|import_\w+|subprocess|modules?_dict"
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
    wrong = names.name(full)
    return {known_by: full}, [wrong] if wrong else []


def expression_faults(text: str, names: TrustedNames, imports: dict[str, str]) -> list[str]:
    """
    Args:
        text: an expression, without its ``$``.
        names: where packages are looked up.
        imports: dotted names by the names that the config imports them as.

    Returns:
        what is wrong, in words; nothing where it is made of numbers, text, lists, references (``@id``), their public
        attributes and calls, arithmetic, comparisons, a few functions of Python, and names of trusted packages.
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
    return list(dict.fromkeys(_Grammar(names, {**ROOTS, **imports}).faults(tree.body)))


class _Grammar:
    def __init__(self, names: TrustedNames, roots: dict[str, str]) -> None:
        self.names, self.roots = names, roots

    def faults(self, node: ast.AST) -> Iterator[str]:
        """All that is wrong with a part of an expression."""
        if not isinstance(node, SYNTAX):
            yield f"{type(node).__name__} is not among what expressions may be made of"
            return
        if isinstance(node, (ast.Name, ast.Attribute)) and (dotted := self._dotted(node)):
            yield from self._of_package(dotted)
            return
        if isinstance(node, ast.Name):
            yield f"the name {node.id!r} is none that expressions may use, or not in this place"
            return
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == REFERENCES:
            if not isinstance(node.slice, ast.Constant):
                yield "a reference is no plain @id"
            return
        if isinstance(node, ast.Attribute) and NO_ATTRIBUTES.fullmatch(node.attr):
            yield f"the attribute {node.attr!r} is none that expressions may use"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "__" in node.value:
            yield f"the text {node.value!r} names something private"
        if isinstance(node, ast.keyword) and node.arg is None:
            yield "arguments by ** are not among what expressions may be made of"
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLED:
            children.remove(node.func)
            yield from self._of_getattr(node) if node.func.id == "getattr" else ()
        for child in children:
            yield from self.faults(child)

    def _dotted(self, node: ast.AST) -> str | None:
        """The dotted name that a chain of attributes of an imported package is; None for anything else."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.roots:
            return None
        return ".".join([self.roots[node.id], *reversed(parts)])

    def _of_package(self, dotted: str) -> Iterator[str]:
        wrong = self.names.name(dotted) or self.names.target(dotted)  # a module is no value, which others may look into
        if wrong:
            yield wrong

    def _of_getattr(self, call: ast.Call) -> Iterator[str]:
        name = call.args[1] if len(call.args) > 1 else None
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str) or NO_ATTRIBUTES.fullmatch(name.value):
            yield "getattr may ask for a public attribute alone, by its name in quotes"
