"""Norms of parameter tensors: |θ|², |u|² and |g|² are forms with S = 1, made of the sums that charges are made of."""

from __future__ import annotations

import numpy as np

from neuralmech.charges.step import MAIN
from neuralmech.record.schema import NORMS, FamilyLayout, NormsLayout
from neuralmech.symmetry.layout import Layout
from neuralmech.track.block import Columns, OnHost
from neuralmech.track.options import Tracking

SQUARED = {"gradient": "drive_gradient", "parameter": "value", "update": "drive_update"}


class NormColumns:
    """Takes norms out of the first columns of a block's ring, once it is on the host.

    Attributes
    ----------
    count
        Number of these columns: one for each tensor, or none if no norms are wanted.
    """

    def __init__(self, layout: Layout, options: Tracking) -> None:
        self._of, self._shapes = tuple(options.norms_of), layout.shapes if options.norms_of else {}
        self.count = len(self._shapes)
        ratios = options.ratios or dict.fromkeys(self._shapes, 1.0)
        self._names = layout.names if options.norms_of else ()
        place = {name: column for column, name in enumerate(self._shapes)}
        self._order = np.array([place[name] for name in self._names], dtype=np.int64)  # the model's, for people
        self._ratios = np.array([ratios[name] for name in self._shapes])  # what is measured is the form of rg

    @property
    def layouts(self) -> dict[str, FamilyLayout]:
        """Describe them to the record, as its families are."""
        if not self.count:
            return {}
        shapes = tuple(self._shapes[name] for name in self._names)
        return {NORMS: NormsLayout(self._names, np.zeros(self.count, dtype=np.int64), self._of, False, shapes=shapes)}

    def split(self, measured: OnHost) -> tuple[Columns, dict[str, Columns]]:
        """That of the whole net's gradient as a column of ``/steps``, and those of each tensor."""
        if not self.count:
            return {"gradient_norm": np.full(len(measured.loss), np.nan)}, {}
        squares = measured.ring[:, :, : self.count]
        found = {name: np.sqrt(squares[:, MAIN.index(signal)]) for name, signal in SQUARED.items()}
        found["gradient"] /= self._ratios
        whole = np.sqrt(np.square(found["gradient"]).sum(axis=1))
        return {"gradient_norm": whole}, {NORMS: {name: found[name].take(self._order, 1) for name in self._of}}
