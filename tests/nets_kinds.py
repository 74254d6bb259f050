"""Nets by kind of what discovery has to get right in them: name → `Kind`."""

from nets_arguments import ARGUMENTS
from nets_choosing import CHOOSING
from nets_constants import CONSTANTS
from nets_crashes import CRASHES
from nets_cut import CUT
from nets_layers import LAYERS

_PARTS = {
    "arguments": ARGUMENTS,
    "choosing": CHOOSING,
    "constants": CONSTANTS,
    "crashes": CRASHES,
    "cut": CUT,
    "layers": LAYERS,
}
KINDS = {f"{kind}: {name}": net for kind, nets in _PARTS.items() for name, net in nets.items()}
