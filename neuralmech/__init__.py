"""neuralmech: predict how symmetric combinations of a network's parameters move, and measure how well.

Importing this package is cheap: what needs torch is imported when it is first used, and so is everything else.
"""

TYPE_CHECKING = False  # typing's own would be found in the working directory first by ``python -m neuralmech``
if TYPE_CHECKING:
    from neuralmech.attachment import attach
    from neuralmech.cli.python import train
    from neuralmech.compare.findings import analyze
    from neuralmech.compare.live import live
    from neuralmech.discovery.discover import find_symmetries
    from neuralmech.record import open_record as load
    from neuralmech.verification.certificate import certify
    from neuralmech.verification.claims import SymmetryGroup, believe
    from neuralmech.verification.verify import verify

    __version__: str

_LAZY = {
    "attach": ("neuralmech.attachment", "attach"),
    "analyze": ("neuralmech.compare.findings", "analyze"),
    "SymmetryGroup": ("neuralmech.verification.claims", "SymmetryGroup"),
    "certify": ("neuralmech.verification.certificate", "certify"),
    "believe": ("neuralmech.verification.claims", "believe"),
    "find_symmetries": ("neuralmech.discovery.discover", "find_symmetries"),
    "train": ("neuralmech.cli.python", "train"),
    "verify": ("neuralmech.verification.verify", "verify"),
    "live": ("neuralmech.compare.live", "live"),
    "load": ("neuralmech.record", "open_record"),
}

__all__ = [
    "SymmetryGroup",
    "__version__",
    "analyze",
    "attach",
    "believe",
    "certify",
    "find_symmetries",
    "live",
    "load",
    "train",
    "verify",
]


def __getattr__(name: str):
    if name == "__version__":
        return _version()
    if name in _LAZY:
        return _public(name)
    raise AttributeError(f"module 'neuralmech' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _public(name: str):
    from importlib import import_module

    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("neuralmech")
    except PackageNotFoundError:  # a bare source tree on the path
        return "0+unknown"
