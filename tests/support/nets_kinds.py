"""Nets by kind of what discovery has to get right in them: name → `Kind`."""

from dataclasses import replace

from nets_arguments import ARGUMENTS
from nets_choosing import CHOOSING
from nets_complex import COMPLEX
from nets_constants import CONSTANTS
from nets_crashes import CRASHES
from nets_cut import CUT
from nets_experts import EXPERTS
from nets_layers import LAYERS

_PARTS = {
    "arguments": ARGUMENTS,
    "choosing": CHOOSING,
    "complex": COMPLEX,
    "constants": CONSTANTS,
    "crashes": CRASHES,
    "cut": CUT,
    "experts": EXPERTS,
    "layers": LAYERS,
}

# Symmetries that exist and are not claimed, by their cause: what is claimed of these must only be true.
NOT_SEEN = {
    "channels that are equal at other places, or sum to what does not change, for a nonlinear reason": (
        "arguments: interpolate, nearest", "arguments: interpolate, nearest-exact", "arguments: interpolate, area",
        "constants: divide",
    ),
    "what is computed twice, and equal displacements that a choice would need": (
        "constants: layer_norm by hand", "constants: less its largest", "constants: logsumexp",
    ),
    "a row of a table that no index reaches": ("choosing: data's argmax into a table",),
    "rows that only unread channels need: a forget gate before zeros": (
        "layers: LSTMCell", "layers: CReLU", "constants: half filled", "constants: linspace as factor",
        "constants: zeros assigned in", "constants: zeros concatenated", "constants: zeros times",
        "arguments: interpolate, down", "constants: weight: triu, a row of zeros",
    ),
    "a linear map written as a sum of products": ("constants: head: a sum of products",),
    "a weight that only steps need which nothing reads": (
        "layers: GRU both ways", "layers: LSTM both ways", "layers: RNN, relu, both ways",
    ),
    "a mask of data that no batch sets": ("constants: masked_scatter of zeros",),
    "entries of a table that a mask leaves out": (
        "arguments: attn_mask of a table with some pairs left out", "arguments: scores with baddbmm",
    ),
    "a buffer, which may change": ("constants: a zero buffer",),
    "cannot be traced": ("arguments: BatchNorm with a plain average",),
}  # fmt: skip
_GAPS = {name for names in NOT_SEEN.values() for name in names}
KINDS = {f"{kind}: {name}": net for kind, nets in _PARTS.items() for name, net in nets.items()}
KINDS |= {name: replace(KINDS[name], complete=False) for name in _GAPS}
