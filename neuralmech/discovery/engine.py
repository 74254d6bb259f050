"""What an algebra of symmetry variables is, and the rules by which operations treat its values.

There are three: log-scales (`scale`), shifts (`shift`) and mixing (`mixing`). Each has a table of rules, one entry per
operation. An operation without a rule makes no claim: it is a barrier, its inputs and outputs are fixed,
and the report names it. `walk` takes an algebra through a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, fx

from neuralmech.discovery.schema import arguments
from neuralmech.discovery.system import Ids, System
from neuralmech.discovery.trace import operation, place
from neuralmech.symmetry.group import Barrier

Value = TypeVar("Value")


# What barriers of our own are called.
BARRIERS: dict[str, Callable[[fx.Node], str]] = {
    "cut": lambda node: "no gradient (detach, no_grad)",
    "opaque": lambda node: str(node.args[1]),
    "hooked": lambda node: "register_hook",
}


@dataclass(frozen=True)
class Parameter:
    """A parameter tensor that no rule has read yet."""

    name: str
    shape: torch.Size


class Unknown:
    """A number that data, chance or parameters decide, such as what ``item()`` gives."""


class Symbol:
    """Base of values that are neither tensors of variables nor dictionaries of them."""


@dataclass(frozen=True)
class Rule(Generic[Value]):
    """How one operation treats the values of an algebra, and which of its arguments that covers.

    Attributes
    ----------
    apply
        Called as ``apply(algebra, node, *operands)``; returns the output's value (a tuple of values for an operation
        with several outputs). What else the node is given, a rule reads from it (see `operations`).
    operands
        Names of the arguments whose values it passes on or restrains, in order. It gets those that the operation's
        schema has, with every tensor replaced by the algebra's value or by a `Parameter`.
    given
        Names of those that it understands as long as no parameter decides about them: dims, options, masks.
    outputs
        How many of several outputs it accounts for.
    """

    apply: Callable[..., Any]
    operands: tuple[str, ...]
    given: frozenset[str]
    outputs: int

    @property
    def takes(self) -> frozenset[str]:
        """Names of the operands."""
        return frozenset(self.operands)


class RuleTable(Generic[Value]):
    """Operation name → rule. Adding an operation is one decorated function.

    An operation is a barrier where it has no rule, and where it is given an argument that its rule does not name
    (unless that is the argument's default) or a result of parameters where the rule takes something given.
    """

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}

    def __call__(
        self, *names: str, takes: str, given: str = "", outputs: int = 1
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function for the operations `names`; arguments are named in order, blanks between."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            new = Rule(function, tuple(takes.split()), frozenset(given.split()), outputs)
            self.rules.update(dict.fromkeys(names, new))
            return function

        return register

    def get(self, name: str) -> Rule | None:
        """Return the rule for an operation, or None for a barrier."""
        return self.rules.get(name)


@dataclass
class Algebra(Generic[Value]):
    """What an engine needs to know about one kind of symmetry variable."""

    frozen: frozenset[str] = frozenset()
    system: System = field(default_factory=System)
    barriers: list[Barrier] = field(default_factory=list)
    concrete: dict[fx.Node, Any] = field(default_factory=dict)
    entry_ids: dict[str, Ids] = field(default_factory=dict)
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # see `narrowing`

    rules: RuleTable[Value] = field(init=False)

    def constant(self, shape: torch.Size) -> Value:
        """Value of a tensor that the symmetry leaves as it is."""
        raise NotImplementedError

    def zeros(self, shape: torch.Size) -> Value:
        """Value of a tensor that is zero at every parameter."""
        return self.constant(shape)

    def is_constant(self, value: Value) -> bool:
        """Whether `value` is known to be left as it is."""
        raise NotImplementedError

    def forbid(self, value: Value | Parameter, why: str) -> None:
        """Demand that the tensor be left as it is."""
        raise NotImplementedError

    def observe(self, node: fx.Node) -> None:
        """Note what an operation says beside the value that its rule gives; by default nothing."""

    def entries(self, parameter: Parameter) -> Ids:
        """One unknown per entry of a parameter, in its shape; all zero if the parameter is frozen.

        Entries that a norm binds together share one; the array is then expanded and takes no more room than they.
        """
        name, shape = parameter.name, parameter.shape
        if name not in self.entry_ids:
            apart = [n if d in self.kept.get(name, (d,)) else 1 for d, n in enumerate(shape)]
            ids = self.system.new(math.prod(apart))
            if name in self.frozen:
                self.system.zero(ids, "frozen (requires_grad=False)")
            self.entry_ids[name] = torch.from_numpy(ids.reshape(apart)).expand(shape).numpy()
        return self.entry_ids[name]


def once(ids: Ids) -> Ids:
    """What an array that is expanded has, without the repetitions; flat."""
    return ids[tuple(slice(1) if step == 0 else slice(None) for step in ids.strides)].ravel()


def known_numbers(algebra: Algebra[Any], node: fx.Node, name: str) -> Any:
    """Numbers of an argument, a tensor or a list of them with gaps; None if they are not known."""
    given = arguments(node)[name]
    if not isinstance(given, (list, tuple)):
        return algebra.concrete.get(given)
    known = [None if n is None else algebra.concrete.get(n) for n in given]
    return None if any(k is None and n is not None for k, n in zip(known, given, strict=True)) else known


def barrier(algebra: Algebra[Value], node: fx.Node, *inputs: Any, why: str = "") -> Any:
    """Fix the inputs and outputs of an operation that symmetries do not pass, and remember its name."""
    found = Barrier(BARRIERS.get(operation(node), lambda _: operation(node))(node), place(node), why)
    algebra.barriers.append(found)
    for value in inputs:
        for item in value if isinstance(value, tuple) else (value,):
            algebra.forbid(item, f"barrier: {found}")
    return constants(node, algebra)


def constants(node: fx.Node, algebra: Algebra[Value]) -> Any:
    """Value of what an operation gives, if no symmetry moves it."""
    val = node.meta.get("val")
    if isinstance(val, Tensor):
        return algebra.constant(val.shape)
    if isinstance(val, (tuple, list)):
        return tuple(algebra.constant(v.shape) if isinstance(v, Tensor) else v for v in val)
    return val


def is_fixed(value: Any, algebra: Algebra[Value]) -> bool:
    """Whether no symmetry moves an operand."""
    if isinstance(value, Parameter):
        return False
    if isinstance(value, tuple):
        return all(is_fixed(v, algebra) for v in value)
    return not _is_symbol(value) or algebra.is_constant(value)


def _is_symbol(value: Any) -> bool:
    return isinstance(value, (Tensor, dict, Symbol))
