"""Write stacks of matrices as grouped linear maps, and a mixture of experts as each row's choice among them.

A weight (E, out, in) or (E, in, out) holds the matrix of each of E experts or heads. By exact identities on a traced
graph it becomes that of a convolution of width one in E groups, which has rules in every algebra; and what is computed
for rows that data have sorted by expert is computed for every expert and every row, of which each row then takes its
own. What one expert's matrices share so remains its own.

| as written | rewritten |
| --- | --- |
| ``bmm(x, W)`` or ``matmul``, W or its transpose a stack | ``conv(x, W as (E·out, in), groups=E)`` |
| ``grouped_mm(x, W, ends)`` | ``own_rows(bmm(x for each expert, W), ends)`` |
| ``grouped_mm(own_rows(h, ends), W, ends)`` | ``own_rows(bmm(h, W), ends)`` |
| ``f(own_rows(h, ends))``, f row by row | ``own_rows(f(h), ends)`` |
| ``b[expert]`` where ``ends`` are those of ``expert`` | ``own_rows(b for each row, expert)`` |
| ``linear(x, W.flatten(1))`` | ``linear(x, W)``, W stored as a matrix |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, ops

from neuralmech.symmetry.trace import Trace, operation

ATEN = ops.aten
GROUPED = ("aten::_grouped_mm", "transformers::grouped_mm_fallback")
PARTS = {"split": 2, "split_with_sizes": 2, "chunk": 2, "slice": 1, "narrow": 1}  # where their dim stands
COPIES = ("alias", "clone", "contiguous", "lift_fresh_copy", "_to_copy", "to")
# What gives zero where all that has experts is zero, row by row; and what does not.
ZERO_AT_ZERO = frozenset(("relu", "leaky_relu", "silu", "gelu", "tanh", "neg", "abs", "square", "mul", *COPIES, *PARTS))
ROW_BY_ROW = ZERO_AT_ZERO | {"add", "sub", "div", "sigmoid", "softplus", "exp", "clamp", "clamp_min", "clamp_max"}


@torch.library.custom_op("neuralmech::own_rows", mutates_args=())
def own_rows(stack: Tensor, by: Tensor, ends: bool) -> Tensor:
    """Of (experts, rows, …) each row's own expert: `by` has each row's, or where each expert's rows end.

    Rows behind the last end are zero.
    """
    rows = torch.arange(stack.shape[1], device=by.device)
    expert = torch.searchsorted(by, rows, right=True) if ends else by
    within = expert < len(stack)
    out = stack[expert.clamp(max=len(stack) - 1), rows]
    return torch.where(within.reshape(-1, *[1] * (out.dim() - 1)), out, 0)


own_rows.register_fake(lambda stack, by, ends: torch.empty_like(stack[0]))


def experts_apart(traced: Trace) -> Trace:
    """Rewrite a trace's graph in place."""
    work = _Rewriting(traced)
    for node in list(traced.graph.nodes):
        better = work.rewritten(node) if node.op == "call_function" else None
        if better is not None:
            node.replace_all_uses_with(better)
            traced.graph.erase_node(node)
            work.output = better if work.output is node else work.output
    traced.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    return replace(traced, output=work.output, views={**traced.views, **work.views})


