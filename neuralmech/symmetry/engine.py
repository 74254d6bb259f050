"""Walk a traced graph with an algebra of symmetry variables instead of numbers.

Two algebras use it: log-scales (`scale`) and shifts (`shift`). Each has a table of rules, one entry per
operation. An operation without a rule makes no claim: it is a barrier, its inputs and outputs are fixed,
and the report names it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, fx

from neuralmech.symmetry.system import Ids, System
from neuralmech.symmetry.trace import Trace, operation, place

Value = TypeVar("Value")


# Operations that take only the shape of their input.
FACTORIES = frozenset(
    ("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like",
     "rand_like", "randn_like")
)  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """A parameter tensor that no rule has read yet."""

    name: str
    shape: torch.Size


class Symbol:
    """Base of values that are neither tensors of variables nor dictionaries of them."""


@dataclass(frozen=True)
class Barrier:
    """An operation at which symmetries end because no rule covers it."""

    operation: str
    place: str

    def __str__(self) -> str:
        return f"{self.operation} ({self.place})"


class RuleTable(Generic[Value]):
    """Operation name → rule. Adding an operation is one decorated function or one `alias` entry.

    A rule is called as ``rule(algebra, node, *args, **kwargs)`` with the arguments of the traced node, in
    which every tensor is replaced by the algebra's value or by a `Parameter`, and returns the output's value
    (a tuple of values for an operation with several outputs).
    """

    def __init__(self) -> None:
        self._rules: dict[str, Callable[..., Any]] = {}

    def __call__(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function for the operations `names`."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._rules.update(dict.fromkeys(names, function))
            return function

        return register

    def get(self, name: str) -> Callable[..., Any] | None:
        """Return the rule for an operation, or None for a barrier."""
        return self._rules.get(name)

    def __contains__(self, name: str) -> bool:
        return name in self._rules


@dataclass
class Algebra(Generic[Value]):
    """What an engine needs to know about one kind of symmetry variable."""

    frozen: frozenset[str] = frozenset()
    system: System = field(default_factory=System)
    barriers: list[Barrier] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    concrete: dict[fx.Node, Tensor] = field(default_factory=dict)
    entry_ids: dict[str, Ids] = field(default_factory=dict)

    rules: RuleTable[Value] = field(init=False)

    def constant(self, shape: torch.Size) -> Value:
        """Value of a tensor that the symmetry leaves as it is."""
        raise NotImplementedError

    def is_constant(self, value: Value) -> bool:
        """Whether `value` is known to be left as it is."""
        raise NotImplementedError

    def forbid(self, value: Value | Parameter, why: str) -> None:
        """Demand that the tensor be left as it is."""
        raise NotImplementedError

    def entries(self, parameter: Parameter) -> Ids:
        """One unknown per entry of a parameter, in its shape; all zero if the parameter is frozen."""
        if parameter.name not in self.entry_ids:
            ids = self.system.new(parameter.shape.numel())
            if parameter.name in self.frozen:
                self.system.zero(ids, "frozen (requires_grad=False)")
            self.entry_ids[parameter.name] = ids.reshape(parameter.shape)
        return self.entry_ids[parameter.name]


def walk(trace: Trace, algebra: Algebra[Value]) -> Value:
    """Propagate `algebra` through the graph; returns the value of the tensor that the loss reads."""
    live = _ancestors(trace.output)
    env: dict[fx.Node, Any] = {}
    for node in trace.graph.nodes:
        if node not in live:
            continue
        if node.op == "placeholder":
            env[node] = _placeholder(node, trace, algebra)
            if node.name in trace.constants and not trace.constants[node.name].is_meta:  # without numbers
                algebra.concrete[node] = trace.constants[node.name]
        elif node.op == "call_function":
            env[node] = _call(node, env, algebra)
        else:  # a submodule of torch.cond and the like, which is a barrier
            env[node] = None
    return env[trace.output]


def _placeholder(node: fx.Node, trace: Trace, algebra: Algebra[Value]) -> Any:
    if node.name in trace.parameters:
        name = trace.parameters[node.name]
        algebra.used.add(name)
        return Parameter(name, trace.shapes[name])
    return _constants(node, algebra)


def _call(node: fx.Node, env: dict[fx.Node, Any], algebra: Algebra[Value]) -> Any:
    args: Any = fx.map_arg(node.args, lambda n: env[n])
    kwargs: Any = fx.map_arg(node.kwargs, lambda n: env[n])
    if node.target is operator.getitem:
        return args[0][args[1]]
    inputs = [env[n] for n in node.all_input_nodes]
    if operation(node) in FACTORIES or not _is_float(node) or all(_is_fixed(value, algebra) for value in inputs):
        _evaluate(node, algebra)
        return _constants(node, algebra)
    rule = algebra.rules.get(operation(node))
    if rule is not None:
        return rule(algebra, node, *args, **kwargs)
    return barrier(algebra, node, *inputs)


def _evaluate(node: fx.Node, algebra: Algebra[Value]) -> None:
    """Compute integer tensors that depend on no data: they say where an index points."""
    val = node.meta.get("val")
    known = all(n in algebra.concrete for n in node.all_input_nodes)
    if known and isinstance(val, Tensor) and not val.is_floating_point():
        args: Any = fx.map_arg(node.args, lambda n: algebra.concrete[n])
        kwargs: Any = dict(fx.map_arg(node.kwargs, lambda n: algebra.concrete[n]))
        if "device" in kwargs:  # the numbers are needed, even of a model on the meta device
            kwargs["device"] = torch.device("cpu")
        algebra.concrete[node] = node.target(*args, **kwargs)  # type: ignore[operator]


def barrier(algebra: Algebra[Value], node: fx.Node, *inputs: Any) -> Any:
    """Fix the inputs and outputs of an operation that symmetries do not pass, and remember its name."""
    found = Barrier(operation(node), place(node))
    algebra.barriers.append(found)
    for value in inputs:
        for item in value if isinstance(value, tuple) else (value,):
            algebra.forbid(item, f"barrier: {found}")
    return _constants(node, algebra)


def _constants(node: fx.Node, algebra: Algebra[Value]) -> Any:
    val = node.meta.get("val")
    if isinstance(val, Tensor):
        return algebra.constant(val.shape)
    if isinstance(val, (tuple, list)):
        return tuple(algebra.constant(v.shape) if isinstance(v, Tensor) else v for v in val)
    return val


def _is_fixed(value: Any, algebra: Algebra[Value]) -> bool:
    if isinstance(value, Parameter):
        return False
    if isinstance(value, tuple):
        return all(_is_fixed(v, algebra) for v in value)
    return not _is_symbol(value) or algebra.is_constant(value)


def _is_symbol(value: Any) -> bool:
    return isinstance(value, (Tensor, dict, Symbol))


def _is_float(node: fx.Node) -> bool:
    """Whether an operation has an output that gradients pass through."""
    val = node.meta.get("val")
    outputs = val if isinstance(val, (tuple, list)) else (val,)
    return not outputs or any(isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex()) for v in outputs)


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen, stack = {node}, [node]
    while stack:
        for parent in stack.pop().all_input_nodes:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return seen
