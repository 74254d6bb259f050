"""Write products with a weight as linear maps of the weight itself, by exact identities on a traced graph.

A weight that is transposed, multiplied by a number, copied or joined to another one before a linear map would be read
entry by entry, with no shifts and no mixing. The same map is written here so that the weight stands in it as it is:

| as written | rewritten |
| --- | --- |
| ``x @ W.T``, ``addmm(b, x, W.T)`` | ``linear(x, W, b)`` |
| ``linear(x, W.T, b)`` | ``x @ W + b`` |
| ``W @ x`` | ``linear(x.mT, W).mT`` |
| ``linear(x, W.view(out, in), b)``, ``W.squeeze(-1)``, ``W[:, :, 0]`` | a convolution by W (out, in, 1) |
| a convolution by ``W.view(out, in, 1, 1)`` | ``linear(x, W, b)`` of each position |
| ``linear(x, W.to(bfloat16), b)`` | ``linear(x, W).to(bfloat16) + b`` |
| ``linear(x, W · c, b)``, convolutions, ``x @ (W · c)`` | ``linear(x · c, W, b)`` |
| ``linear(x, cat([W₁, W₂]))`` | ``cat([linear(x, W₁), linear(x, W₂)])`` |
| ``linear(0, W, b)``, ``0 · x`` | b for each position, 0 |
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, empty, finfo, fx, ops

from neuralmech.discovery.geometry import convolution_options, spread
from neuralmech.discovery.trace import Trace, operation, put, rewritten, without_dead_code

ATEN = ops.aten
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
PRODUCTS = ("mm", "matmul")
COPIES = ("alias", "clone", "contiguous", "lift_fresh_copy")
REARRANGED = (
    *(*COPIES, "expand", "narrow", "permute", "reshape", "select", "slice", "squeeze", "t", "transpose", "unsqueeze"),
    *("view", "_unsafe_view"),
)
CASTS = ("to", "_to_copy", "type_as")
RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "select")  # in order
KERNELS = {3: ATEN.conv1d.default, 4: ATEN.conv2d.default, 5: ATEN.conv3d.default}


def simplified(traced: Trace) -> Trace:
    """Rewrite a trace's graph in place."""
    work = _CanonicalRewriting(traced.graph, frozenset(traced.parameters))
    more = True
    while more:  # what a rewriting makes may be rewritten, too
        traced, more = rewritten(traced, work.rewritten)
    return without_dead_code(traced)