class _Rewriting:
    def __init__(self, traced: Trace) -> None:
        self.graph, self.output = traced.graph, traced.output
        self.parameters = {n: name for n, name in traced.parameters.items() if name not in traced.pieces}
        self.views: dict[str, torch.Size] = {}
        self._stored: dict[fx.Node, fx.Node] = {}  # the view of a parameter in its own shape → the parameter
        self._own: dict[fx.Node, tuple[fx.Node, fx.Node, bool]] = {}  # what is taken of, by what, whether by ends
        self._parts: dict[fx.Node, tuple[fx.Node, fx.Node, bool]] = {}
        self._made: dict[tuple[str, fx.Node], fx.Node] = {}  # one node, so that parallel weights still read one tensor
        ends = [n.args[2] for n in self.graph.nodes if _is_grouped(n)]
        self._experts = {expert for end in ends if (expert := _expert_of(end)) is not None}

    def rewritten(self, node: fx.Node) -> fx.Node | None:
        """Return a node that is to take the place of `node`, None if no identity applies."""
        if _is_grouped(node):
            return self._grouped(node)
        name = operation(node)
        if name in ("linear", "mm", "matmul", "bmm"):
            flat = self._flattened(node) if name != "bmm" else None
            return flat or (self._stacked(node, *node.args[:2]) if name in ("bmm", "matmul") else None)
        if name == "index" and len(node.args[1]) == 1 and node.args[1][0] in self._experts:  # type: ignore[arg-type,index]
            return self._chosen(node)
        return self._row_by_row(node)

    def _grouped(self, node: fx.Node) -> fx.Node | None:
        x, weight, ends = node.args[:3]
        expert = _expert_of(ends)
        by = (ends, True) if expert is None or _shape(expert) != _shape(x)[:1] else (expert, False)
        if x in self._own and self._own[x][1:] == by:  # type: ignore[index]
            dense = self._own[x][0]  # type: ignore[index]
        else:
            dense = self._for_each(node, x, weight.meta["val"].shape[0])  # type: ignore[arg-type,union-attr]
        made = self._stacked(node, dense, weight)
        if made is None:
            shape = (*_shape(dense)[:2], _shape(weight)[2])
            made = self._make(node, ATEN.bmm.default, shape, dense, weight)
        return self._taken(node, made, *by)

    def _for_each(self, node: fx.Node, x: fx.Node, experts: int) -> fx.Node:
        """Rows (S, …) as (E, S, …), the same for each expert."""
        if ("each", x) not in self._made:
            shape = _shape(x)
            one = self._make(node, ATEN.unsqueeze.default, (1, *shape), x, 0)
            self._made["each", x] = self._make(node, ATEN.expand.default, (experts, *shape), one, [experts, *shape])
        return self._made["each", x]

    def _chosen(self, node: fx.Node) -> fx.Node:
        table, by = node.args[0], node.args[1][0]  # type: ignore[index]
        (experts, *rest), rows = _shape(table), _shape(node)[0]
        one = self._make(node, ATEN.unsqueeze.default, (experts, 1, *rest), table, 1)
        each = self._make(node, ATEN.expand.default, (experts, rows, *rest), one, [experts, rows, *rest])
        return self._taken(node, each, by, False)

    def _taken(self, node: fx.Node, dense: fx.Node, by: Any, ends: bool) -> fx.Node:
        made = self._make(node, ops.neuralmech.own_rows.default, _shape(dense)[1:], dense, by, ends)
        self._own[made] = (dense, by, ends)
        return made

    def _row_by_row(self, node: fx.Node) -> fx.Node | None:
        """An operation on each row alone, on operands of one choice: choose after it instead of before."""
        if node.target.__name__ == "getitem" and node.args[0] in self._parts:  # type: ignore[union-attr,index]
            whole, by, ends = self._parts[node.args[0]]  # type: ignore[index]
            shape = (_shape(whole, node.args[1])[0], *_shape(node))
            return self._taken(node, self._make(node, node.target, shape, whole, node.args[1]), by, ends)
        mine = [n for n in node.all_input_nodes if n in self._own]
        choices = {self._own[n][1:] for n in mine}
        if len(choices) != 1 or operation(node) not in ROW_BY_ROW or not _is_aligned(node, mine):
            return None
        ((by, ends),) = choices
        if ends and operation(node) not in ZERO_AT_ZERO:  # rows that have no expert
            return None
        experts = _shape(self._own[mine[0]][0])[0]
        dense = lambda n: self._own[n][0] if n in self._own else n  # noqa: E731
        args: list[Any] = list(fx.map_arg(node.args, dense))  # type: ignore[arg-type]
        kwargs: dict[str, Any] = dict(fx.map_arg(node.kwargs, dense))  # type: ignore[call-overload]
        at = PARTS.get(operation(node))
        if at is not None:
            dim: Any = args[at] if at < len(args) else node.kwargs.get("dim", 0)
            if dim % len(_shape(mine[0])) == 0 or "dim" in node.kwargs:
                return None
            args[at] = dim + (dim >= 0)
        val = node.meta["val"]
        if isinstance(val, Tensor):
            made = self._make(node, node.target, (experts, *val.shape), *args, **kwargs)
            return self._taken(node, made, by, ends)
        made = self._make(node, node.target, None, *args, **kwargs)
        made.meta["val"] = [torch.empty((experts, *v.shape), dtype=v.dtype, device="meta") for v in val]
        self._parts[node] = (made, by, ends)
        return None

    def _stacked(self, node: fx.Node, x: Any, weight: Any) -> fx.Node | None:
        """x (E, S, in) times a stack of matrices as a grouped convolution; the result is (E, S, out)."""
        sizes, found = _shape(weight), self._stack(weight)
        if found is None or len(_shape(x)) not in (2, 3) or (len(_shape(x)) == 3 and _shape(x)[0] != sizes[0]):
            return None
        stack, turned = found
        experts, width, out = sizes
        if len(_shape(x)) == 2:
            x = self._for_each(node, x, experts)
        rows = _shape(x)[1]
        if ("side by side", x) not in self._made:
            first = self._make(node, ATEN.permute.default, (rows, experts, width), x, [1, 0, 2])
            wide = [rows, experts * width, 1]
            self._made["side by side", x] = self._make(node, ATEN.reshape.default, tuple(wide), first, wide)
        mapped = self._make(
            node, ATEN.conv1d.default if turned else ATEN.conv_transpose1d.default, (rows, experts * out, 1),
            self._made["side by side", x], stack, groups=experts,
        )  # fmt: skip
        apart = self._make(node, ATEN.reshape.default, (rows, experts, out), mapped, [rows, experts, out])
        return self._make(node, ATEN.permute.default, (experts, rows, out), apart, [1, 0, 2])

    def _flattened(self, node: fx.Node) -> fx.Node | None:
        """A linear map by a parameter that is seen as a matrix of its rows: it is stored as one."""
        weight: Any = node.args[1]
        if operation(weight) not in ("view", "reshape", "flatten", "_unsafe_view"):
            return None
        parameter: Any = self._stored.get(weight.args[0], weight.args[0])
        name = self.parameters.get(parameter.name)
        if name is None or len(_shape(weight)) != 2 or (name in self.views and self.views[name] != _shape(weight)):
            return None
        sizes = _shape(weight)
        if name not in self.views:
            self._store(parameter, name, sizes)
        return self._make(node, node.target, _shape(node), node.args[0], parameter, *node.args[2:])

    def _stack(self, weight: Any) -> tuple[fx.Node, bool] | None:
        """The parameter that a stack of matrices is, stored as one matrix; whether it has been transposed."""
        turned = isinstance(weight, fx.Node) and weight.op == "call_function" and operation(weight) == "transpose"
        stored: Any = weight.args[0] if turned else weight
        stored = self._stored.get(stored, stored)
        if turned and {d % 3 for d in weight.args[1:]} != {1, 2}:  # type: ignore[operator]
            return None
        if not isinstance(stored, fx.Node) or stored.name not in self.parameters or len(_shape(weight)) != 3:
            return None
        if self.parameters[stored.name] not in self.views:
            experts, a, b = _shape(stored)
            self._store(stored, self.parameters[stored.name], (experts * a, b, 1))
        elif len(self.views[self.parameters[stored.name]]) != 3:
            return None
        return stored, turned

    def _store(self, parameter: fx.Node, name: str, seen: tuple[int, ...]) -> None:
        """Keep a parameter in another shape, a stack (E, a, b) as (E·a, b); all others read a view of it."""
        shape = _shape(parameter)
        with self.graph.inserting_after(parameter):
            whole = self.graph.call_function(ATEN.view.default, (parameter, list(shape)))
        whole.meta = dict(parameter.meta)
        parameter.replace_all_uses_with(whole, delete_user_cb=lambda user: user is not whole)
        self._stored[whole] = parameter
        self.views[name] = torch.Size(seen)
        val = parameter.meta["val"]
        parameter.meta = {**parameter.meta, "val": torch.empty(self.views[name], dtype=val.dtype, device="meta")}

    def _make(self, node: fx.Node, target: Callable[..., Any] | Any, shape: Any, *args: Any, **kwargs: Any) -> fx.Node:
        with self.graph.inserting_before(node):
            made = self.graph.call_function(target, args, kwargs)
        made.meta = dict(node.meta)
        if shape is not None:
            val = node.meta["val"]
            made.meta["val"] = torch.empty(shape, dtype=getattr(val, "dtype", None), device="meta")
        return made


