"""What was copied stays as it was, whatever becomes of the buffers."""

import pytest
import torch

from neuralmech.track.staging import Staging

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_copies_do_not_change_with_the_buffers(device):
    staging = Staging(torch.device(device))
    buffers = [torch.zeros(256, 4, 1000, dtype=torch.float64, device=device), torch.zeros(256, device=device)]
    taken = []
    for k in range(6):
        staging.release()
        for buffer in buffers:
            buffer.fill_(k)
        taken.append(staging.copies([buffer[: 256 - k] for buffer in buffers]))
    for k, (copies, wait) in enumerate(taken):
        wait()
        assert [len(copy) for copy in copies] == [256 - k] * 2
        assert all((copy == k).all() and copy.device.type == "cpu" for copy in copies)
