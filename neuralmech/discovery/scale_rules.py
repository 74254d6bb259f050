"""How log-scales pass what acts on single elements, moves them or fills them in.

Other files have what takes several together: `scale_reductions`, `scale_maps`, `scale_choices`, `scale_indices`. An
operation that is in none of them is a barrier.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.engine import barrier, known_numbers
from neuralmech.discovery.ignored import constant_is_ignored
from neuralmech.discovery.movements import ASSIGNMENTS, MOVED, MOVEMENT, MOVES, PADDINGS, Padding, move
from neuralmech.discovery.operations import outside_triangle
from neuralmech.discovery.scale import ScaleAlgebra, Zeros, is_zero, rule
from neuralmech.discovery.schema import arguments, shape_of
from neuralmech.discovery.trace import operation, place
from neuralmech.symmetry.group import TINY


@rule(*MOVEMENT, *ASSIGNMENTS, takes=MOVED, given=MOVES)
def _move(algebra: ScaleAlgebra, node: fx.Node, *values: Any) -> Any:
    _note_precision(algebra, node)
    moved = values[0] if isinstance(values[0], (list, tuple)) else values
    return move(node, [algebra.ids(v) for v in moved])


def _note_precision(algebra: ScaleAlgebra, node: fx.Node) -> None:
    """Say where numbers are cast to a precision that a symmetry does not survive."""
    val = node.meta["val"]
    if operation(node) in ("to", "_to_copy") and isinstance(val, Tensor) and val.is_floating_point():
        before = arguments(node)["self"].meta["val"].dtype
        if torch.finfo(val.dtype).eps > max(torch.finfo(before).eps, 1e-4):
            kind = str(val.dtype).removeprefix("torch.")
            algebra.approximations[f"{kind} at {place(node)}: up to {torch.finfo(val.dtype).eps:.0e}"] = None


@rule(*PADDINGS, takes="self", given="pad mode value")
def _pad(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    """Zeros around x: 0·α^s = 0 for any s, so they scale as their neighbours or, where these differ, freely.

    Tokens that fill up a window, or channels that fill up a shortcut, then bind nothing.
    """
    ids, padding = algebra.ids(x), Padding.of(node)
    if not padding.puts_zeros:
        return padding.moved(ids)
    kept = geometry.narrow(ids)[0]
    alike = [ids.shape[d] > 1 == kept.shape[d] for d in range(ids.dim())][::-1]  # along what is alike, so are zeros
    apart = [0 if alike[i // 2] else width for i, width in enumerate(padding.widths)]
    padded = torch.nn.functional.pad(kept, apart, value=geometry.PADDING)
    return _free(algebra, padded, padded == geometry.PADDING).expand(shape_of(node))


def _free(algebra: ScaleAlgebra, ids: Tensor, zeros: Tensor) -> Tensor:
    """Give elements that are zero, where `zeros` is true, exponents of their own."""
    if not bool(zeros.any()):
        return ids
    out = ids.clone()
    out[zeros] = torch.from_numpy(algebra.system.new(int(zeros.sum())))
    return out


@rule("zero", takes="self")
def _zero(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Zeros:
    """Zeros in the place of x (``x.zero_()``)."""
    return algebra.zeros(shape_of(node))


@rule("tril", "triu", takes="self", given="diagonal")
def _triangle(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    ids = algebra.ids(x)
    return _free(algebra, ids, outside_triangle(node).expand(ids.shape))


@rule("relu", "leaky_relu", "neg", "abs", takes="self", given="negative_slope")
@rule("rrelu", takes="self", given="lower upper training generator")
@rule("dropout", "feature_dropout", takes="input", given="p train")
def _homogeneous(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    """Positively homogeneous of degree 1, elementwise."""
    return algebra.ids(x)


@rule("native_dropout", takes="input", given="p train", outputs=2)
def _native_dropout(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> tuple:
    ids = algebra.ids(x)
    return ids, algebra.constant(ids.shape)


@rule("add", "sub", "rsub", takes="self other", given="alpha")
def _add(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    x_ids, y_ids = algebra.ids(x), algebra.ids(y)
    if isinstance(y, (int, float)) and (y == 0 or _is_epsilon(node, y)):
        if y:
            algebra.approximations[f"{y:g} is added at {place(node)}: up to {y:g} of what it is added to"] = None
        return x_ids
    shape = shape_of(node)
    for mine, other in ((x_ids, y_ids), (y_ids, x_ids)):
        if constant_is_ignored(node, _varies(other, shape)):
            return mine.expand(shape)
    algebra.equate(x_ids, y_ids, node)
    return x_ids.expand(shape)


def _varies(x: Tensor, shape: torch.Size) -> frozenset[int]:
    """Dims along which an operand that is broadcast to `shape` can differ."""
    return frozenset(len(shape) - x.dim() + d for d, n in enumerate(x.shape) if n > 1)


def _is_epsilon(node: fx.Node, value: float) -> bool:
    """A small constant that only keeps a root or quotient finite breaks the symmetry by as little as a norm's eps."""
    adds = operation(node) == "add" and 0 < value <= TINY
    return adds and _keeps_from_zero(node)


