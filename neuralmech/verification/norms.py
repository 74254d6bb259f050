"""Norms made of sums and roots, which can be differentiated as often as wanted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class PlainNorms(TorchFunctionMode):
    """Inside, norms are made of sums and roots: torch's own have two derivatives, of layer norms the third is wrong."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run a function."""
        options = kwargs or {}
        if func not in _NORMS:
            return func(*args, **options)
        of = inspect.signature(func).bind(*args, **options)
        of.apply_defaults()
        given = of.arguments
        if not given.get("training", True) or not given.get("use_input_stats", True):
            return func(*args, **options)
        x, (view, dims) = given["input"], _NORMS[func](given)
        seen = x.reshape(view)
        centred = seen if func is nn.functional.rms_norm else seen - seen.mean(dims, keepdim=True)
        eps = torch.finfo(x.dtype).eps if given["eps"] is None else given["eps"]
        out = (centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt()).view(x.shape)
        shape = list(given["normalized_shape"]) if "normalized_shape" in given else [1, -1, *[1] * (x.dim() - 2)]
        weight, bias = given.get("weight"), given.get("bias")
        out = out if weight is None else out * weight.view(shape)
        return out if bias is None else out + bias.view(shape)


def _last(given: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    shape = list(given["input"].shape)
    return shape, list(range(len(shape) - len(given["normalized_shape"]), len(shape)))


def _grouped(given: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    samples, channels, *rest = given["input"].shape
    groups = given["num_groups"]
    view = [samples, groups, channels // groups, *rest]
    return view, list(range(2, len(view)))


# How each norm's input is seen, and the dimensions of what it normalises.
_NORMS: Mapping[Any, Callable[[Mapping[str, Any]], tuple[list[int], list[int]]]] = {
    nn.functional.batch_norm: lambda of: (list(of["input"].shape), [d for d in range(of["input"].dim()) if d != 1]),
    nn.functional.instance_norm: lambda of: (list(of["input"].shape), list(range(2, of["input"].dim()))),
    nn.functional.layer_norm: _last,
    nn.functional.rms_norm: _last,
    nn.functional.group_norm: _grouped,
}
