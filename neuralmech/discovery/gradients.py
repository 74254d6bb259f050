"""What a traced model computes without its gradient, or with another: the graph shows values, not gradients.

A charge is about the gradient that moves the parameters. Where that is not the gradient of what the graph computes,
nothing may pass: after ``detach`` or inside ``torch.no_grad`` the gradient is cut, in a ``torch.autograd.Function``
or behind a hook it may be anything. Each such place becomes an operation of its own in the graph.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from jaxtyping import Shaped
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from neuralmech.discovery.movements import FACTORIES

# Functions that read of a tensor what it is like, not what it holds.
SHAPE_ALONE = FACTORIES | {"new_tensor", "randint_like"}
DATA = Tensor.data.__get__  # type: ignore[attr-defined]


@torch.library.custom_op("neuralmech::cut", mutates_args=())
def cut(x: Tensor) -> Tensor:
    """Return a copy of what was computed without a gradient, where something with a gradient reads it."""
    return x.clone()


@torch.library.custom_op("neuralmech::opaque", mutates_args=())
def opaque(x: Tensor, name: str) -> Tensor:
    """Return a copy of what goes into or comes out of something with a backward pass of its own."""
    return x.clone()


@torch.library.custom_op("neuralmech::hooked", mutates_args=())
def hooked(x: Tensor, others: list[Tensor]) -> Tensor:
    """Return a copy of the output; `others` are tensors whose gradient a hook may change."""
    return x.clone()


cut.register_fake(torch.empty_like)
opaque.register_fake(lambda x, name: torch.empty_like(x))
hooked.register_fake(lambda x, others: torch.empty_like(x))


class GradientMarks(TorchFunctionMode):
    """Inside, what was computed without a gradient is cut off where something with a gradient reads it."""

    def __init__(self) -> None:
        super().__init__()
        self._hooked: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run a function; replace what it reads of tensors without a gradient, if it gives one."""
        options = kwargs or {}
        if getattr(func, "namespace", "") == "neuralmech":
            return func(*args, **options)
        if func is Tensor.register_hook:
            self._hooked.append(args[0])
        if func == DATA:  # a trace knows no .data
            func, args = Tensor.detach, args[:1]
        read = list(_floats((args, options)))
        has_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in read)
        lost = any(x.requires_grad or _is_marked(x) for x in read) and _name(func) not in SHAPE_ALONE
        written = args[0] if _writes(func) and args and isinstance(args[0], Tensor) else None
        if has_gradient and written is not None:
            _cut_in_place(written)
        if has_gradient and any(map(_is_marked, read)):
            args, options = tree_map_only(Tensor, lambda x: cut(x) if _is_marked(x) else x, (args, options))
        out = func(*args, **options)
        if lost:
            for x in _floats((out, written)):
                _mark(x, without=not x.requires_grad)
        return out

    def finish(self, out: Any) -> Any:
        """Cut the model's outputs, and tie to them the tensors that have hooks."""
        out = tree_map_only(Tensor, lambda x: cut(x) if _is_marked(x) else x, out)
        if self._hooked:
            out = tree_map_only(Tensor, lambda x: hooked(x, self._hooked) if _has_gradients(x) else x, out)
        return out


def _floats(values: Any) -> Iterator[Shaped[Tensor, "*shape"]]:
    return (x for x in tree_leaves(values) if isinstance(x, Tensor) and _has_gradients(x))


def _has_gradients(x: Shaped[Tensor, "*shape"]) -> bool:
    return x.is_floating_point() or x.is_complex()


def _is_marked(x: Shaped[Tensor, "*shape"]) -> bool:
    return getattr(x, "without_gradient", False)


def _cut_in_place(x: Shaped[Tensor, "*shape"]) -> None:
    """Cut what a tensor holds that is about to be written with a gradient, and what it is a part of."""
    whole = x if x._base is None else x._base
    if _is_marked(x) or _is_marked(whole):
        whole.copy_(cut(whole))
        for part in (x, whole):
            part.without_gradient = False  # type: ignore[attr-defined]


def _mark(x: Shaped[Tensor, "*shape"], *, without: bool) -> None:
    x.without_gradient = without  # type: ignore[attr-defined]
    if without and x._base is not None and not x._base.requires_grad:  # a part of a buffer was written
        x._base.without_gradient = True  # type: ignore[attr-defined]


def _name(func: Any) -> str:
    return getattr(func, "__name__", "")


def _writes(func: Any) -> bool:
    """Whether a function writes to its first argument."""
    name = _name(func)
    return name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__") or (
        name.endswith("_") and not name.endswith("__")
    )


@contextmanager
def marked_gradients(twin: nn.Module) -> Iterator[None]:
    """Trace `twin`, a copy, with an operation wherever its gradient is not that of what it computes."""
    forward, own = twin.forward, inspect.getattr_static(Function, "apply")
    _seal_hooked_modules(twin)

    def marked(*args: Any, **kwargs: Any) -> Any:
        with GradientMarks() as marks:
            return marks.finish(forward(*args, **kwargs))

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        """Torch's own functions, such as checkpointing, give the loss's gradient."""
        run, name = own.__get__(None, cls), cls.__name__
        if cls.__module__.startswith("torch."):
            return run(*args, **kwargs)
        return _sealed(run(*_sealed(args, name), **_sealed(kwargs, name)), name)

    twin.forward = functools.wraps(forward)(marked)
    instead = patch.object(Function, "apply", classmethod(apply))
    names = ("_global_backward_hooks", "_global_backward_pre_hooks")  # replaced, if there are any, by seals
    with instead, ExitStack() as stack, torch.enable_grad():
        for name in names:
            stack.enter_context(patch.object(nn.modules.module, name, {}))
        yield


def _seal_hooked_modules(twin: nn.Module) -> None:
    """Hooks on the backward pass of a module give its inputs' gradient, or take its outputs', as they like."""
    everywhere = nn.modules.module._global_backward_hooks or nn.modules.module._global_backward_pre_hooks
    for module in twin.modules():
        if everywhere or module._backward_hooks or module._backward_pre_hooks:
            name = f"backward hook of {type(module).__name__}"
            module._backward_hooks.clear()
            module._backward_pre_hooks.clear()
            module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: (_sealed(args, name), _sealed(kwargs, name)), with_kwargs=True
            )
            module.register_forward_hook(lambda _, args, out, name=name: _sealed(out, name))


def _sealed(values: Any, name: str) -> Any:
    return tree_map_only(Tensor, lambda x: opaque(x, name) if _has_gradients(x) else x, values)


def hooked_parameters(model: nn.Module) -> frozenset[str]:
    """Names of parameters with a hook that may change their gradient (``register_hook``)."""
    return frozenset(name for name, p in model.named_parameters() if p._backward_hooks)


def gradient_reaches(output: fx.Node) -> set[fx.Node]:
    """Nodes that the gradient of the output passes on its way back: no whole numbers, nothing that is cut."""

    def passes(node: fx.Node) -> bool:
        values = [v for v in tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)]
        is_whole = bool(values) and not any(v.is_floating_point() or v.is_complex() for v in values)
        return not is_whole and node.target is not torch.ops.neuralmech.cut.default

    return ancestors([output], passes)


def ancestors(nodes: Iterable[fx.Node], passes: Any = lambda node: True) -> set[fx.Node]:
    """Nodes and all that they are computed from, as far as `passes`."""
    seen = set(nodes)
    stack = list(seen)
    while stack:
        node = stack.pop()
        for parent in node.all_input_nodes if passes(node) else ():
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return seen
