"""Charges on any device, a GPU above all: no loop over charges, and nobody waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralmech.charges.plan import QuadraticPlan
from neuralmech.charges.run_sums import RunSums
from neuralmech.charges.sparse_rows import SparseRows, written_out
from neuralmech.charges.step import MAIN, TRANSLATION, Step
from neuralmech.charges.tile_sums import TileSums, TranslationSums, sums_tiles
from neuralmech.charges.translation_plan import TranslationPlan
from neuralmech.symmetry.layout import Layout


class EagerForms:
    """All diagonal and translation charges of a step; the same interface and order as the compiled ones.

    `tiled` says whether Triton's kernels make the sums (of all signals that are always evaluated); by default where
    they work.
    """

    def __init__(
        self,
        quadratic: QuadraticPlan,
        translation: TranslationPlan,
        signals: tuple[str, ...],
        layout: Layout,
        device: torch.device,
        *,
        tiled: bool | None = None,
    ) -> None:
        assert signals[: len(MAIN)] == MAIN
        self._signals, self._split = signals, quadratic.combine.shape[0]
        tiled = (device.type == "cuda" and sums_tiles(device)) if tiled is None else tiled
        self._together = len(MAIN) if tiled else 0  # signals that come out of one kernel
        self._tiles = TileSums(quadratic, layout.size, device) if tiled and self._split else None
        self._added = (
            TranslationSums(translation, quadratic.blocks, layout, device) if tiled and translation.charges else None
        )
        rest = signals[self._together :]
        self._runs = RunSums(quadratic, rest, device) if self._split and rest else None
        self._rows = (
            SparseRows(written_out(translation), device) if translation.charges and {*rest} & {*TRANSLATION} else None
        )

    def evaluate(self, step: Step, out: Tensor) -> None:
        """Write the forms to `out`, float64 (signals, charges)."""
        first, rest = out[: self._together], out[self._together :]
        if self._tiles:
            self._tiles.evaluate(step, first[:, : self._split])
        if self._added:
            self._added.evaluate(step, first[:, self._split :])
        if self._runs:
            self._runs.evaluate(step, rest[:, : self._split])
        for signal, charges in zip(self._signals[self._together :], rest[:, self._split :], strict=True):
            if self._rows and signal in TRANSLATION:
                self._rows.apply(step, TRANSLATION[signal], charges)
            else:
                charges.zero_()
