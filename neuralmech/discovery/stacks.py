"""Store a parameter as the matrix that linear maps read: a stack of matrices, or a weight of several axes seen as one.

By exact identities on a traced graph, which say in what shape it is read now (`Trace.views`):

| as written | rewritten |
| --- | --- |
| ``bmm(x, W)`` or ``matmul``, W or its transpose a stack (E, …) | ``conv(x, W as (E·out, in), groups=E)`` |
| ``linear(x, W.flatten(1))``, ``x @ W.flatten(1)`` | ``linear(x, W)``, ``x @ W``, W stored as a matrix |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, ops

from neuralmech.discovery.trace import Trace, operation, put

ATEN = ops.aten
VIEWS = ("view", "reshape", "flatten", "_unsafe_view")


class Stacks:
    """What rewrites products with stored parameters.

    Attributes
    ----------
    views
        Parameter name → shape in which it is stored.
    """

    def __init__(self, traced: Trace) -> None:
        self.graph = traced.graph
        self.views: dict[str, torch.Size] = {}
        self._parameters = {n: name for n, name in traced.parameters.items() if name not in traced.pieces}
        self._stored: dict[fx.Node, fx.Node] = {}  # the view of a parameter in its own shape → the parameter
        self._made: dict[tuple[str, fx.Node], fx.Node] = {}  # one node, so that parallel weights still read one tensor

    def stacked(self, node: fx.Node, x: Any, weight: Any) -> fx.Node | None:
        """Compute x (E, S, in) times a stack of matrices as a grouped convolution; the result is (E, S, out)."""
        sizes, found = shape_of(weight), self._stack(weight)
        if found is None or len(shape_of(x)) not in (2, 3) or (len(shape_of(x)) == 3 and shape_of(x)[0] != sizes[0]):
            return None
        stack, turned = found
        experts, width, out = sizes
        if len(shape_of(x)) == 2:
            x = self.for_each(node, x, experts)
        rows = shape_of(x)[1]
        if ("side by side", x) not in self._made:
            first = self.make(node, ATEN.permute.default, (rows, experts, width), x, [1, 0, 2])
            wide = [rows, experts * width, 1]
            self._made["side by side", x] = self.make(node, ATEN.reshape.default, tuple(wide), first, wide)
        mapped = self.make(
            node, ATEN.conv1d.default if turned else ATEN.conv_transpose1d.default, (rows, experts * out, 1),
            self._made["side by side", x], stack, groups=experts,
        )  # fmt: skip
        apart = self.make(node, ATEN.reshape.default, (rows, experts, out), mapped, [rows, experts, out])
        return self.make(node, ATEN.permute.default, (experts, rows, out), apart, [1, 0, 2])

    def flattened(self, node: fx.Node) -> fx.Node | None:
        """A linear map by a parameter that is seen as a matrix of its rows: it is stored as one."""
        weight: Any = node.args[1]
        if operation(weight) not in VIEWS:
            return None
        parameter: Any = self._stored.get(weight.args[0], weight.args[0])
        name = self._parameters.get(parameter.name)
        if name is None or len(shape_of(weight)) != 2 or (name in self.views and self.views[name] != shape_of(weight)):
            return None
        sizes = shape_of(weight)
        if name not in self.views:
            self._store(parameter, name, sizes)
        return self.make(node, node.target, shape_of(node), node.args[0], parameter, *node.args[2:])

    def for_each(self, node: fx.Node, x: fx.Node, experts: int) -> fx.Node:
        """Rows (S, …) as (E, S, …), the same for each expert."""
        if ("each", x) not in self._made:
            shape = shape_of(x)
            one = self.make(node, ATEN.unsqueeze.default, (1, *shape), x, 0)
            self._made["each", x] = self.make(node, ATEN.expand.default, (experts, *shape), one, [experts, *shape])
        return self._made["each", x]

    def _stack(self, weight: Any) -> tuple[fx.Node, bool] | None:
        """The parameter that a stack of matrices is, stored as one matrix; whether it has been transposed."""
        turned = isinstance(weight, fx.Node) and weight.op == "call_function" and operation(weight) == "transpose"
        stored: Any = weight.args[0] if turned else weight
        stored = self._stored.get(stored, stored)
        if turned and {d % 3 for d in weight.args[1:]} != {1, 2}:  # type: ignore[operator]
            return None
        if not isinstance(stored, fx.Node) or stored.name not in self._parameters or len(shape_of(weight)) != 3:
            return None
        if self._parameters[stored.name] not in self.views:
            experts, a, b = shape_of(stored)
            self._store(stored, self._parameters[stored.name], (experts * a, b, 1))
        elif len(self.views[self._parameters[stored.name]]) != 3:
            return None
        return stored, turned

    def _store(self, parameter: fx.Node, name: str, seen: tuple[int, ...]) -> None:
        """Keep a parameter in another shape, a stack (E, a, b) as (E·a, b); all others read a view of it."""
        shape = shape_of(parameter)
        with self.graph.inserting_after(parameter):
            whole = self.graph.call_function(ATEN.view.default, (parameter, list(shape)))
        whole.meta = dict(parameter.meta)
        parameter.replace_all_uses_with(whole, delete_user_cb=lambda user: user is not whole)
        self._stored[whole] = parameter
        self.views[name] = torch.Size(seen)
        val = parameter.meta["val"]
        parameter.meta = {**parameter.meta, "val": torch.empty(self.views[name], dtype=val.dtype, device="meta")}

    def make(self, node: fx.Node, target: Callable[..., Any] | Any, shape: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Put a node in front of `node`, from the same place of the model; its value has `shape`, or that of `node`."""
        made = put(node, target, *args, **kwargs)
        if shape is not None:
            val = node.meta["val"]
            made.meta["val"] = torch.empty(shape, dtype=getattr(val, "dtype", None), device="meta")
        return made


def shape_of(node: Any, item: Any = None) -> tuple[int, ...]:
    """Shape of what a node gives, or of an item of it."""
    val = node.meta["val"]
    return tuple((val if item is None else val[item]).shape)