class _CanonicalRewriting:
    def __init__(self, graph: fx.Graph, parameters: frozenset[str]) -> None:
        self.graph, self.parameters = graph, parameters
        self._multiples: dict[tuple[fx.Node, float], fx.Node] = {}
        self._of_weights: dict[fx.Node, bool] = {}

    def rewritten(self, node: fx.Node) -> fx.Node | None:
        """Return a node that is to take the place of `node`, None if no identity applies."""
        name = operation(node)
        if name in ("linear", "mul", *PRODUCTS) and any(map(_is_zero, node.args[:2])):
            return self._of_zeros(node, name)
        if name in ("linear", *CONVOLUTIONS, *PRODUCTS):
            weight: Any = node.args[1]
            if not isinstance(weight, fx.Node) or not self._is_of_weights(weight):
                return self._from_the_left(node) if name in PRODUCTS else None
            if weight.op != "call_function":
                return None
            better = self._copied(node, weight) or self._rounded(node, weight) or self._multiplied(node, weight)
            return better or self._reshaped(node, weight) or self._by_name(name, node, weight)
        if name == "addmm" and not node.kwargs and self._transposed(node.args[2]):
            bias, x, weight = node.args
            if bias.meta["val"].dim() == 1:  # type: ignore[union-attr]
                return put(node, ATEN.linear.default, x, self._transposed(weight), bias)
        return None

    def _from_the_left(self, node: fx.Node) -> fx.Node | None:
        """A weight times columns: W x = (xᵀ Wᵀ)ᵀ."""
        weight, x = node.args[:2]
        shape = x.meta["val"].shape  # type: ignore[union-attr]
        if not self._is_of_weights(weight) or len(weight.meta["val"].shape) != 2 or len(shape) < 2:  # type: ignore[union-attr]
            return None
        rows = put(node, ATEN.transpose.int, x, -1, -2)
        rows.meta["val"] = x.meta["val"].mT  # type: ignore[union-attr]
        mapped = put(node, ATEN.linear.default, rows, weight)
        mapped.meta["val"] = node.meta["val"].mT
        return put(node, ATEN.transpose.int, mapped, -1, -2)

    def _of_zeros(self, node: fx.Node, name: str) -> fx.Node:
        """What is left of a product with zeros, such as a first state: a bias, or zeros."""
        val, bias = node.meta["val"], node.args[2] if name == "linear" and len(node.args) > 2 else None
        if bias is not None:
            return put(node, ATEN.expand.default, bias, list(val.shape))
        return put(node, ATEN.full.default, list(val.shape), 0, dtype=val.dtype)

    def _by_name(self, name: str, node: fx.Node, weight: fx.Node) -> fx.Node | None:
        turned = self._transposed(weight)
        if name in PRODUCTS and turned is not None:
            x: Any = node.args[0]
            return put(node, ATEN.linear.default, x, turned) if x.meta["val"].dim() > 1 else None
        if name == "linear" and turned is not None:
            made = put(node, ATEN.matmul.default, node.args[0], turned)
            bias = node.args[2] if len(node.args) > 2 else None
            return made if bias is None else put(node, ATEN.add.Tensor, made, bias)
        return self._joined(node, weight) if name == "linear" else None

    def _is_of_weights(self, value: Any) -> bool:
        """Whether a node is computed from parameters and numbers alone."""
        if not isinstance(value, fx.Node) or value.op != "call_function":
            return isinstance(value, fx.Node) and value.name in self.parameters
        if value not in self._of_weights:
            inputs = value.all_input_nodes
            self._of_weights[value] = bool(inputs) and all(self._is_of_weights(n) for n in inputs)
        return self._of_weights[value]

    def _copied(self, node: fx.Node, weight: fx.Node) -> fx.Node | None:
        same_type = operation(weight) in CASTS and weight.meta["val"].dtype == _dtype(weight.args[0])
        if same_type or operation(weight) in COPIES:
            return put(node, node.target, node.args[0], weight.args[0], *node.args[2:], **node.kwargs)
        return None

    def _rounded(self, node: fx.Node, weight: fx.Node) -> fx.Node | None:
        """A weight that is cast to a lower precision: the product is cast instead, and named with the cast's place."""
        if operation(weight) not in CASTS:
            return None
        low, high = weight.meta["val"].dtype, _dtype(weight.args[0])
        if not (low.is_floating_point and high.is_floating_point) or finfo(low).eps <= finfo(high).eps:
            return None
        x, _, bias, *options = (*node.args, None)[: max(len(node.args), 3)]
        val: Any = node.meta["val"]
        raised = put(node, ATEN._to_copy.default, x, dtype=high)
        raised.meta["val"] = empty(x.meta["val"].shape, dtype=high, device="meta")  # type: ignore[union-attr]
        of = () if operation(node) in PRODUCTS else (None, *options)
        exact = put(node, node.target, raised, weight.args[0], *of, **node.kwargs)
        exact.meta["val"] = empty(val.shape, dtype=high, device="meta")
        out = put(node, ATEN._to_copy.default, exact, dtype=low)
        out.meta = {**weight.meta, "val": val}
        if bias is None:
            return out
        if operation(node) in CONVOLUTIONS:
            along = [-1, *[1] * (weight.meta["val"].dim() - 2)]
            named: Any = bias
            bias = put(node, ATEN.view.default, named, along)
            bias.meta["val"] = named.meta["val"].reshape(along)
        return put(node, ATEN.add.Tensor, out, bias)

    def _reshaped(self, node: fx.Node, weight: fx.Node) -> fx.Node | None:
        """A matrix that is made of a kernel of one element, or such a kernel of a matrix."""
        inner = _of_same_matrix(weight)
        if inner is weight:
            return None
        before, after = inner.meta["val"].shape, weight.meta["val"].shape
        x, val, bias = node.args[0], node.meta["val"], (*node.args, None)[2]
        given: Any = x.meta["val"]  # type: ignore[union-attr]
        ones = [1] * (len(before) - 2)
        if operation(node) == "linear" and len(before) in KERNELS and val.numel() and before.numel():
            first = put(node, ATEN.reshape.default, x, [-1, before[1], *ones])
            made = put(node, KERNELS[len(before)], first, inner, bias)
            out = put(node, ATEN.reshape.default, made, list(val.shape))
            first.meta["val"], made.meta["val"] = given.reshape(first.args[1]), val.reshape(-1, before[0], *ones)
            return out
        if operation(node) not in CONVOLUTIONS or given.dim() != len(after) or not _is_plain(node):
            return None
        if ones:
            matrix = put(node, ATEN.reshape.default, inner, list(before[:2]))
            matrix.meta["val"], inner = inner.meta["val"].reshape(before[:2]), matrix
        first = put(node, ATEN.movedim.int, x, 1, -1)
        made = put(node, ATEN.linear.default, first, inner, bias)
        first.meta["val"], made.meta["val"] = given.movedim(1, -1), val.movedim(1, -1)
        return put(node, ATEN.movedim.int, made, -1, 1)

    def _multiplied(self, node: fx.Node, weight: fx.Node) -> fx.Node | None:
        """A number times the weight is taken to the input: (c·W)x = W(c·x)."""
        factor = _factor(weight)
        if factor is None:
            return None
        x: Any = node.args[0]
        inner: Any = weight.args[0] if isinstance(weight.args[0], fx.Node) else weight.args[1]
        if (x, factor) not in self._multiples:  # one node, so that parallel weights still read one tensor
            with self.graph.inserting_after(x):
                made = self.graph.call_function(ATEN.mul.Tensor, (x, factor))
            made.meta = {**node.meta, "val": x.meta["val"]}
            self._multiples[x, factor] = made
        return put(node, node.target, self._multiples[x, factor], inner, *node.args[2:], **node.kwargs)

    def _joined(self, node: fx.Node, weight: fx.Node) -> fx.Node | None:
        x, _, bias = (*node.args, None)[:3]
        weights = _parts(weight)
        biases = _parts(bias) if isinstance(bias, fx.Node) else ([None] * len(weights) if weights else None)
        if not weights or not biases or _lengths(biases) not in ([], _lengths(weights)):
            return None
        val: Any = node.meta["val"]
        ends = list(_cumulated(_lengths(weights)))
        maps = []
        for w, b, end in zip(weights, biases, ends, strict=True):
            made = put(node, ATEN.linear.default, x, w, *([] if b is None else [b]))
            made.meta["val"] = val[..., end - w.meta["val"].shape[0] : end]
            maps.append(made)
        return put(node, ATEN.cat.default, maps, -1)

    def _transposed(self, value: Any) -> fx.Node | None:
        """What a matrix computed from weights is the transpose of."""
        if not self._is_of_weights(value) or value.op != "call_function" or value.meta["val"].dim() != 2:
            return None
        name, arguments = operation(value), list(value.args)
        inner: Any = arguments[0]
        dims: Any = arguments[1:]
        swaps = name == "t" or (name == "transpose" and {d % 2 for d in dims} == {0, 1})
        swaps = swaps or name == "numpy_T" or (name == "permute" and [d % 2 for d in dims[0]] == [1, 0])
        return inner if swaps else None


