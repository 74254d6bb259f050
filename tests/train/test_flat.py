import copy

import torch
from torch.nn import functional as F

from nets import ResidualConv, Shared, frozen_middle
from neuralmech.training.flat import FlatParameters


def test_the_model_trains_as_before():
    """Flat parameters and PyTorch's own loop take the same path (float64: to rounding)."""
    for build, shape in ((ResidualConv, (6, 2, 4, 4)), (Shared, (8, 4)), (frozen_middle, (8, 4))):
        torch.manual_seed(0)
        model = build().double()
        twin = copy.deepcopy(model)
        flat = FlatParameters(model)
        options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
        ours, plain = (
            torch.optim.SGD([flat.theta], fused=True, **options),
            torch.optim.SGD(twin.parameters(), **options),
        )
        for _ in range(5):
            x, y = torch.randn(shape).double(), torch.randint(3, (shape[0],))
            flat.grad.zero_()
            plain.zero_grad()
            F.cross_entropy(model(x), y).backward()
            F.cross_entropy(twin(x), y).backward()
            ours.step()
            plain.step()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_channels_last_weights_keep_their_values():
    model = ResidualConv().to(memory_format=torch.channels_last)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    FlatParameters(model)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
