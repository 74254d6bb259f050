"""Write einsum and gated linear units in the operations that have rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

EINSUM = torch.ops.aten.einsum.default
GLU = torch.ops.aten.glu.default


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what a traced graph is decomposed by: einsum and glu; every other operation stays whole."""
    composite = _composite_einsum()

    def einsum(equation: str, operands: Sequence[Tensor], *, path: Any = None) -> Tensor:
        as_map = linear_map(equation, operands)
        return composite(equation, operands, path=path) if as_map is None else as_map

    def glu(x: Tensor, dim: int = -1) -> Tensor:
        values, gates = x.chunk(2, dim)
        return values * gates.sigmoid()

    return {EINSUM: einsum, GLU: glu}


@cache
def _composite_einsum() -> Callable[..., Any]:
    return torch.export.default_decompositions()[EINSUM]  # a table of all operations: 40 ms each time


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
