"""Which entries of a parameter a norm binds together, told from the graph before any unknown is made.

A weight that is standardised row by row before a convolution has one unknown per row. Taken entry by entry, a network's
forty million would be made and equated one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, fx

from neuralmech.discovery import geometry
from neuralmech.discovery.gradients import ancestors
from neuralmech.discovery.movements import move
from neuralmech.discovery.operations import Norm, Reduction
from neuralmech.discovery.trace import Trace, operation

Bound = tuple[tuple[int, ...], tuple[int, ...]]  # a view of a tensor, and the dims of it along which unknowns are equal

# Movements that keep every element once.
REARRANGING = frozenset(
    ("_to_copy", "_unsafe_view", "alias", "clone", "contiguous", "flatten", "lift_fresh_copy", "movedim", "numpy_T",
     "permute", "reshape", "squeeze", "t", "to", "transpose", "type_as", "unflatten", "unsqueeze", "view")
)  # fmt: skip
MOMENTS = frozenset(("var", "std", "var_mean"))
LENGTHS = frozenset(("norm", "linalg_vector_norm"))
MEANS = frozenset(("mean", "sum"))


def kept_dims(trace: Trace, *, means: bool) -> Mapping[str, tuple[int, ...]]:
    """Dims of parameters along which unknowns may differ; parameters that nothing narrows are left out.

    Norms, lengths and variances bind what they take together for every algebra, whatever else reads the parameter;
    means do so for log-scales alone (`means`).
    """
    live = ancestors([trace.output])
    kept: dict[str, tuple[int, ...]] = {}
    for node in trace.graph.nodes:
        if node.op == "placeholder" and node.name in trace.parameters and node in live:
            name = trace.parameters[node.name]
            shape = trace.seen[name]
            every = tuple(d for d, n in enumerate(shape) if n > 1)
            for dims in () if len(every) < 2 else _bindings(node, _coordinates(shape), live, means=means):
                kept[name] = tuple(d for d in kept.get(name, every) if d in dims)
            if kept.get(name) == every:
                del kept[name]
    return kept


def _coordinates(shape: torch.Size) -> list[Tensor]:
    """Along each dim, where an element stands; expanded, so that nothing large is made."""
    return [
        torch.arange(n).reshape([-1 if e == d else 1 for e in range(len(shape))]).expand(shape)
        for d, n in enumerate(shape)
    ]


def _bindings(node: fx.Node, places: list[Tensor], live: set[fx.Node], *, means: bool) -> list[tuple[int, ...]]:
    """For each norm that reads a parameter as it is or rearranged: the dims that it leaves apart."""
    found = []
    for user in node.users:
        if user not in live or user.op != "call_function" or not user.args or user.args[0] is not node:
            continue
        if operation(user) in REARRANGING:
            found += _bindings(user, [move(user, [p]) for p in places], live, means=means)
        elif places[0].numel() and (bound := _bound(user, means=means)) is not None:
            found += _apart(places, *bound)
    return found


def _bound(user: fx.Node, *, means: bool) -> Bound | None:
    """What `user` binds of its first operand, in both algebras (by means in that of log-scales alone)."""
    name = operation(user)
    if name in Norm.NAMES:
        norm = Norm.of(user)
        return (norm.view, norm.dims) if norm is not None and norm.centred else None
    if name not in (*MOMENTS, *LENGTHS, *(MEANS if means else ())):
        return None
    taken = Reduction.of(user)
    return tuple(taken.shape), taken.dims


def _apart(places: list[Tensor], view: tuple[int, ...], over: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Dims of the parameter in which the slices of a norm differ, if they are the parameter's own; else nothing.

    A dim tells slices apart if each stands at one place along it. There are as many slices as such places only if a
    slice is all that stands there.
    """
    slices = places[0].numel() // math.prod(view[d] for d in over)
    apart, told = [], 1
    for d, place in enumerate(places):
        if told == slices:
            break
        seen = place.reshape(view)
        if torch.equal(seen, geometry.first_along(seen, over).expand_as(seen)):
            apart.append(d)
            told *= int(place.max()) + 1
    return [tuple(apart)] if told == slices else []
