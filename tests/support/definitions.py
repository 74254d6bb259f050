"""Charges as they are tracked against their definitions: generators written out, times the vectors of a step."""

import numpy as np
import torch
from torch import nn

from neuralmech.charges.cpu import Cpu
from neuralmech.charges.forms import Forms
from neuralmech.charges.reference import Reference
from neuralmech.charges.step import FORMS, MAIN, Step
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.layout import Layout


def of_sgd(vectors):
    """A step with a momentum buffer."""
    return Step(*vectors[:3], 10.0, vectors[3])


def assert_tracked(found: Symmetries, model: nn.Module, dtype=torch.float64, signals=MAIN, step_of=of_sgd):
    """Every signal of every charge, compiled and by operations of torch."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    layout = Layout.by_shape({n: tuple(p.shape) for n, p in trained.items()})
    count = 4 if step_of is of_sgd else 9
    step = step_of(torch.randn(count, layout.size, dtype=dtype, generator=torch.Generator().manual_seed(0)))
    outs = []
    for make in (Cpu, Reference):
        forms = Forms(found.families, layout, torch.device("cpu"), signals, make=make)
        out = torch.full((len(signals), forms.width), torch.nan, dtype=torch.float64)
        forms.evaluate(step, out)
        outs.append({family: out[:, columns].numpy() for family, columns in forms.columns.items()})
    in_order = np.concatenate([
        np.arange(layout.offsets[n], layout.offsets[n] + p.numel()) if n in trained else np.full(p.numel(), -1)
        for n, p in model.named_parameters()
    ])  # fmt: skip
    for family, generators in found.generators().items():
        for i, signal in enumerate(signals):
            dense = {n: np.append(step.vector(n).numpy(), 0.0)[in_order] for n in {*FORMS[signal]} - {None}}
            if family == "translation":
                z = FORMS[signal].z  # a translation charge has no such signal where it is None
                truth = np.zeros(generators.shape[0]) if z is None else generators @ dense[z]
            else:
                x, y = (dense[n] for n in FORMS[signal][:2])
                truth = generators @ (x * y)
            for out in outs:
                np.testing.assert_allclose(out[family][i], truth, rtol=1e-12, atol=1e-10)
