"""Decompose a program's operations, each distinct one once: of two thousand in a large model, some sixty differ.

``ExportedProgram.run_decompositions`` traces the whole model again, which takes longer than ``torch.export`` itself.
Where an operation writes only to what nothing reads by another name, its result takes the place of what it wrote to;
the graph is then functional, and each operation becomes what the same one becomes in a program that has each once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._export.utils import _is_preservable_cia_op
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils._pytree import tree_leaves, tree_map_only

from neuralmech.discovery.gradients import ancestors
from neuralmech.discovery.lowering import decompositions

ATEN = torch.ops.aten
FEW = 300  # operations: so small a program is soon traced again
WITHOUT_WRITING = {ATEN.bernoulli_.float: ATEN.bernoulli.p}  # where the name says less
Table = Mapping[Any, Callable[..., Any]]
Nodes = list[fx.Node]


@dataclass(frozen=True)
class Lowered:
    """What a trace reads of a decomposed program: its graph, and the names of what the model returns."""

    graph: fx.Graph
    outputs: tuple[str, ...]
    program: ExportedProgram


@dataclass(frozen=True)
class Part:
    """What one operation becomes: nodes over placeholders that stand for its operands, and those that it gives."""

    operands: Nodes
    nodes: Nodes
    outputs: Nodes
    written: tuple[int, ...]  # operands that it changes without saying so: statistics of a batch norm


class _WholeProgramError(Exception):
    """Something here needs torch's own pass over the whole program."""


def lowered(program: ExportedProgram, keep: frozenset[str]) -> Lowered:
    """Make a program functional and decompose it as ``run_decompositions`` does, but for the operations in `keep`.

    Here views become ``reshape``: what they are of may lie otherwise in memory than it did.
    """
    table = decompositions(keep)
    try:
        return _each_once(program, table, keep)
    except _WholeProgramError:
        whole = program.run_decompositions(dict(table))
        return Lowered(whole.graph, _names(whole), whole)


def _names(program: ExportedProgram) -> tuple[str, ...]:
    return tuple(name for name in program.graph_signature.user_outputs if isinstance(name, str))


def _each_once(program: ExportedProgram, table: Table, keep: frozenset[str]) -> Lowered:
    nodes = list(program.graph.nodes)
    calls = [n for n in nodes if n.op == "call_function" and n.target is not operator.getitem]
    if len(calls) < FEW or not all(map(_is_plain, nodes)):
        raise _WholeProgramError
    writes, targets = _Writes(nodes), {n: _without_writing(n.target) for n in calls}
    same = {n: writes.names_of(n.args[0], n) for n in calls if _writes(n)}
    keys = {n: _key(n, targets[n]) for n in calls if _may_change(targets[n], table, keep)}
    parts = _parts({key: (targets[n], n) for n, key in keys.items()}, table)
    graph, env = fx.Graph(), {}
    for node in nodes:
        if node.op != "call_function":
            env[node] = graph.node_copy(node, env.__getitem__)
        elif node.target is operator.getitem:
            env[node] = env[node.args[0]][node.args[1]]
        else:
            part = parts[keys[node]] if node in keys else None
            env[node] = _spliced(graph, node, part, env) if part else _copied(graph, node, targets[node], env)
            for i in part.written if part else ():
                if any(writes.is_read_after(n, node) for n in writes.names_of(node.all_input_nodes[i], node)):
                    raise _WholeProgramError
            if node in same:
                _same_type(node, env[node])
                env |= dict.fromkeys(same[node], env[node])
    graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    by_name = {n.name: n for n in nodes}
    return Lowered(graph, tuple(env[by_name[name]].name for name in _names(program)), program)


def _is_plain(node: fx.Node) -> bool:
    """Whether a node is an operation on tensors of known sizes, or a placeholder or output."""
    if node.op == "call_function" and node.target is not operator.getitem:
        if not isinstance(node.target, torch._ops.OpOverload):
            return False
    elif node.op not in ("call_function", "placeholder", "output"):
        return False
    leaves = tree_leaves(node.meta.get("val"))
    sizes = [s for v in leaves for s in (v.shape if isinstance(v, Tensor) else [v])]
    return not any(isinstance(s, (torch.SymInt, torch.SymFloat, torch.SymBool)) for s in sizes)


