"""Turn a module into a functional ATen graph, without touching the module."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, fx, nn

from neuralmech.discovery.draws import refuse_unseen_draws
from neuralmech.discovery.expanding import lowered
from neuralmech.discovery.gradients import gradient_reaches, hooked_parameters, marked_gradients
from neuralmech.discovery.sizes import settle_sizes
from neuralmech.discovery.untraceable import explain, quiet
from neuralmech.errors import OURS, UserError, short
from neuralmech.imports import importing
from neuralmech.outputs import output_of


@dataclass(frozen=True)
class Piece:
    """Rows of a parameter, from `first` to before `end`: some of its `groups` of equally many rows."""

    of: str
    first: int
    end: int
    groups: int


@dataclass(frozen=True)
class Trace:
    """A model in training mode as a graph of ATen operations.

    Attributes
    ----------
    graph
        Functional graph: no in-place operations, dropout with p = 0 gone.
    output
        The node that the loss reads (the logits or predictions), or the loss where it is traced, too.
    parameters
        Placeholder name → name in ``model.named_parameters()``; tied parameters share one placeholder.
    constants
        Placeholder name → tensor, for buffers and lifted constants.
    buffers
        Names of the placeholders among these that are buffers.
    shapes
        Parameter name → shape, in the order of ``model.named_parameters()``.
    frozen
        Names of the parameters with ``requires_grad=False``: they never move.
    hooked
        Names of the parameters whose gradient a hook may change.
    views
        Parameter name → shape in which the graph reads it, where that is not its own.
    pieces
        Name of a piece → what it is a piece of, where the graph reads rows of a parameter as a parameter of their own.
    """

    graph: fx.Graph
    output: fx.Node
    parameters: dict[str, str]
    constants: dict[str, Tensor]
    buffers: frozenset[str]
    shapes: dict[str, torch.Size]
    frozen: frozenset[str]
    hooked: frozenset[str]
    views: Mapping[str, torch.Size] = field(default_factory=dict)
    pieces: Mapping[str, Piece] = field(default_factory=dict)

    @cached_property
    def seen(self) -> dict[str, torch.Size]:
        """Name → shape in which the graph reads it, of parameters and of the pieces of those that are cut."""
        out: dict[str, torch.Size] = {}
        for name, shape in self.shapes.items():
            mine = {n: torch.Size([p.end - p.first, *shape[1:]]) for n, p in self.pieces.items() if p.of == name}
            out |= mine or {name: self.views.get(name, shape)}
        return out

    @cached_property
    def read(self) -> frozenset[str]:
        """Names of the parameters that get a gradient."""
        reached = gradient_reaches(self.output)
        read = {self.parameters[n.name] for n in reached if n.op == "placeholder" and n.name in self.parameters}
        return frozenset(read | {self.pieces[name].of for name in read if name in self.pieces})


def trace(model: nn.Module, inputs: tuple[Shaped[Tensor, "*shape"], ...], keep: frozenset[str] = frozenset()) -> Trace:
    """Trace a deep copy of `model` in training mode with ``torch.export``.

    Operations named in `keep` stay whole; others are written in simpler ones where torch knows how.

    A model on the meta device has shapes and no numbers, which is all that is needed; only an integer buffer made
    there is unknown, and what it indexes is a barrier.

    Raises
    ------
    UserError
        If the model cannot be exported (a data-dependent branch, for instance) or returns no tensor.
    """
    twin, kind = _copy(model).train(), type(model).__name__
    twin.register_forward_hook(lambda module, args, out: output_of(out, kind))  # after those of its own
    if any(p.is_meta for p in twin.parameters()):
        inputs = tuple(x.to("meta") for x in inputs)
    try:
        with quiet(), refuse_unseen_draws(twin):
            with importing("torch.export._trace"):  # as torch.export does when it is first called
                import torch.export._trace
            with marked_gradients(twin):
                program = torch.export.export(twin, inputs, strict=False)
            found = lowered(program, keep)
            settle_sizes(found.graph)
    except UserError:
        raise
    except Exception as error:  # torch.export raises many unrelated types for what a user's model does
        raise explain(error, model, inputs) from error
    program, signature = found.program, found.program.graph_signature
    values = {**program.state_dict, **program.constants}
    sources = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    first_name = {id(p): name for name, p in twin.named_parameters()}
    named = dict(twin.named_parameters(remove_duplicate=False))
    return Trace(
        graph=found.graph,
        output=_output(found.graph, found.outputs, model),
        parameters={place: first_name[id(named[name])] for place, name in signature.inputs_to_parameters.items()},
        constants={place: values[source] for place, source in sources.items() if source in values},
        buffers=frozenset(signature.inputs_to_buffers),
        shapes={name: p.shape for name, p in model.named_parameters()},
        frozen=frozenset(name for name, p in model.named_parameters() if not p.requires_grad),
        hooked=hooked_parameters(model),
    )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:  # torch.nn.utils.weight_norm and spectral_norm leave a computed weight behind
        raise UserError(
            f"model: {type(model).__name__} cannot be copied: it keeps a computed tensor that is no parameter; "
            "use torch.nn.utils.parametrizations for weight_norm and spectral_norm"
        ) from error


def _output(graph: fx.Graph, names: tuple[str, ...], model: nn.Module) -> fx.Node:
    nodes = {node.name: node for node in graph.nodes}
    tensors = [nodes[name] for name in names if name in nodes]
    if not tensors:
        raise UserError(f"model: {type(model).__name__} returns no tensor; return the logits")
    return tensors[0]


def put(node: fx.Node, target: Callable[..., Any] | Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Put a node in front of `node`, from the same place of the model; until told otherwise it has the same value."""
    with node.graph.inserting_before(node):
        made = node.graph.call_function(target, args, kwargs)
    made.meta = dict(node.meta)
    return made


def rewritten(traced: Trace, better: Callable[[fx.Node], fx.Node | None]) -> tuple[Trace, bool]:
    """Rewrite a graph in place: each operation for which there is a `better` node gives way to it; whether any does."""
    output, changed = traced.output, False
    for node in list(traced.graph.nodes):
        made = better(node) if node.op == "call_function" else None
        if made is not None:
            node.replace_all_uses_with(made)
            traced.graph.erase_node(node)
            output, changed = made if output is node else output, True
    return replace(traced, output=output), changed


def without_dead_code(traced: Trace) -> Trace:
    """Drop from a graph, in place, what nothing reads; what it takes and gives stays."""
    traced.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    return traced


def operation(node: fx.Node) -> str:
    """Short name of a node's operation: ``gelu`` for ``aten.gelu.default``."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet is not None:
        return packet.__name__
    return getattr(node.target, "__name__", str(node.target))


def is_by_chance(node: fx.Node) -> bool:
    """Whether an operation draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def place(node: fx.Node) -> str:
    """Say where a node comes from: its module path and, if it is not torch's own, its source line."""
    if "place" not in node.meta:
        stack = node.meta.get("nn_module_stack") or {}
        module = next((path for path, _ in reversed(list(stack.values())) if path), "")
        frames = reversed(re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or ""))
        own = next((f"{short(file)}:{line}" for file, line in frames if not _is_no_users(file)), "")
        node.meta["place"] = " at ".join(part for part in (module, own) if part) or "forward()"
    return node.meta["place"]


@cache
def _is_no_users(file: str) -> bool:
    file = file.replace("\\", "/")
    return "/torch/" in file or any(Path(file).is_relative_to(OURS / part) for part in ("discovery", "losses"))