def _keeps_from_zero(node: fx.Node) -> bool:
    """Whether all that reads a node needs it to be more than zero."""
    return bool(node.users) and all(_needs_more_than_zero(user, node) for user in node.users)


def _needs_more_than_zero(user: fx.Node, node: fx.Node) -> bool:
    """Whether `user` takes a root, a negative power or the reciprocal of `node`, and nothing else."""
    name = operation(user)
    if name in MOVEMENT:
        return user.args[0] is node and _keeps_from_zero(user)
    if name == "div":
        return user.args[1] is node and user.args[0] is not node
    if name == "pow":
        exponent = user.args[1]
        return isinstance(exponent, (int, float)) and (exponent < 0 or exponent != int(exponent))
    return name in ("rsqrt", "sqrt", "reciprocal")


@rule("clamp_min", "clamp", takes="self min max")
def _clamp_min(algebra: ScaleAlgebra, node: fx.Node, x: Any, least: Any, most: Any = None) -> Any:
    if most is None and is_least_value(algebra, node, least):
        return algebra.ids(x)  # relu, or a floor below a norm
    if least is None and is_zero(most):
        return algebra.ids(x)
    return barrier(algebra, node, x, least, most)


def is_least_value(algebra: ScaleAlgebra, node: fx.Node, least: Any) -> bool:
    """Whether a least value that an operation sets binds nothing: zero, or an eps below a root or a quotient."""
    if not isinstance(least, (int, float)) or not 0 <= least <= TINY or (least and not _keeps_from_zero(node)):
        return False
    if least:
        algebra.approximations[f"{least:g} is the least value at {place(node)}: above it only"] = None
    return True


def _binds_nothing(value: Any) -> bool:
    """Whether filling in a value leaves symmetries as they are: zero, or infinity."""
    return is_zero(value) or (isinstance(value, float) and math.isinf(value))


@rule("threshold", takes="self", given="threshold value")
def _threshold(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Any:
    given = arguments(node)
    return algebra.ids(x) if given["threshold"] == 0 and given["value"] == 0 else barrier(algebra, node, x)


@rule("where", takes="self other", given="condition")
def _where(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    shape = shape_of(node)
    if _binds_nothing(x):
        return algebra.ids(y).expand(shape)
    if _binds_nothing(y):
        return algebra.ids(x).expand(shape)
    x_ids, y_ids = algebra.ids(x), algebra.ids(y)
    known = known_numbers(algebra, node, "condition")
    if known is not None:
        return torch.where(known, x_ids, y_ids)
    algebra.equate(x_ids, y_ids, node)
    return x_ids.expand(shape)


@rule("masked_fill", takes="self value", given="mask")
def _masked_fill(algebra: ScaleAlgebra, node: fx.Node, x: Any, value: Any) -> Tensor:
    ids, known = algebra.ids(x), known_numbers(algebra, node, "mask")
    if not _binds_nothing(value):
        if known is not None:
            return torch.where(known, algebra.ids(value), ids)
        algebra.equate(ids, algebra.ids(value), node)
    return ids.expand(shape_of(node))


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", takes="self", given="dim dtype half_to_float")
def _softmax(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    algebra.forbid(x, f"logits of the softmax at {place(node)}")
    return algebra.constant(shape_of(node))


@rule("prelu", "_prelu_kernel", takes="self weight")
def _prelu(algebra: ScaleAlgebra, node: fx.Node, x: Any, slope: Any) -> Tensor:
    algebra.forbid(slope, f"slope of the PReLU at {place(node)}")
    return algebra.ids(x)


@rule("mul", takes="self other")
def _mul(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Tensor:
    out = algebra.combine([algebra.ids(x), algebra.ids(y)], [1, 1])
    for n in node.all_input_nodes:
        known = algebra.concrete.get(n)
        if known is not None and not bool(known.all()):  # a mask
            out = _free(algebra, out, (known == 0).broadcast_to(out.shape))
    return out


@rule("div", takes="self other", given="rounding_mode")
def _div(algebra: ScaleAlgebra, node: fx.Node, x: Any, y: Any) -> Any:
    if arguments(node).get("rounding_mode"):
        return barrier(algebra, node, x, y)
    return algebra.combine([algebra.ids(x), algebra.ids(y)], [1, -1])


@rule("pow", takes="self exponent")
def _pow(algebra: ScaleAlgebra, node: fx.Node, x: Any, exponent: Any) -> Any:
    if not isinstance(exponent, (int, float)) or not math.isfinite(exponent):
        return barrier(algebra, node, x, exponent)
    simple = Fraction(exponent).limit_denominator(1000)  # of 1/3, which no binary number is
    return algebra.combine([algebra.ids(x)], [simple if float(simple) == exponent else Fraction(exponent)])


@rule("square", "sqrt", "rsqrt", "reciprocal", takes="self")
def _power(algebra: ScaleAlgebra, node: fx.Node, x: Any) -> Tensor:
    degree = {"square": Fraction(2), "sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2), "reciprocal": Fraction(-1)}
    return algebra.combine([algebra.ids(x)], [degree[operation(node)]])