def _without_writing(target: Any) -> Any:
    """The operation that gives what this one writes to its first operand."""
    if not target._schema.is_mutable:
        return target
    schema, packet = target._schema, None
    changed = [i for i, a in enumerate(schema.arguments) if a.alias_info is not None and a.alias_info.is_write]
    if schema.name.startswith("aten::") and schema.name.endswith("_") and changed == [0]:
        packet = getattr(ATEN, schema.name.removeprefix("aten::").removesuffix("_"), None)
    plain = WITHOUT_WRITING.get(target, getattr(packet, target._overloadname, None))
    if plain is None or [a.name for a in plain._schema.arguments] != [a.name for a in schema.arguments]:
        raise _WholeProgramError
    return plain


def _may_change(target: Any, table: Table, keep: frozenset[str]) -> bool:
    """Whether decomposing may make anything else of an operation; ``reshape`` stays, and views become one."""
    if target is ATEN.reshape.default:
        return False
    if target is ATEN.view.default or target in table or target.overloadpacket.__name__ not in keep:
        return True
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")
    return composite and not _is_preservable_cia_op(target)


def _key(node: fx.Node, target: Any) -> tuple:
    """What decides what an operation becomes: numbers as they are, tensors by type and place in memory."""
    operands = {n: i for i, n in enumerate(node.all_input_nodes)}
    told = tree_map_only(fx.Node, lambda n: ("operand", operands[n]), (node.args, dict(node.kwargs)))
    values = [n.meta["val"] for n in operands]
    if not all(isinstance(v, Tensor) for v in values):
        raise _WholeProgramError
    return target, repr(told), tuple((v.dtype, v.shape, v.stride(), v.device) for v in values)


def _arguments(node: fx.Node, target: Any) -> tuple[Any, Any]:
    """Those of a node for the operation that takes its place, with the defaults that this one has not.

    ``bernoulli_()`` draws with p = 1/2, and ``torch.export`` leaves out what is at its default; ``bernoulli`` wants p.
    """
    args, kwargs = node.args, dict(node.kwargs)
    if target is node.target or not isinstance(node.target, torch._ops.OpOverload):
        return args, kwargs
    of_node, of_target = node.target._schema.arguments, target._schema.arguments
    for own, other in list(zip(of_node, of_target, strict=True))[len(args) :]:
        if own.name not in kwargs and own.has_default_value() and not other.has_default_value():
            kwargs[own.name] = own.default_value
    return args, kwargs


class _Each(nn.Module):
    """Does one operation after the other, each with operands of its own."""

    def __init__(self, calls: Sequence[tuple[Any, fx.Node]]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, *tensors: Tensor) -> list[Any]:
        rest, out = iter(tensors), []
        for target, node in self.calls:
            mine = {n: next(rest) for n in node.all_input_nodes}
            args, kwargs = (fx.map_arg(given, mine.__getitem__) for given in _arguments(node, target))
            out.append(target(*args, **kwargs))
        return out


def _parts(distinct: Mapping[tuple, tuple[Any, fx.Node]], table: Table) -> dict[tuple, Part]:
    calls = list(distinct.values())
    operands = tuple(_like(n.meta["val"]) for _, node in calls for n in node.all_input_nodes)
    small = torch.export.export(_Each(calls), operands, strict=False).run_decompositions(dict(table))
    nodes = {n.name: n for n in small.graph.nodes}
    given = [n for n in small.graph.nodes if n.op == "placeholder"]
    specs = small.graph_signature.output_specs
    outputs = [nodes.get(getattr(s.arg, "name", "")) for s in specs if s.kind == OutputKind.USER_OUTPUT]
    written = {s.target for s in specs if s.kind == OutputKind.USER_INPUT_MUTATION}
    wanted = [len(tree_leaves(node.meta["val"])) for _, node in calls]
    if len(given) != len(operands) or len(outputs) != sum(wanted) or None in outputs:
        raise _WholeProgramError
    rest, results, parts = iter(given), iter(outputs), {}
    for (key, (_, node)), count in zip(distinct.items(), wanted, strict=True):
        mine = [next(rest) for _ in node.all_input_nodes]
        out: Any = [next(results) for _ in range(count)]
        inner = _between(mine, out, small.graph)
        parts[key] = Part(mine, inner, out, tuple(i for i, n in enumerate(mine) if n.name in written))
    return parts


