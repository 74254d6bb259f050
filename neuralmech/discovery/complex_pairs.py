"""Write complex arithmetic as real arithmetic: a pair of real tensors for each complex one.

Rotary positions are often a product of complex numbers. Where a graph goes back to real numbers (``view_as_real``,
``real``, ``imag``, ``abs``), what comes out is computed from the pairs of what went in. An operation that is not here
keeps its complex result, whose real and imaginary part are then read as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, ops

from neuralmech.discovery.movements import MOVEMENT
from neuralmech.discovery.trace import Trace, operation, put, rewritten, without_dead_code

ATEN = ops.aten
Pair = tuple[Any, Any]
CONJUGATES = ("conj", "_conj", "conj_physical")
SAME = ("resolve_conj", "alias", "clone", "contiguous", "detach")
LINEAR = frozenset((*MOVEMENT, "sum", "mean")) - {"_to_copy", "to", "type_as", "numpy_T", "constant_pad_nd", "pad"}


def without_complex(traced: Trace) -> Trace:
    """Rewrite a trace's graph in place."""
    traced, _ = rewritten(traced, _PairRewriting(traced.graph).real)
    return without_dead_code(traced)


class _PairRewriting:
    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self._pairs: dict[fx.Node, Pair] = {}
        self._joined: dict[fx.Node, Pair] = {}  # what ``view_as_real`` gives

    def real(self, node: fx.Node) -> fx.Node | None:
        """What computes a node from real tensors, if it makes a real tensor of a complex one."""
        if (
            operation(node) == "select"
            and node.args[0] in self._joined
            and node.args[1] in (-1, node.meta["val"].dim())
        ):
            return self._joined[node.args[0]][node.args[2]]  # type: ignore[index]
        if operation(node) not in ("view_as_real", "real", "imag", "abs") or not _is_complex(node.args[0]):
            return None
        a, b = self._pair(node.args[0])  # type: ignore[arg-type]
        if operation(node) == "view_as_real":
            made = self._make(node, ATEN.stack.default, [a, b], -1)
            self._joined[made] = (a, b)
            return made
        if operation(node) == "abs":
            squares = (self._make(node, ATEN.square.default, part) for part in (a, b))
            return self._make(node, ATEN.sqrt.default, self._make(node, ATEN.add.Tensor, *squares))
        return a if operation(node) == "real" else b

    def _pair(self, node: fx.Node) -> Pair:
        """Real and imaginary part of a complex tensor."""
        if node not in self._pairs:
            found = self._parts(node) if node.op == "call_function" else None
            self._pairs[node] = found or self._as_it_is(node)
        return self._pairs[node]

    def _as_it_is(self, node: fx.Node) -> Pair:
        with self.graph.inserting_after(node):
            pairs = self.graph.call_function(ATEN.view_as_real.default, (node,))
        real = node.meta["val"].real
        pairs.meta = {**node.meta, "val": torch.empty((*real.shape, 2), dtype=real.dtype, device="meta")}
        following = pairs.next
        first, second = (self._make(node, ATEN.select.int, pairs, -1, i, before=following) for i in (0, 1))
        return first, second

    def _parts(self, node: fx.Node) -> Pair | None:
        name, args = operation(node), node.args
        x: Any = args[0] if args else None
        if name in ("view_as_complex", "complex", "polar"):
            return self._composed(node, name, *args)
        if name in SAME:
            return self._pair(x)
        if name in CONJUGATES:
            return self._pair(x)[0], self._make(node, ATEN.neg.default, self._pair(x)[1])
        if name == "neg":
            first, second = (self._make(node, ATEN.neg.default, part) for part in self._pair(x))
            return first, second
        if name in ("mul", "add", "sub", "div") and not node.kwargs:
            return self._combined(node, name, *(self._operand(a) for a in args))
        if name in LINEAR and isinstance(node.meta["val"], Tensor):
            many = isinstance(x, (list, tuple))
            if not all(map(_is_complex, x if many else [x])):
                return None
            named: dict[str, Any] = dict(node.kwargs)
            pairs = [self._pair(n) for n in x] if many else [self._pair(x)]
            first, second = (
                self._make(node, node.target, [p[i] for p in pairs] if many else pairs[0][i], *args[1:], **named)
                for i in (0, 1)
            )
            return first, second
        return None

    def _composed(self, node: fx.Node, name: str, x: Any, y: Any = None) -> Pair:
        if name == "complex":
            return x, y
        if name == "view_as_complex":
            return self._make(node, ATEN.select.int, x, -1, 0), self._make(node, ATEN.select.int, x, -1, 1)
        turned = (self._make(node, turn, y) for turn in (ATEN.cos.default, ATEN.sin.default))
        first, second = (self._make(node, ATEN.mul.Tensor, x, t) for t in turned)
        return first, second

    def _operand(self, value: Any) -> Pair:
        """Pair of an operand; None as the imaginary part of a real one."""
        if isinstance(value, fx.Node):
            return self._pair(value) if _is_complex(value) else (value, None)
        return (value.real, value.imag) if isinstance(value, complex) else (value, None)

    def _combined(self, node: fx.Node, name: str, x: Pair, y: Pair) -> Pair | None:
        (a, b), (c, d) = x, y
        of = getattr(ATEN, name).Tensor
        if name in ("add", "sub"):
            return self._summed(node, of, a, c), self._summed(node, of, b, d)
        if name == "div":
            return None if d is not None else (self._make(node, of, a, c), self._make(node, of, b, c))
        ac, bd, ad, bc = (self._times(node, *p) for p in ((a, c), (b, d), (a, d), (b, c)))
        return self._summed(node, ATEN.sub.Tensor, ac, bd), self._summed(node, ATEN.add.Tensor, ad, bc)

    def _times(self, node: fx.Node, x: Any, y: Any) -> fx.Node | None:
        """Product of two parts; None, which is zero, if one of them is."""
        return None if x is None or (not y and not isinstance(y, fx.Node)) else self._make(node, ATEN.mul.Tensor, x, y)

    def _summed(self, node: fx.Node, of: Any, x: Any, y: Any) -> fx.Node:
        """Sum or difference of two parts, one of which may be zero (None), in the shape of the whole."""
        made: Any = x if y is None else y if x is None else self._make(node, of, x, y)
        if made is None:
            whole: Any = node.meta["val"]
            made = self._make(node, ATEN.zeros.default, list(whole.shape), dtype=whole.real.dtype)
        elif x is None and of is ATEN.sub.Tensor:
            made = self._make(node, ATEN.neg.default, made)
        shape = list(node.meta["val"].shape)
        same = list(made.meta["val"].shape) == shape
        return made if same else self._make(node, ATEN.expand.default, made, shape)

    def _make(
        self, node: fx.Node, target: Callable[..., Any] | Any, *args: Any, before: fx.Node | None = None, **kwargs: Any
    ) -> fx.Node:
        made = put(before or node, target, *args, **kwargs)
        blank = fx.map_arg((args, kwargs), lambda n: torch.empty_like(n.meta["val"], device="meta"))
        made.meta = {**node.meta, "val": target(*blank[0], **blank[1])}  # type: ignore[index,misc]
        return made


def _is_complex(value: Any) -> bool:
    val = value.meta.get("val") if isinstance(value, fx.Node) else None
    return isinstance(val, Tensor) and val.is_complex()
