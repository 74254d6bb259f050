import pytest
import torch
from torch import nn

from neuralmech.errors import UserError
from neuralmech.training.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("found_once")


def test_what_is_saved_is_loaded(tmp_path):
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    save_checkpoint(tmp_path, first, 4)
    save_checkpoint(tmp_path, nn.Linear(3, 2), 9)
    assert load_checkpoint(tmp_path, second, 4) == 4
    assert torch.equal(first.weight, second.weight)
    assert load_checkpoint(tmp_path, second) == 9
    assert not list(tmp_path.glob("*.tmp"))


def test_missing_foreign_and_damaged_checkpoints_are_named(tmp_path):
    with pytest.raises(UserError, match="checkpoints are at steps none"):
        load_checkpoint(tmp_path, nn.Linear(3, 2))
    path = save_checkpoint(tmp_path, nn.Linear(3, 2), 4)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_checkpoint(tmp_path, nn.Linear(5, 2), 4)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_checkpoint(tmp_path, nn.Linear(3, 2), 4)
    torch.save({"step": 4, "model": print}, path)  # a pickle that names a function is not loaded
    with pytest.raises(UserError, match="cannot be loaded"):
        load_checkpoint(tmp_path, nn.Linear(3, 2), 4)