def _like(value: Tensor) -> Tensor:
    """Another tensor that lies in memory as this one."""
    with value.fake_mode:  # type: ignore[attr-defined]
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


def _copied(graph: fx.Graph, node: fx.Node, target: Any, env: Mapping[fx.Node, Any]) -> Any:
    """Put an operation as it is at the end of a graph."""
    made = graph.node_copy(node, env.__getitem__)
    args, kwargs = (fx.map_arg(given, env.__getitem__) for given in _arguments(node, target))
    made.target, made.args, made.kwargs = target, args, kwargs
    val = node.meta["val"]
    if not isinstance(val, (list, tuple)):
        return made
    picks = []
    for i, part in enumerate(val):
        picks.append(graph.call_function(operator.getitem, (made, i)))
        picks[-1].meta = {**node.meta, "val": part}
    return picks


def _same_type(node: fx.Node, plain: fx.Node) -> None:
    """What is written in place keeps its type and shape, where the same operation may give another."""
    before, after = node.meta["val"], plain.meta["val"]
    if (before.dtype, before.shape) != (after.dtype, after.shape):
        raise _WholeProgramError


def _between(operands: Nodes, outputs: Nodes, graph: fx.Graph) -> Nodes:
    """Operations on the way from some nodes to others, in order."""
    found, order = ancestors(outputs) - set(operands), {n: i for i, n in enumerate(graph.nodes)}
    if any(n.op != "call_function" for n in found):  # a constant that the decomposition makes
        raise _WholeProgramError
    return sorted(found, key=order.__getitem__)


def _spliced(graph: fx.Graph, node: fx.Node, part: Part, env: Mapping[fx.Node, Any]) -> Any:
    """Put what an operation becomes at the end of a graph; returns what it gives: a node, or a list of them."""
    made = dict(zip(part.operands, (env[n] for n in node.all_input_nodes), strict=True))
    for inner in part.nodes:
        made[inner] = graph.node_copy(inner, made.__getitem__)
        made[inner].meta = {**node.meta, "val": inner.meta["val"]}
        if inner.target is ATEN.view.default:
            made[inner].target = ATEN.reshape.default
    outputs = [made[n] for n in part.outputs]
    return outputs if isinstance(node.meta["val"], (list, tuple)) else outputs[0]


class _Writes:
    """What else refers to what an operation writes to."""

    def __init__(self, nodes: Nodes) -> None:
        self._order = {n: i for i, n in enumerate(nodes)}
        self._sharing: dict[int, Nodes] = {}
        for node in nodes:
            for place in {_memory(v) for v in tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)}:
                self._sharing.setdefault(place, []).append(node)

    def names_of(self, written: fx.Node, by: fx.Node) -> Nodes:
        """Nodes whose value is now what `by` gives; an error if anything that reads the memory later is another."""
        same = []
        for other in self._sharing[_memory(written.meta["val"])]:
            if self._order[other] >= self._order[by]:
                continue
            if _first_name(other) is _first_name(written):
                same.append(other)
            elif self.is_read_after(other, by):
                raise _WholeProgramError
        return same

    def is_read_after(self, node: fx.Node, by: fx.Node) -> bool:
        return any(self._order[user] > self._order[by] for user in node.users)


def _memory(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def _first_name(node: fx.Node) -> fx.Node:
    """What was written to, of what an operation that writes in place gives."""
    while node.op == "call_function" and _writes(node):
        node = node.args[0]  # type: ignore[assignment]
    return node


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
