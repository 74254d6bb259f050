"""Walk a traced graph with an algebra of symmetry variables instead of numbers.

Two algebras use it: log-scales (`scale`) and shifts (`shift`). Each has a table of rules, one entry per
operation. An operation without a rule makes no claim: it is a barrier, its inputs and outputs are fixed,
and the report names it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from neuralmech.errors import UserError
from neuralmech.symmetry.gradients import ancestors
from neuralmech.symmetry.system import Ids, System
from neuralmech.symmetry.trace import Trace, operation, place

Value = TypeVar("Value")


# Operations that take only the shape of their input.
FACTORIES = frozenset(
    ("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like",
     "rand_like", "randn_like")
)  # fmt: skip
SHAPES = frozenset(("sym_size", "sym_numel", "sym_stride", "sym_storage_offset"))
UNINITIALISED = frozenset(("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"))
NUMBERS = frozenset(("item", "_local_scalar_dense"))
PRODUCTS = frozenset(("mul", "mm", "bmm", "matmul", "mv"))
CASTS = frozenset(("to", "_to_copy", "type_as"))
LARGEST = 1 << 24  # elements of a constant that is computed
STRICT = False  # tests: an exception in a rule is an error instead of a barrier

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
class Barrier:
    """An operation at which symmetries end because no rule covers it."""

    operation: str
    place: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.operation} ({self.place}{'; ' if self.why else ''}{self.why})"


@dataclass(frozen=True)
class Rule(Generic[Value]):
    """How one operation treats the values of an algebra, and which of its arguments that covers.

    Attributes
    ----------
    apply
        Called as ``apply(algebra, node, *args, **kwargs)`` with the arguments of the traced node, in which every
        tensor is replaced by the algebra's value or by a `Parameter`; returns the output's value (a tuple of values
        for an operation with several outputs).
    takes
        Names of the arguments, in the operation's schema, whose values it passes on or restrains.
    given
        Names of those that it understands as long as no parameter decides about them: dims, options, masks.
    outputs
        How many of several outputs it accounts for.
    """

    apply: Callable[..., Any]
    takes: frozenset[str]
    given: frozenset[str]
    outputs: int


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
        """Register the decorated function for the operations `names`; arguments are named with blanks between."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            new = Rule(function, frozenset(takes.split()), frozenset(given.split()), outputs)
            self.rules.update(dict.fromkeys(names, new))
            return function

        return register

    def get(self, name: str) -> Rule | None:
        """Return the rule for an operation, or None for a barrier."""
        return self.rules.get(name)

    def __contains__(self, name: str) -> bool:
        return name in self.rules


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


def walk(trace: Trace, algebra: Algebra[Value]) -> Value:
    """Propagate `algebra` through the graph; returns the value of the tensor that the loss reads."""
    live = ancestors([trace.output])
    env: dict[fx.Node, Any] = {}
    last_use = {n: node for node in trace.graph.nodes if node in live for n in node.all_input_nodes}
    for node in trace.graph.nodes:
        if node not in live:
            continue
        if node.op == "placeholder":
            env[node] = _placeholder(node, trace, algebra)
        elif node.op == "call_function":
            env[node] = _call(node, env, algebra, live)
        else:  # a submodule of torch.cond and the like, which is a barrier
            env[node] = None
        for n in node.all_input_nodes:
            if last_use[n] is node:
                env.pop(n, None)
                algebra.concrete.pop(n, None)
    for name in trace.hooked & trace.read:
        algebra.forbid(Parameter(name, trace.shapes[name]), "a hook may change its gradient")
    return env[trace.output]


def _placeholder(node: fx.Node, trace: Trace, algebra: Algebra[Value]) -> Any:
    if node.name in trace.parameters:
        name = trace.parameters[node.name]
        return Parameter(name, trace.shapes[name]) if name in trace.read else _constants(node, algebra)
    known = trace.constants.get(node.name)
    if known is not None and not known.is_meta:  # on the meta device it has no numbers
        lifted = node.name not in trace.buffers
        if lifted or not known.is_floating_point():  # what a float buffer holds may change while training
            algebra.concrete[node] = known
    return _constants(node, algebra)


def _call(node: fx.Node, env: dict[fx.Node, Any], algebra: Algebra[Value], live: Container[fx.Node]) -> Any:
    def value(n: fx.Node) -> Any:
        known = algebra.concrete.get(n)  # a scalar that is known is as good as a number
        is_number = isinstance(known, Tensor) and not known.dim() and known.dtype is not torch.bool
        return known.item() if is_number else env[n]  # type: ignore[union-attr]

    args: Any = fx.map_arg(node.args, value)
    kwargs: Any = fx.map_arg(node.kwargs, value)
    if node.target is operator.getitem:
        if (parts := algebra.concrete.get(node.all_input_nodes[0])) is not None:
            algebra.concrete[node] = parts[args[1]]
        return args[0][args[1]]
    inputs = [env[n] for n in node.all_input_nodes]
    if operation(node) in NUMBERS or any(isinstance(v, Unknown) for v in inputs):
        return _decided(node, inputs, algebra)
    if operation(node) in (*FACTORIES, *SHAPES) or all(_is_fixed(value, algebra) for value in inputs):
        return _evaluated(node, algebra)
    rule = algebra.rules.get(operation(node))
    if rule is None or _rounds(node) or unnamed(rule, node, env, algebra) or _reads_more(rule, node, live):
        return barrier(algebra, node, *inputs)
    try:
        return rule.apply(algebra, node, *args, **kwargs)
    except UserError:
        raise
    except Exception as error:  # a rule met something that it was not made for: claim nothing
        if STRICT:
            raise
        return barrier(algebra, node, *inputs, why=f"{type(error).__name__} in its rule")


