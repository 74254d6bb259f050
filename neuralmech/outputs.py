"""Which of a model's outputs the loss reads: the same in discovery, training, evaluation and verification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from neuralmech.errors import UserError


def output_of(out: Any, model: str = "the network") -> Float[Tensor, "batch ..."]:
    """Logits or predictions out of what ``forward()`` returns.

    A tensor is taken as it is. Of a dict, a dataclass or a named tuple (Hugging Face's and torchvision's outputs) it is
    ``logits``, of anything without that name its only tensor of real numbers.

    Raises
    ------
    UserError
        If there is no such tensor, or more than one.

    Examples
    --------
    >>> import torch
    >>> output_of({"hidden": torch.zeros(2, 5), "logits": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    if isinstance(out, Tensor):
        return out
    named = out.get("logits") if isinstance(out, Mapping) else getattr(out, "logits", None)
    if isinstance(named, Tensor):
        return named
    found = [x for x in _tensors(out) if x.is_floating_point()]
    if len(found) == 1:
        return found[0]
    what = f"{type(out).__name__} of {len(found)} tensors" if found else f"{type(out).__name__} without a tensor"
    raise UserError(
        f"model: {model} returns a {what}, and nothing says which one the loss reads; return the logits alone, or a "
        "dict or dataclass that calls them logits"
    )


def _tensors(out: Any) -> Iterator[Tensor]:
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, Mapping):
        for value in out.values():
            yield from _tensors(value)
    elif isinstance(out, list | tuple):
        for value in out:
            yield from _tensors(value)
    elif is_dataclass(out) and not isinstance(out, type):
        for f in fields(out):
            yield from _tensors(getattr(out, f.name))
