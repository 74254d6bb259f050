"""Arguments of a node by the names that they have in its operation's schema, given in order, by name or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

SIZES = frozenset(("sym_size", "sym_numel", "sym_stride", "sym_storage_offset"))


def given_arguments(node: fx.Node) -> Iterator[tuple[Any, Any]]:
    """Arguments of the operation's schema that a node gives, and what it gives."""
    schema = node.target._schema  # type: ignore[union-attr]
    by_name = {a.name: a for a in schema.arguments}
    yield from zip(schema.arguments, node.args, strict=False)
    yield from ((by_name[name], value) for name, value in node.kwargs.items())


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an operation by their names in its schema, defaults where a node gives none.

    A size that is computed in the graph is its number; any other node stays a node.
    """
    named = {a.name: a.default_value for a in node.target._schema.arguments}  # type: ignore[union-attr]
    return named | {a.name: fx.map_arg(value, _size) for a, value in given_arguments(node)}


def _size(node: fx.Node) -> Any:
    return node.meta["val"] if _is_size(node) else node


def _is_size(node: fx.Node) -> bool:
    """Whether a node is a number that follows from shapes alone."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), int):
        return False
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return name_of(node) in SIZES
    return bool(node.all_input_nodes) and all(map(_is_size, node.all_input_nodes))  # arithmetic of Python


def name_of(node: fx.Node) -> str:
    """Name of an operation that has a schema: ``gelu`` for ``aten.gelu.default``."""
    return node.target._schema.name.rpartition("::")[2]  # type: ignore[union-attr]


def shape_of(node: Any) -> torch.Size:
    """Shape of a node's tensor."""
    return node.meta["val"].shape
