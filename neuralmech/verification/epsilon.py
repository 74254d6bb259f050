"""A model without the eps of its norms, wherever its code has them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from neuralmech.symmetry.group import TINY

NO_EPSILON = 1e-24  # in its place: too small to be seen, large enough to silence what has only rounding noise

# Where eps stands among the positional arguments; torch.nn.functional, torch and torch.ops.aten agree on it.
EPS_AT = {
    "layer_norm": 4, "native_layer_norm": 4, "group_norm": 4, "native_group_norm": 7, "batch_norm": 7,
    "native_batch_norm": 7, "instance_norm": 7, "rms_norm": 3, "normalize": 3,
}  # fmt: skip
FLOORS = ("clamp", "clamp_min", "clip")
ROOTS = ("sqrt", "rsqrt", "reciprocal", "pow", "__rdiv__", "__rtruediv__")
QUOTIENTS = ("div", "divide", "true_divide")


class WithoutEpsilon(TorchFunctionMode):
    """Inside, norms have an eps of `NO_EPSILON`, and so have roots, quotients and floors written by hand.

    It tells what an eps breaks from a false claim. What counts as an eps is what discovery takes for one: the
    argument of a norm, or a number up to `TINY` that is added to what a root, a negative power or a division takes
    next, or is its least value. Functions are changed above autograd, so every derivative is that of the changed
    model.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([0.0, 2e-3], dtype=torch.float64)
    >>> with WithoutEpsilon():
    ...     hand_written = x / (x.var(unbiased=False) + 1e-5).sqrt()
    ...     built_in = torch.nn.functional.layer_norm(x, (2,), eps=1e-5)
    >>> print(hand_written, built_in)
    tensor([0., 2.], dtype=torch.float64) tensor([-1.,  1.], dtype=torch.float64)
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run a function, its eps replaced."""
        options, given = dict(kwargs or {}), list(args)
        full_name = getattr(func, "__name__", "").partition(".")[0]
        name = full_name if full_name.endswith("__") else full_name.rstrip("_")
        if name in EPS_AT:
            if len(given) > EPS_AT[name]:
                given[EPS_AT[name]] = NO_EPSILON
            else:
                options["eps"] = NO_EPSILON
        elif name == "_weight_norm":
            return _weight_norm(*given, **options)
        elif name in FLOORS:
            _lower_floor(given, options)
        elif name == "add":
            return _remember(func, given, options, in_place=full_name == "add_")
        elif name in QUOTIENTS and len(given) > 1:
            given[1] = _forget(given[1])
        elif name in ROOTS and given and (name != "pow" or _keeps_from_zero(*given[1:], *options.values())):
            bare = _forget(given[0])
            in_place = full_name.endswith("_") and not full_name.endswith("__")
            given[0] = given[0].copy_(bare) if in_place and bare is not given[0] else bare
        return func(*given, **options)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g·v/‖v‖ written out: the second derivative of torch's own is wrong (2.11 to 2.14; its first is right)."""
    over = [d for d in range(v.dim()) if d != dim]
    return v * (g / v.pow(2).sum(over, keepdim=True).sqrt())


def _is_epsilon(value: Any) -> bool:
    return isinstance(value, float) and 0 < value <= TINY


def _keeps_from_zero(exponent: Any) -> bool:
    """Whether a power has no value or no derivative at zero."""
    return isinstance(exponent, (int, float)) and (exponent < 0 or exponent != int(exponent))


def _lower_floor(given: list[Any], options: dict[str, Any]) -> None:
    if len(given) > 2 or options.get("max") is not None:  # two-sided: no floor
        return
    if len(given) > 1 and _is_epsilon(given[1]):
        given[1] = NO_EPSILON
    elif _is_epsilon(options.get("min")):
        options["min"] = NO_EPSILON


def _remember(func: Any, given: list[Any], options: dict[str, Any], *, in_place: bool) -> Any:
    """Add; if it is an eps that is added, remember in the sum what it was added to."""
    x = next((v for v in given if isinstance(v, Tensor)), None)
    if x is None or options or len(given) != 2 or not any(_is_epsilon(v) for v in given):
        return func(*given, **options)
    bare = x.clone() if in_place else x
    total = func(*given)
    total.before_epsilon = (bare, total._version)
    return total


def _forget(value: Any) -> Any:
    """What an eps was added to, unless the sum was changed in place since then."""
    bare, version = getattr(value, "before_epsilon", (None, -1))
    return value if bare is None or value._version != version else bare + NO_EPSILON