def _shape(node: Any, item: Any = None) -> tuple[int, ...]:
    val = node.meta["val"]
    return tuple((val if item is None else val[item]).shape)


def _is_grouped(node: fx.Node) -> bool:
    """Whether a node is a product of rows with their experts' matrices, and nothing besides."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.name not in GROUPED or node.kwargs or len(node.args) < 3:
        return False
    x, weight, ends, *more = node.args
    sizes = [len(_shape(n)) if isinstance(n, fx.Node) else 0 for n in (x, weight, ends)]
    return sizes == [2, 3, 1] and not any(m is not None for m in more)


def _is_aligned(node: fx.Node, mine: list[fx.Node]) -> bool:
    """Whether an operation's rows are those of its operands that have experts."""
    val = node.meta["val"]
    shape = tuple((val if isinstance(val, Tensor) else val[0]).shape)
    return all(len(_shape(n)) == len(shape) and _shape(n)[0] == shape[0] for n in mine)


def _expert_of(ends: Any) -> fx.Node | None:
    """Each row's expert, in order, if `ends` count all rows: ``histc(expert, E, 0, E − 1).cumsum(0)``."""
    counts = _argument(ends, "cumsum")
    if counts is None or operation(counts) != "histc" or ends.args[1] not in (0, -1):
        return None
    expert, number, *bounds = (*counts.args, *counts.kwargs.values())
    while operation(expert) in COPIES:  # type: ignore[arg-type]
        expert = expert.args[0]  # type: ignore[union-attr]
    if list(bounds) != [0, number - 1] or not isinstance(expert, fx.Node):  # type: ignore[operator]
        return None
    in_order = expert.target.__name__ == "getitem" and expert.args[1] == 0  # type: ignore[union-attr]
    ordering: Any = expert.args[0] if in_order else None
    if ordering is None or operation(ordering) != "sort" or any(ordering.args[2:]) or ordering.kwargs.get("descending"):
        return None
    return expert if _most(ordering.args[0]) <= number else None  # type: ignore[operator]


def _most(index: Any) -> float:
    """How many values an index can have: it says where along a dim something stands."""
    while operation(index) in ("view", "reshape", "flatten", "_unsafe_view", *COPIES):
        index = index.args[0]
    if operation(index) == "getitem" and index.args[1] == 1 and operation(index.args[0]) in ("topk", "sort"):
        choice = index.args[0]
        at = 2 if operation(choice) == "topk" else 1
        return _shape(choice.args[0])[choice.kwargs.get("dim", choice.args[at] if at < len(choice.args) else -1)]
    return float("inf")


def _argument(node: Any, name: str) -> fx.Node | None:
    """First operand of an operation of that name."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or operation(node) != name:
        return None
    return node.args[0] if isinstance(node.args[0], fx.Node) else None
