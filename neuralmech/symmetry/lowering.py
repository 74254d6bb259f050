"""Write operations that have no rules in those that have."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

EINSUM = torch.ops.aten.einsum.default
GLU = torch.ops.aten.glu.default
VAR_MEAN, VAR_MEAN_DIM = torch.ops.aten.var_mean.correction, torch.ops.aten.var_mean.dim
ACTIVATIONS = frozenset(
    ("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "log_sigmoid", "logit", "mish",
     "relu6", "rrelu", "selu", "sigmoid", "silu", "sinc", "softplus", "softshrink", "tanh", "threshold")
)  # fmt: skip


def decompositions(keep: Container[str]) -> dict[Any, Callable[..., Any]]:
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
    return table | {EINSUM: einsum, GLU: glu, VAR_MEAN: _var_mean, VAR_MEAN_DIM: _var_mean_dim}


def _is_kept(op: Any, keep: Container[str]) -> bool:
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


def linear_map(equation: str, operands: Sequence[Tensor]) -> Tensor | None:
    """Compute an einsum of a tensor and a matrix that share one summed letter as a linear map; None for any other.

    A matrix that is a parameter then stays in one piece, with a scale for each row and column instead of each entry,
    and with shifts and mixing.

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
        shared = set(letters[x]) & set(letters[w])
        rest = [c for c in letters[x] if c not in shared]
        new = [c for c in letters[w] if c not in shared]
        if len(letters[w]) != 2 or len(shared) != 1 or len(new) != 1 or sorted(rest + new) != sorted(out):
            continue
        if len(rest) + 1 != len(letters[x]) or len(set(out)) != len(out):  # a diagonal
            continue
        at = operands[x].movedim(letters[x].index(shared.pop()), -1)
        rows_first = letters[w][0] == new[0]
        y = torch.nn.functional.linear(at, operands[w]) if rows_first else torch.matmul(at, operands[w])
        return y.permute([(rest + new).index(c) for c in out])
    return None
