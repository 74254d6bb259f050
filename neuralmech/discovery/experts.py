"""Write a mixture of experts as each row's choice among stacks of matrices.

What is computed for rows that data have sorted by expert is computed for every expert and every row, of which each row
then takes its own: exact identities on a traced graph. What one expert's matrices share so remains its own.

| as written | rewritten |
| --- | --- |
| ``grouped_mm(x, W, ends)`` | ``own_rows(bmm(x for each expert, W), ends)`` |
| ``grouped_mm(own_rows(h, ends), W, ends)`` | ``own_rows(bmm(h, W), ends)`` |
| ``f(own_rows(h, ends))``, f row by row | ``own_rows(f(h), ends)`` |
| ``b[expert]`` where ``ends`` are those of ``expert`` | ``own_rows(b for each row, expert)`` |
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, ops

from neuralmech.discovery.stacks import VIEWS, Stacks, shape_of
from neuralmech.discovery.trace import Trace, operation, rewritten, without_dead_code

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
    work = _ExpertRewriting(traced)
    traced, _ = rewritten(traced, work.rewritten)
    return replace(without_dead_code(traced), views={**traced.views, **work.stacks.views})


class _ExpertRewriting:
    def __init__(self, traced: Trace) -> None:
        self.stacks = Stacks(traced)
        self._own: dict[fx.Node, tuple[fx.Node, fx.Node, bool]] = {}  # what is taken of, by what, whether by ends
        self._parts: dict[fx.Node, tuple[fx.Node, fx.Node, bool]] = {}
        grouped = [n.args[1:3] for n in traced.graph.nodes if _is_grouped(n)]
        self._experts = {_expert_of(ends): shape_of(weight)[0] for weight, ends in grouped}  # how many there are

    def rewritten(self, node: fx.Node) -> fx.Node | None:
        """Return a node that is to take the place of `node`, None if no identity applies."""
        if _is_grouped(node):
            return self._grouped(node)
        name = operation(node)
        if name in ("linear", "mm", "matmul", "bmm"):
            flat = self.stacks.flattened(node) if name != "bmm" else None
            return flat or (self.stacks.stacked(node, *node.args[:2]) if name in ("bmm", "matmul") else None)
        return self._chosen(node) if name == "index" else self._row_by_row(node)

    def _grouped(self, node: fx.Node) -> fx.Node | None:
        x, weight, ends = node.args[:3]
        expert = _expert_of(ends)
        by = (ends, True) if expert is None or shape_of(expert) != shape_of(x)[:1] else (expert, False)
        if x in self._own and self._own[x][1:] == by:  # type: ignore[index]
            dense = self._own[x][0]  # type: ignore[index]
        else:
            dense = self.stacks.for_each(node, x, weight.meta["val"].shape[0])  # type: ignore[arg-type,union-attr]
        made = self.stacks.stacked(node, dense, weight)
        if made is None:
            shape = (*shape_of(dense)[:2], shape_of(weight)[2])
            made = self.stacks.make(node, ATEN.bmm.default, shape, dense, weight)
        return self._taken(node, made, *by)

    def _chosen(self, node: fx.Node) -> fx.Node | None:
        by: Any
        table, (by, *more) = node.args[:2]  # type: ignore[misc]
        (experts, *rest), rows = shape_of(table), shape_of(node)[0]
        if more or by is None or self._experts.get(by) != experts:
            return None
        one = self.stacks.make(node, ATEN.unsqueeze.default, (experts, 1, *rest), table, 1)
        each = self.stacks.make(node, ATEN.expand.default, (experts, rows, *rest), one, [experts, rows, *rest])
        return self._taken(node, each, by, False)

    def _taken(self, node: fx.Node, dense: fx.Node, by: Any, ends: bool) -> fx.Node:
        made = self.stacks.make(node, ops.neuralmech.own_rows.default, shape_of(dense)[1:], dense, by, ends)
        self._own[made] = (dense, by, ends)
        return made

    def _row_by_row(self, node: fx.Node) -> fx.Node | None:
        """An operation on each row alone, on operands of one choice: choose after it instead of before."""
        if node.target.__name__ == "getitem" and node.args[0] in self._parts:  # type: ignore[union-attr,index]
            whole, by, ends = self._parts[node.args[0]]  # type: ignore[index]
            shape = (shape_of(whole, node.args[1])[0], *shape_of(node))
            return self._taken(node, self.stacks.make(node, node.target, shape, whole, node.args[1]), by, ends)
        mine = [n for n in node.all_input_nodes if n in self._own]
        choices = {self._own[n][1:] for n in mine}
        if len(choices) != 1 or operation(node) not in ROW_BY_ROW or not _is_aligned(node, mine):
            return None
        ((by, ends),) = choices
        if ends and operation(node) not in ZERO_AT_ZERO:  # rows that have no expert
            return None
        experts = shape_of(self._own[mine[0]][0])[0]
        dense = lambda n: self._own[n][0] if n in self._own else n  # noqa: E731
        args: list[Any] = list(fx.map_arg(node.args, dense))  # type: ignore[arg-type]
        kwargs: dict[str, Any] = dict(fx.map_arg(node.kwargs, dense))  # type: ignore[call-overload]
        at = PARTS.get(operation(node))
        if at is not None:
            dim: Any = args[at] if at < len(args) else node.kwargs.get("dim", 0)
            if dim % len(shape_of(mine[0])) == 0 or "dim" in node.kwargs:
                return None
            args[at] = dim + (dim >= 0)
        val = node.meta["val"]
        if isinstance(val, Tensor):
            made = self.stacks.make(node, node.target, (experts, *val.shape), *args, **kwargs)
            return self._taken(node, made, by, ends)
        made = self.stacks.make(node, node.target, None, *args, **kwargs)
        made.meta["val"] = [torch.empty((experts, *v.shape), dtype=v.dtype, device="meta") for v in val]
        self._parts[node] = (made, by, ends)
        return None


def _is_grouped(node: fx.Node) -> bool:
    """Whether a node is a product of rows with their experts' matrices, and nothing besides."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.name not in GROUPED or node.kwargs or len(node.args) < 3:
        return False
    x, weight, ends, *more = node.args
    sizes = [len(shape_of(n)) if isinstance(n, fx.Node) else 0 for n in (x, weight, ends)]
    return sizes == [2, 3, 1] and not any(m is not None for m in more)


def _is_aligned(node: fx.Node, mine: list[fx.Node]) -> bool:
    """Whether an operation's rows are those of its operands that have experts."""
    val = node.meta["val"]
    shape = tuple((val if isinstance(val, Tensor) else val[0]).shape)
    return all(len(shape_of(n)) == len(shape) and shape_of(n)[0] == shape[0] for n in mine)


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
    while operation(index) in (*VIEWS, *COPIES):
        index = index.args[0]
    if operation(index) == "getitem" and index.args[1] == 1 and operation(index.args[0]) in ("topk", "sort"):
        choice = index.args[0]
        at = 2 if operation(choice) == "topk" else 1
        return shape_of(choice.args[0])[choice.kwargs.get("dim", choice.args[at] if at < len(choice.args) else -1)]
    return float("inf")


def _argument(node: Any, name: str) -> fx.Node | None:
    """First operand of an operation of that name."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or operation(node) != name:
        return None
    return node.args[0] if isinstance(node.args[0], fx.Node) else None