def _decided(node: fx.Node, inputs: list[Any], algebra: Algebra[Value]) -> Any:
    """Something that a number decides, or that number itself."""
    fixed = all(_is_fixed(value, algebra) for value in inputs)
    out = _constants(node, algebra) if fixed else barrier(algebra, node, *inputs)
    return out if isinstance(node.meta.get("val"), (Tensor, tuple, list)) else Unknown()


def _rounds(node: fx.Node) -> bool:
    """Whether a cast makes whole numbers of others."""
    val = node.meta["val"]
    if operation(node) not in CASTS or val.is_floating_point() or val.is_complex():
        return False
    return bool(node.args[0].meta["val"].is_floating_point())  # type: ignore[union-attr]


def unnamed(rule: Rule, node: fx.Node, env: Mapping[fx.Node, Any], algebra: Algebra[Any]) -> list[str]:
    """Names of the arguments that a node is given and its rule does not cover."""
    found = []
    for argument, value in given_arguments(node):
        if argument.name in rule.takes:
            continue
        values = tree_leaves(value, is_leaf=lambda v: isinstance(v, fx.Node))
        depends = any(isinstance(v, fx.Node) and not _is_fixed(env[v], algebra) for v in values)
        if depends or (argument.name not in rule.given and not is_default(argument, value)):
            found.append(argument.name)
    return found


def given_arguments(node: fx.Node) -> Iterator[tuple[Any, Any]]:
    """Arguments of the operation's schema that a node gives, and what it gives."""
    schema = node.target._schema  # type: ignore[union-attr]
    by_name = {a.name: a for a in schema.arguments}
    yield from zip(schema.arguments, node.args, strict=False)
    yield from ((by_name[name], value) for name, value in node.kwargs.items())


def is_default(argument: Any, value: Any) -> bool:
    """Whether an argument has the value that it has anyway."""
    return (
        argument.has_default_value()
        and type(value) is type(argument.default_value)
        and (value == argument.default_value)
    )


def _reads_more(rule: Rule, node: fx.Node, live: Container[fx.Node]) -> bool:
    """Whether something reads an output that the rule does not account for."""
    if len(node.target._schema.returns) < 2:  # type: ignore[union-attr]  (a list counts as one)
        return False
    picks = [u for u in node.users if u.target is operator.getitem and u in live]
    return any(u.args[1] >= rule.outputs for u in picks)  # type: ignore[operator]


@contextmanager
def _any_kernel() -> Iterator[None]:
    """Evaluate with kernels of whichever order: it is for the run that asked for fixed ones to refuse others."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _evaluated(node: fx.Node, algebra: Algebra[Value]) -> Any:
    """Compute what depends on no parameter, data or chance: integers say where an index points, zeros bind nothing."""
    value, val = _constants(node, algebra), node.meta.get("val")
    outputs = val if isinstance(val, (tuple, list)) else (val,)
    small = all(isinstance(v, Tensor) and v.numel() <= LARGEST for v in outputs)
    by_chance = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    if by_chance or operation(node) in UNINITIALISED or not small:
        return value
    known = algebra.concrete
    if operation(node) in FACTORIES:
        like = {n: n.meta["val"] for n in node.all_input_nodes}
        known = {n: torch.zeros((), dtype=v.dtype).expand(v.shape) for n, v in like.items()}
    if not all(n in known for n in node.all_input_nodes):
        if not (operation(node) in PRODUCTS and any(_is_zero(known.get(n)) for n in node.all_input_nodes)):
            return value
        algebra.concrete[node] = torch.zeros((), dtype=val.dtype).expand(val.shape)  # type: ignore[union-attr]
        return algebra.zeros(val.shape)  # type: ignore[union-attr]
    args: Any = fx.map_arg(node.args, lambda n: known[n])
    kwargs: Any = dict(fx.map_arg(node.kwargs, lambda n: known[n]))
    if "device" in kwargs:  # the numbers are needed, even of a model on the meta device
        kwargs["device"] = torch.device("cpu")
    try:
        with _any_kernel():
            algebra.concrete[node] = result = node.target(*args, **kwargs)  # type: ignore[operator]
    except RuntimeError:  # no kernel for these numbers: they stay unknown
        return value
    if isinstance(result, Tensor):
        return _known(result, algebra)
    return tuple(_known(part, algebra) for part in result)


def _known(result: Tensor, algebra: Algebra[Value]) -> Value:
    return algebra.zeros(result.shape) if _is_zero(result) else algebra.constant(result.shape)


def _is_zero(known: Any) -> bool:
    return isinstance(known, Tensor) and known.is_floating_point() and not bool(known.any())


def known_index(algebra: Algebra[Any], index: Any) -> Any:
    """Numbers of an index, given as the traced node or as a list of them with gaps; None if they are not known."""
    if isinstance(index, fx.Node):
        return algebra.concrete.get(index)
    known = [None if n is None else algebra.concrete.get(n) for n in index]
    return None if any(k is None and n is not None for k, n in zip(known, index, strict=True)) else known


def barrier(algebra: Algebra[Value], node: fx.Node, *inputs: Any, why: str = "") -> Any:
    """Fix the inputs and outputs of an operation that symmetries do not pass, and remember its name."""
    found = Barrier(BARRIERS.get(operation(node), lambda _: operation(node))(node), place(node), why)
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
