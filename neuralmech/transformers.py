"""Charges of a model that Hugging Face's Trainer trains: ``Trainer(…, callbacks=[Charges(folder)])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from neuralmech.attachment import Attached, attach


class Charges(TrainerCallback):
    """Record charges of every step that a Trainer's optimiser takes, and the loss where the model returns it.

    Parameters
    ----------
    folder
        Of the run.
    options
        Those of `neuralmech.attach`, such as ``example_inputs``, ``loss``, ``resume`` and ``every``.

    Attributes
    ----------
    tracking
        What `neuralmech.attach` returned; None until training begins.
    """

    def __init__(self, folder: str | Path, **options: Any) -> None:
        self._folder, self._options = folder, options
        self.tracking: Attached | None = None
        self._handle: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach to what is trained, which is on its device by now."""
        model, parts = kwargs["model"], args.gradient_accumulation_steps
        self.tracking = tracking = attach(model, kwargs["optimizer"], self._folder, **self._options)

        def returned(module: Any, inputs: object, keywords: dict[str, Any], outputs: Any) -> None:
            loss = getattr(outputs, "loss", None)
            if module.training and isinstance(loss, Tensor):  # of a sum over micro-batches each is a part
                tracking.log(loss=loss.detach() * (parts if "num_items_in_batch" in keywords else 1))

        returned.is_of_tracking = True  # type: ignore[attr-defined]
        self._handle = model.register_forward_hook(returned, with_kwargs=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the record."""
        if self.tracking is not None:
            self._handle.remove()
            self.tracking.close()
