"""Operations that only move, copy, drop, pad or assign elements, and how they are run on variables in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from neuralmech.discovery.geometry import Variables
from neuralmech.discovery.schema import arguments, name_of

# All algebras run the real operation on their variables.
MOVEMENT = (
    "_to_copy", "_unsafe_view", "alias", "broadcast_to", "cat", "chunk", "clone", "constant_pad_nd",
    "contiguous", "expand", "flatten", "flip", "lift_fresh_copy", "movedim", "narrow", "pad", "permute",
    "detach", "diagonal", "numpy_T", "pixel_shuffle", "pixel_unshuffle", "repeat", "repeat_interleave", "reshape",
    "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack", "t", "to", "transpose", "type_as",
    "unbind", "unflatten", "unfold", "unsqueeze", "view",
)  # fmt: skip

# Their arguments, by their names in the schemas: what is moved, and how.
MOVED = "self tensors src other"  # of `other`, type_as reads the type alone
MOVES = (
    "size dim dims dim0 dim1 dim2 start end length step chunks split_size split_sizes shifts sizes index repeats "
    "dimension source destination start_dim end_dim shape upscale_factor downscale_factor pad mode value offset "
    "implicit memory_format dtype layout device pin_memory non_blocking copy output_size"
)

# An assignment in place (x[1:2] = y) in a functional graph: the second operand replaces the first or a part of it.
ASSIGNMENTS = ("copy", "select_scatter", "slice_scatter")
PADDINGS = ("pad", "constant_pad_nd")

# Operations that take only the shape of their input.
FACTORIES = frozenset(
    ("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like",
     "rand_like", "randn_like")
)  # fmt: skip

AS_THEY_ARE = ("_to_copy", "contiguous", "clone", "alias", "lift_fresh_copy", "type_as", "to", "detach")


def moved_nodes(node: fx.Node) -> list[fx.Node]:
    """What a movement moves: its tensors, or what is written to and what is written there."""
    given = arguments(node)
    return list(given["tensors"]) if "tensors" in given else [given[n] for n in ("self", "src") if n in given]


def move(node: fx.Node, tensors: Sequence[Variables], known: Mapping[fx.Node, Any] | None = None) -> Any:
    """Run a movement on tensors of variables, one for each of `moved_nodes`; a tuple where it has several outputs.

    Raises
    ------
    TypeError
        If other tensors than these, which are not `known`, say how to move, or bits are taken for another type.
    """
    name, given = name_of(node), arguments(node)
    if name in AS_THEY_ARE:
        return tensors[0]
    if name in ("view", "_unsafe_view"):  # expanded variables have no compatible strides
        if "size" not in given:
            raise TypeError(f"{name} as another type")
        return tensors[0].reshape(given["size"])
    if name == "copy":
        return tensors[1].expand(tensors[0].shape)
    if name in PADDINGS:
        return Padding.of(node).moved(tensors[0])
    numbers = known or {}
    given |= {"tensors": list(tensors)} if "tensors" in given else dict(zip(("self", "src"), tensors, strict=False))
    given = {key: fx.map_arg(value, lambda n: numbers.get(n, n)) for key, value in given.items()}
    if any(isinstance(v, fx.Node) for v in given.values()):
        raise TypeError(f"{name} by numbers that are not known")
    result = node.target(**given)  # type: ignore[operator]
    return tuple(result) if isinstance(result, list) else result


@dataclass(frozen=True)
class Padding:
    """Elements put around a tensor, `widths` of them from the last dim on: numbers (`value`) or copies of its own."""

    widths: Sequence[int]
    mode: str
    value: float

    @staticmethod
    def of(node: fx.Node) -> Padding:
        """Read one of `PADDINGS`."""
        given = arguments(node)
        return Padding(given["pad"], given.get("mode", "constant"), given["value"] or 0)

    @property
    def puts_zeros(self) -> bool:
        """Whether all that is put in is zero."""
        return self.mode == "constant" and not self.value

    def moved(self, x: Variables) -> Variables:
        """Pad variables as the tensor is padded; with a constant, the padding is left as it is (0)."""
        if self.mode == "constant":
            return torch.nn.functional.pad(x, self.widths, value=0)  # type: ignore[arg-type]
        return torch.nn.functional.pad(x.double(), self.widths, mode=self.mode).long()  # type: ignore[arg-type]  # exact below 2⁵³
