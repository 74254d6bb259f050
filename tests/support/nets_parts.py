"""How the nets of the kinds are written: parts by keyword, a forward function, and what is expected of discovery."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nets_more import floats


class Net(nn.Module):
    """Parts made anew for each net; `ready` is called with it, and with each copy of it (for hooks on parameters)."""

    def __init__(self, forward, ready=None, **parts):
        super().__init__()
        self._forward, self._ready = forward, ready
        for name, make in parts.items():
            setattr(self, name, make())
        if ready:
            ready(self)

    def forward(self, x):
        return self._forward(self, x)

    def __deepcopy__(self, memo):
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        if self._ready:
            self._ready(twin)
        return twin


@dataclass(frozen=True)
class Kind:
    """A net, a batch for it, and whether all its symmetries are to be found (`complete`) or only true ones."""

    forward: Any
    inputs: Any
    parts: dict[str, Any]
    complete: bool
    slow: bool = False
    loss: str = "cross_entropy"

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return Net(self.forward, **self.parts).double()


class Nets(dict):
    """Name → `Kind`."""

    def complete(self, name, forward, inputs, slow=False, loss="cross_entropy", **parts):
        """Everything is to be found."""
        self._add(name, Kind(forward, inputs, parts, True, slow, loss))

    def sound(self, name, forward, inputs, slow=False, loss="cross_entropy", **parts):
        """Nothing false may be found."""
        self._add(name, Kind(forward, inputs, parts, False, slow, loss))

    def _add(self, name, kind):
        assert name not in self, name
        self[name] = kind


def L(*sizes, **options):
    return lambda: nn.Linear(*sizes, **options)


def M(kind, *args, **options):
    return lambda: kind(*args, **options)


def P(*shape):
    return lambda: nn.Parameter(torch.randn(shape))


def B(value):
    return lambda: nn.Buffer(value.clone())


X = floats(8, 3)
AB = {"a": L(3, 4), "b": L(4, 3)}
ABC = {**AB, "c": L(3, 4)}
S = floats(4, 3, 2)
QKV = {"q": L(2, 2), "k": L(2, 2), "v": L(2, 2), "b": L(2, 3)}
I = floats(4, 2, 4, 4)
CONV = {"a": M(nn.Conv2d, 2, 3, 2), "b": L(3, 3)}
