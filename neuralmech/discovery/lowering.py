"""Write operations that have no rules in those that have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch._decomp import get_decompositions

EINSUM = torch.ops.aten.einsum.default
GLU = torch.ops.aten.glu.default
VAR_MEAN, VAR_MEAN_DIM = torch.ops.aten.var_mean.correction, torch.ops.aten.var_mean.dim
ACTIVATIONS = frozenset(
    ("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "log_sigmoid", "logit", "mish",
     "relu6", "rrelu", "selu", "sigmoid", "silu", "sinc", "softplus", "softshrink", "tanh", "threshold")
)  # fmt: skip


@cache
def decompositions(keep: frozenset[str]) -> Mapping[Any, Callable[..., Any]]:
    """Return what a traced graph is decomposed by: torch's own table, but for the operations named in `keep`.

    An operation that has no rule may consist of some that have. What has neither stays whole, and so do nonlinear
    activations, so that the report names them as people know them.
    """
    composite = _table()[EINSUM]

    def einsum(equation: str, operands: Sequence[Tensor], *, path: Any = None) -> Tensor:
        as_map = linear_map(equation, operands)
        return composite(equation, operands, path=path) if as_map is None else as_map

    def glu(x: Tensor, dim: int = -1) -> Tensor:
        values, gates = x.chunk(2, dim)
        return values * gates.sigmoid()

    table = {op: how for op, how in _table().items() if not _is_kept(op, keep)}
    return table | {EINSUM: einsum, GLU: glu, VAR_MEAN: _var_mean, VAR_MEAN_DIM: _var_mean_dim} | _in_parts()


def _in_parts() -> dict[Any, Callable[..., Any]]:
    """What torch has no decomposition of, or not of such arguments."""
    aten = torch.ops.aten
    kinds = [f"conv{way}{rank}d" for way in ("", "_transpose") for rank in (1, 2, 3)]
    convolutions = [getattr(getattr(aten, kind), o) for kind in kinds for o in getattr(aten, kind).overloads()]
    others = {
        aten.mv.default: _mv,
        aten.addmv.default: _addmv,
        aten.addbmm.default: _addbmm,
        aten.hardtanh.default: _hardtanh,
        aten.hypot.default: _hypot,
        aten._cdist_forward.default: _cdist,
    }
    return {op: _batched(op) for op in convolutions} | others | {aten._trilinear.default: _trilinear}


def _batched(convolution: Callable[..., Tensor]) -> Callable[..., Any]:
    """A convolution without a batch is that of a batch of one."""

    def batched(x: Tensor, weight: Tensor, *args: Any, **options: Any) -> Any:
        if x.dim() == weight.dim():
            return NotImplemented
        return convolution(x.unsqueeze(0), weight, *args, **options).squeeze(0)

    return batched


def _addmv(bias: Tensor, matrix: Tensor, vector: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(bias, _mv(matrix, vector), beta, alpha)


def _mv(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.nn.functional.linear(vector, matrix)


def _addbmm(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(bias, torch.bmm(x, y).sum(0), beta, alpha)


def _added(bias: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    product = product if alpha == 1 else alpha * product
    return torch.add(bias if beta == 1 else beta * bias, product) if beta else product.expand_as(bias + product)


def _hardtanh(x: Tensor, least: float = -1, most: float = 1) -> Any:
    bounds = [n if math.isfinite(n) else None for n in (least, most)]
    if None not in bounds:
        return NotImplemented
    return torch.clamp(x, *bounds) if any(n is not None for n in bounds) else x.clone()


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square()).sqrt()


def _cdist(x: Tensor, y: Tensor, p: float, how: int | None) -> Tensor:
    """Lengths ‖x_i − y_j‖_p; `how` torch computes them is all the same."""
    return torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, dim=-1)


def _trilinear(x: Tensor, weight: Tensor, y: Tensor, *dims: Any) -> Any:
    """A bilinear layer is a linear map of the products of its inputs."""
    if [list(d) for d in dims[:4]] != [[1, 3], [0], [1, 2], [2, 3]]:
        return NotImplemented
    return torch.nn.functional.linear((x.unsqueeze(2) * y.unsqueeze(1)).flatten(1), weight.flatten(1))


def _is_kept(op: Any, keep: frozenset[str]) -> bool:
    name = op.overloadpacket.__name__
    return name in keep or name in ACTIVATIONS


def _var_mean(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    mean = x.mean() if dim is None and not keepdim else x.mean(dim, keepdim)
    return x.var(dim, correction=correction, keepdim=keepdim), mean


def _var_mean_dim(x: Tensor, dim: Any, unbiased: bool = True, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return _var_mean(x, dim, correction=int(unbiased), keepdim=keepdim)


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    aten = torch.ops.aten
    left_out = get_decompositions([aten.upsample_nearest2d.vec, aten.upsample_bilinear2d])
    return {**dict(torch.export.default_decompositions().items()), **left_out}  # all operations: 40 ms each time


def linear_map(equation: str, operands: Sequence[Float[Tensor, "*shape"]]) -> Float[Tensor, "*shape"] | None:
    """Compute an einsum of a tensor and a weight as a linear map by the weight as a matrix; None for any other.

    The letters that are summed over stand together at one end of the weight's. A weight that is a parameter then stays
    in one piece, with a scale for each row and column instead of each entry, and with shifts and mixing.

    Examples
    --------
    >>> x, w = torch.randn(2, 4, 5), torch.randn(3, 4)
    >>> y = linear_map("bct, oc -> bot", [x, w])
    >>> torch.allclose(y, torch.einsum("bct,oc->bot", x, w))
    True
    """
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    if "." in equation or not arrow or len(letters) != 2:
        return None
    for x, w in ((0, 1), (1, 0)):
        shared = [c for c in letters[w] if c in letters[x]]
        rest = [c for c in letters[x] if c not in shared]
        new = [c for c in letters[w] if c not in shared]
        apart = all(len(set(part)) == len(part) for part in (*letters, out))  # no diagonal
        if not (apart and shared and rest and new) or sorted(rest + new) != sorted(out):
            continue
        rows_first = [*letters[w]] == new + shared
        if not rows_first and [*letters[w]] != shared + new:
            continue
        weight, sizes = operands[w], [operands[w].shape[letters[w].index(c)] for c in new]
        at = operands[x].permute([letters[x].index(c) for c in rest + shared])
        if len(letters[w]) > 2:
            rows = math.prod(weight.shape[: len(new if rows_first else shared)])
            at, weight = at.flatten(len(rest)), weight.reshape(rows, weight.numel() // max(rows, 1))
        y = torch.nn.functional.linear(at, weight) if rows_first else torch.matmul(at, weight)
        return y.unflatten(-1, sizes).permute([(rest + new).index(c) for c in out])
    return None
