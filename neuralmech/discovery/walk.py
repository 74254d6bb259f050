"""Take an algebra through a traced graph: each operation's rule, a barrier, or numbers that are known beforehand."""

from __future__ import annotations

import operator
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from neuralmech.discovery.engine import (
    Algebra,
    Parameter,
    Rule,
    Unknown,
    barrier,
    constants,
    is_fixed,
)
from neuralmech.discovery.gradients import ancestors
from neuralmech.discovery.movements import FACTORIES
from neuralmech.discovery.schema import SIZES, arguments, given_arguments
from neuralmech.discovery.trace import Trace, is_by_chance, operation
from neuralmech.errors import UserError

Value = TypeVar("Value")

UNINITIALISED = frozenset(("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"))
NUMBERS = frozenset(("item", "_local_scalar_dense"))
PRODUCTS = frozenset(("mul", "mm", "bmm", "matmul", "mv"))
CASTS = frozenset(("to", "_to_copy", "type_as"))
LARGEST = 1 << 24  # elements of a constant that is computed
STRICT = False  # tests: an exception in a rule is an error instead of a barrier


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
            _observe(node, algebra)
        else:  # a submodule of torch.cond and the like, which is a barrier
            env[node] = None
        for n in node.all_input_nodes:
            if last_use[n] is node:
                env.pop(n, None)
                algebra.concrete.pop(n, None)
    for name in trace.hooked & trace.read & trace.seen.keys():
        algebra.forbid(Parameter(name, trace.seen[name]), "a hook may change its gradient")
    return env[trace.output]


def _observe(node: fx.Node, algebra: Algebra[Value]) -> None:
    try:
        algebra.observe(node)
    except Exception:  # as in a rule: nothing more is told of it
        if STRICT:
            raise


def _placeholder(node: fx.Node, trace: Trace, algebra: Algebra[Value]) -> Any:
    if node.name in trace.parameters:
        name = trace.parameters[node.name]
        return Parameter(name, trace.seen[name]) if name in trace.read else constants(node, algebra)
    known = trace.constants.get(node.name)
    if known is not None and not known.is_meta:  # on the meta device it has no numbers
        lifted = node.name not in trace.buffers
        if lifted or not (
            known.is_floating_point() or known.is_complex()
        ):  # what a float buffer holds may change while training
            algebra.concrete[node] = known
    return constants(node, algebra)


def _call(node: fx.Node, env: dict[fx.Node, Any], algebra: Algebra[Value], live: Container[fx.Node]) -> Any:
    def value(n: fx.Node) -> Any:
        known = algebra.concrete.get(n)  # a scalar that is known is as good as a number
        is_number = isinstance(known, Tensor) and not known.dim() and known.dtype is not torch.bool
        return known.item() if is_number else env[n]  # type: ignore[union-attr]

    if node.target is operator.getitem:
        if (parts := algebra.concrete.get(node.all_input_nodes[0])) is not None:
            algebra.concrete[node] = parts[node.args[1]]
        return env[node.all_input_nodes[0]][node.args[1]]
    inputs = [env[n] for n in node.all_input_nodes]
    if operation(node) in NUMBERS or any(isinstance(v, Unknown) for v in inputs):
        return _decided(node, inputs, algebra)
    if operation(node) in (*FACTORIES, *SIZES) or all(is_fixed(value, algebra) for value in inputs):
        return _evaluated(node, algebra)
    rule = algebra.rules.get(operation(node))
    if rule is None or _rounds(node) or unnamed(rule, node, env, algebra) or _reads_more(rule, node, live):
        return barrier(algebra, node, *inputs)
    try:
        given = arguments(node)
        return rule.apply(algebra, node, *(fx.map_arg(given[name], value) for name in rule.operands if name in given))
    except UserError:
        raise
    except Exception as error:  # a rule met something that it was not made for: claim nothing
        if STRICT:
            raise
        return barrier(algebra, node, *inputs, why=f"{type(error).__name__} in its rule")


def _decided(node: fx.Node, inputs: list[Any], algebra: Algebra[Value]) -> Any:
    """Something that a number decides, or that number itself."""
    fixed = all(is_fixed(value, algebra) for value in inputs)
    out = constants(node, algebra) if fixed else barrier(algebra, node, *inputs)
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
        depends = any(isinstance(v, fx.Node) and not is_fixed(env[v], algebra) for v in values)
        if depends or (argument.name not in rule.given and not _is_default(argument, value)):
            found.append(argument.name)
    return found


def _is_default(argument: Any, value: Any) -> bool:
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
    value, val = constants(node, algebra), node.meta.get("val")
    outputs = val if isinstance(val, (tuple, list)) else (val,)
    small = all(isinstance(v, Tensor) and v.numel() <= LARGEST for v in outputs)
    if is_by_chance(node) or operation(node) in UNINITIALISED or not small:
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
