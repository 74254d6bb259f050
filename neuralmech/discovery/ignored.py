"""What an operation adds to a tensor or takes out of it, and every reader ignores.

If all that reads a tensor ignores some part of it, the loss is exactly that of a model without this part, and so are
its symmetries. Log-scales need this where the part would bind what is also used elsewhere: a shared layer's bias in
front of a norm, or the factor that one norm takes out in front of another. The part is followed through the graph in
the order of execution, until norms have ignored all of it or something else reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TypeVar

import torch
from torch import fx

from neuralmech.discovery.operations import Norm, Reduction
from neuralmech.discovery.schema import arguments
from neuralmech.discovery.trace import operation

Part = TypeVar("Part")
LENGTHS = ("linalg_vector_norm", "sum", "mean", "amax", "amin")
UNSEEN = 1e-8  # a least length that keeps a quotient finite and that float32 does not see
COPIES = ("alias", "clone", "contiguous", "neg")


class _ReadError(Exception):
    """An operation reads what should be ignored."""


def constant_is_ignored(node: fx.Node, varies: frozenset[int]) -> bool:
    """Whether every reader ignores a constant in a node's output that differs only along the dims `varies`.

    A bias differs along the channels, a number along no dim.
    """
    return _is_ignored(node, varies, _pass_constant)


def factor_is_ignored(node: fx.Node, dims: int) -> bool:
    """Whether every reader ignores a positive factor in a node's output that is the same along the last `dims` dims.

    What carries the factor r carries some power of it, summands the same power.
    """
    return _is_ignored(node, Fraction(1), lambda user, carried: _pass_factor(user, carried, dims))


def _is_ignored(node: fx.Node, part: Part, step: Callable[[fx.Node, dict[fx.Node, Part]], Part | None]) -> bool:
    """Follow a part of a node's output; `step` says what an operation's output has of it, None for nothing."""
    carried = {node: part}
    user = node.next
    while user.op != "root":
        if any(n in carried for n in user.all_input_nodes):
            try:
                passed = step(user, carried)
            except _ReadError:
                return False
            if passed is not None:
                carried[user] = passed
        user = user.next
    return True


def _pass_constant(user: fx.Node, carried: dict[fx.Node, frozenset[int]]) -> frozenset[int] | None:
    """Dims along which the constant differs in an operation's output."""
    name, operands = operation(user), list(_operands(user))
    carriers = [n for n in operands if n in carried]
    varies = frozenset[int]().union(*(carried[n] for n in carriers))
    if name in Norm.NAMES and carriers == operands[:1]:
        norm, shape = _norm(user), _shape(operands[0])
        if norm.centred and not varies.intersection(norm.dims if norm.view == tuple(shape) else range(len(norm.view))):
            return None
    elif name in (*COPIES, "add", "sub", "rsub"):
        if _is_shape_of(user, carriers):
            return varies
    elif name in ("mul", "div"):
        if operands == [user.args[0]] and not user.kwargs:  # by a number
            return varies
    elif name == "cat":
        return varies | {arguments(user)["dim"] % len(_shape(user))}
    elif name == "linear" and carriers == operands[:1]:
        return varies | {len(_shape(user)) - 1}
    raise _ReadError


def _pass_factor(user: fx.Node, carried: dict[fx.Node, Fraction], dims: int) -> Fraction | None:
    """Power of the factor in an operation's output; None where there is none left."""
    name, operands = operation(user), list(_operands(user))
    carriers = [n for n in operands if n in carried]
    powers = [carried.get(n, Fraction(0)) for n in operands]
    if name in Norm.NAMES and carriers == operands[:1]:
        norm, shape = _norm(user), _shape(operands[0])
        if norm.view == tuple(shape) and min(norm.dims) >= len(shape) - dims:
            return None
    elif name in ("mul", "div"):
        if operands[0] is user.args[0] and _is_shape_of(user, carriers, dims) and not user.kwargs:
            return (powers[0] + sum(powers[1:]) * (1 if name == "mul" else -1)) or None
    elif name == "pow" and operands == [user.args[0]] and isinstance(user.args[1], (int, float)):
        return powers[0] * Fraction(user.args[1])
    elif _is_homogeneous(user, operands, carriers, dims) and len({carried[n] for n in carriers}) == 1:
        return carried[carriers[0]]
    raise _ReadError


def _is_homogeneous(user: fx.Node, operands: list[fx.Node], carriers: list[fx.Node], dims: int) -> bool:
    """Whether a positive factor of all operands, the same along the last `dims` dims, is one of the output."""
    name = operation(user)
    if name in (*COPIES, "relu", "leaky_relu", "abs"):
        return True
    if name in ("add", "sub"):
        return len(operands) == 2 and carriers == operands and _is_shape_of(user, carriers)
    if name == "linear":
        return carriers == operands[:1] and len(operands) == 2  # without a bias
    if name in LENGTHS:
        taken = Reduction.of(user)
        return taken.keep and all(d >= len(taken.shape) - dims for d in taken.dims)
    if name == "clamp_min":
        return isinstance(user.args[1], (int, float)) and 0 <= user.args[1] <= UNSEEN
    return name == "expand" and _is_shape_of(user, carriers, dims)


def _operands(user: fx.Node) -> Iterator[fx.Node]:
    """Yield the tensors that an operation takes, in order and with repetitions."""
    for argument in (*user.args, *user.kwargs.values()):
        for item in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(item, fx.Node):
                yield item


def _norm(user: fx.Node) -> Norm:
    norm = Norm.of(user)
    if norm is None:  # with running statistics
        raise _ReadError
    return norm


def _is_shape_of(user: fx.Node, carriers: Iterable[fx.Node], dims: int = 0) -> bool:
    """Whether an operation broadcasts none of its operands that carry the part, but along the last `dims` dims."""
    shape = _shape(user)
    before = len(shape) - dims
    return all(len(_shape(n)) == len(shape) and _shape(n)[:before] == shape[:before] for n in carriers)


def _shape(node: fx.Node) -> torch.Size:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):  # the model's output, or several outputs
        raise _ReadError
    return value.shape
