"""Where something ran, and with which versions, as a record says it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of some packages; of one that is only a tree on the path nobody knows it."""
    return {"python": platform.python_version(), **{package: _version(package) for package in packages}}


def named_device(device: torch.device) -> str:
    """A device, and what kind it is."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device} ({name})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
