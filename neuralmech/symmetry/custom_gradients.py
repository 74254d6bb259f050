"""Functions with a gradient of their own: the trace shows what they compute, not what they give backward."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import tree_map_only


@contextmanager
def as_barriers() -> Iterator[None]:
    """Detach what goes into a ``torch.autograd.Function`` and comes out of it, which no symmetry passes.

    Its backward may be anything (a straight-through estimator), and charges are about the gradient that is used.
    Torch's own, such as
    checkpointing, give the loss's.
    """
    own = inspect.getattr_static(Function, "apply")

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        run = own.__get__(None, cls)
        if cls.__module__.startswith("torch."):
            return run(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, Tensor.detach, (args, kwargs))
        return tree_map_only(Tensor, Tensor.detach, run(*args, **kwargs))

    with patch.object(Function, "apply", classmethod(apply)):
        yield