def _dtype(value: Any) -> Any:
    return value.meta["val"].dtype


def _of_same_matrix(weight: fx.Node) -> fx.Node:
    """First of the tensors that a weight is reshaped from with its rows and columns, all other dims of length 1."""
    rows_and_columns = weight.meta["val"].shape[:2]
    while weight.op == "call_function" and operation(weight) in (*RESHAPES, *COPIES):
        before: Any = weight.args[0]
        shape = before.meta["val"].shape
        if len(shape) < 2 or shape[:2] != rows_and_columns or shape[2:].numel() != 1:
            break
        weight = before
    return weight


def _is_plain(node: fx.Node) -> bool:
    """Whether a convolution by a kernel of one element maps each position as it is, all channels together."""
    chosen = convolution_options(node.args[3:], dict(node.kwargs))
    padding = chosen.get("padding", 0)
    padded = padding not in ("valid", "same") if isinstance(padding, str) else any(spread(padding, 1))
    return chosen.get("groups", 1) == 1 and not padded and all(s == 1 for s in spread(chosen.get("stride", 1), 1))


def _factor(weight: fx.Node) -> float | None:
    """The number c of c·W, W/(1/c) or −W; None for anything else."""
    if weight.op != "call_function" or weight.kwargs:
        return None
    name, args = operation(weight), weight.args
    if name == "neg":
        return -1.0
    numbers = [a for a in args if isinstance(a, (int, float))]
    if name not in ("mul", "div") or len(numbers) != 1 or not numbers[0] or not math.isfinite(numbers[0]):
        return None
    if name == "div":
        return 1 / numbers[0] if isinstance(args[0], fx.Node) else None
    return float(numbers[0])


def _is_zero(value: Any) -> bool:
    """Whether a tensor is filled with zeros, or moved from one."""
    if not isinstance(value, fx.Node) or value.op != "call_function" or not isinstance(value.meta["val"], Tensor):
        return False
    name = operation(value)
    if name in ("full", "full_like", "new_full"):
        number = value.args[2 if name == "new_full" else 1]
        return isinstance(number, (int, float)) and number == 0
    if name in ("zeros", "zeros_like", "new_zeros"):
        return True
    return name in REARRANGED and _is_zero(value.args[0])


def _parts(value: fx.Node) -> list[fx.Node] | None:
    """Operands of a concatenation along the first dim."""
    if value.op != "call_function" or operation(value) != "cat":
        return None
    dim: Any = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)
    return list(value.args[0]) if dim % value.meta["val"].dim() == 0 else None  # type: ignore[arg-type]


def _lengths(nodes: list[Any]) -> list[int]:
    return [n.meta["val"].shape[0] for n in nodes if n is not None]


def _cumulated(lengths: list[int]) -> list[int]:
    return [sum(lengths[: i + 1]) for i in range(len(lengths))]
