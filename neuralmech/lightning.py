"""Charges of a network that Lightning trains: ``Trainer(callbacks=[Charges(folder)])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from neuralmech.attachment import Attached, attach
from neuralmech.errors import UserError


class Charges(Callback):
    """Record charges of every step that a Trainer's optimisers take, and its training step's loss.

    Parameters
    ----------
    folder
        Of the run.
    network
        Dotted name within the LightningModule of what its training step calls, ``net`` where that is ``self.net(x)``;
        by default the module itself, which ``self(x)`` calls.
    options
        Those of `neuralmech.attach`, such as ``example_inputs``, ``loss``, ``resume`` and ``every``.

    Attributes
    ----------
    tracking
        What `neuralmech.attach` returned; None until training begins.
    """

    def __init__(self, folder: str | Path, network: str = "", **options: Any) -> None:
        self._folder, self._network, self._options = folder, network, options
        self.tracking: Attached | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to what is trained, which is on its device by now."""
        try:
            network = pl_module.get_submodule(self._network)
        except AttributeError as error:
            raise UserError(f"Charges: network={self._network}: {error}; name a module in it") from None
        self.tracking = attach(network, trainer.optimizers, self._folder, **self._options)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the loss."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if self.tracking is not None and isinstance(loss, Tensor):
            self.tracking.log(loss=loss)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the record, which then says what stopped the training."""
        if self.tracking is not None:
            self.tracking.__exit__(type(exception), exception, None)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the record."""
        if self.tracking is not None:
            self.tracking.close()
