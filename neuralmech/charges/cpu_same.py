"""Whether parameters on the CPU are still what a flat copy of them is, which is asked before every step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralmech.charges.cpu_kernels import differ, differ_beside
from neuralmech.charges.cpu_strips import beside, in_threads, threads_for
from neuralmech.symmetry.layout import Layout

WHOLE = {4: np.uint32, 8: np.uint64}  # numbers of as many bytes


class Same:
    """Compares tensors with the parts of a flat vector, bit by bit, in threads that share the vector evenly.

    Parameters
    ----------
    layout, theta
        Of the flat vector, whose memory is read wherever it is asked.
    """

    def __init__(self, layout: Layout, theta: Float[Tensor, " parameters"]) -> None:
        starts = np.array(list(layout.offsets.values()))
        self._behind, self._ends = starts * theta.element_size(), np.append(starts[1:], layout.size)
        self._bits = theta.detach().numpy().view(WHOLE[theta.element_size()])
        self._views = list(layout.parts(theta.detach()).values())
        threads = threads_for(layout)
        cuts = [layout.size * k // threads for k in range(threads + 1)]
        self._shares = list(pairwise(cuts))
        self._pool = beside(threads)

    def bits(self, tensors: Sequence[Float[Tensor, "*shape"]]) -> bool:
        """Whether tensors, in the layout's order, of the vector's type and dense, have the very bits of its parts.

        Of one that does not lie in memory as the vector does the numbers are compared.
        """
        lie_alike = [x.is_contiguous() for x in tensors]
        addresses = np.array([x.data_ptr() for x in tensors], dtype=np.int64) - self._behind
        if not all(lie_alike):
            addresses[np.logical_not(lie_alike)] = 0
            others = zip(tensors, self._views, lie_alike, strict=True)
            if not all(torch.equal(x, view) for x, view, alike in others if not alike):
                return False
        if self._pool is None:
            return not differ(self._bits, addresses, self._ends, 0, len(self._bits))
        shares = [(self._bits, addresses, self._ends, *share) for share in self._shares]
        return not any(in_threads(self._pool, differ_beside, shares))
