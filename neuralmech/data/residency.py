"""Where a run keeps its samples."""

from __future__ import annotations

import os

import torch

from neuralmech.data.dataset import Dataset, Place
from neuralmech.data.options import ResidencyOptions
from neuralmech.data.parts import Items
from neuralmech.errors import UserError

SHARE = 0.5  # of the memory, at most, that data may take before they are streamed


def settle(data: Dataset, options: ResidencyOptions, device: torch.device, dtype: torch.dtype) -> Dataset:
    """Put the samples on the device, or leave them to be streamed, as ``data.residency`` says.

    Items that draw random numbers are read anew in every epoch, and so cannot be kept.

    Raises
    ------
    UserError
        If they were to be.
    """
    streamed = options.residency == "loader" or (options.residency == "auto" and not fits(data, device))
    settled = data.to(Place(device, dtype, streamed, options.workers))
    if options.residency == "device" and any(isinstance(part, Items) for part in (settled.train, settled.test)):
        raise UserError("data.residency=device: items of the data set are drawn at random; use auto or loader")
    return settled


def fits(data: Dataset, device: torch.device) -> bool:
    """Whether the samples take at most half of the free memory of a GPU.

    Those that are read one by one must also fit into half of the computer's memory.
    """
    size = data.train.size + data.test.size
    if device.type == "cuda" and size > SHARE * torch.cuda.mem_get_info(device)[0]:
        return False
    is_read = isinstance(data.train, Items) or isinstance(data.test, Items)
    return not is_read or size <= SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
