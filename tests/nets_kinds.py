"""Nets by kind of what discovery has to get right in them: name → `Kind`."""

from nets_arguments import ARGUMENTS
from nets_choosing import CHOOSING

KINDS = {f"{kind}: {name}": net for kind, nets in {"arguments": ARGUMENTS, "choosing": CHOOSING}.items() for name, net in nets.items()}
