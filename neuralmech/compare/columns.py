"""Names of the columns of numbers in a comparison, and of what would share a name."""

from collections.abc import Iterable
from itertools import count

MEASURES = ("error", "unexplained", "max_error", "final_error")
QUANTILES = ("q10", "median", "q90")  # over a site's charges


def distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that was there before.

    Examples
    --------
    >>> distinct(["a", "b", "a", "a_2", "a"])
    ['a', 'b', 'a_2', 'a_2_2', 'a_3']
    """
    found: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}_{k}" for k in count(2))
        found[name if name not in found else next(n for n in numbered if n not in found)] = None
    return list(found)
