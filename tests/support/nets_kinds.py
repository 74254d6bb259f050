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
    "an input that is redundant, by a constant matrix of lower rank or because some of it is constant": (
        "arguments: adaptive_avg_pool1d of rows, windows that overlap", "arguments: half a mean taken out",
        "arguments: outputs for each pixel, a norm", "choosing: data's argmax into a table", "constants: cosine of two",
        "constants: divide", "constants: half filled", "constants: layer_norm by hand", "constants: less its largest",
        "constants: linspace as factor", "constants: zeros assigned in", "constants: zeros concatenated",
        "constants: zeros times",
        "crashes: shape: adaptive pool to more", "constants: logsumexp", "arguments: interpolate, nearest",
        "arguments: interpolate, nearest-exact", "arguments: interpolate, area",
        "constants: weight: a mean taken from columns", "arguments: interpolate, down",
        "constants: weight: repeated rows", "constants: weight: expanded", "constants: weight: rows by index",
        "constants: weight: triu, a row of zeros",
    ),
    "rows that only unread channels need: a forget gate before zeros": ("layers: LSTMCell", "layers: CReLU"),
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
