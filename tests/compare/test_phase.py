"""Phase portraits: measured points on the closed form of the oscillator, and which runs have none."""

import numpy as np
import pytest

from neuralmech.compare.measure.phase import phase_curve, phase_curves
from neuralmech.compare.show.plots_phase import phase_figure
from neuralmech.record import open_record

SWINGING = {"lr": 0.02, "momentum": 0.99, "weight_decay": 0.032}
FP64 = {"precision": "fp64", "steps": 300}


def closed_form(start, lr, momentum, decay, time):
    """c and c' of ½η(1+β)c'' + (1−β)c' + λc = 0 from c'(0) = −λc(0)/(1+β)."""
    roots = np.roots([lr * (1 + momentum) / 2, 1 - momentum, decay])
    weights = np.linalg.solve([[1, 1], roots], [1, -decay / (1 + momentum)])
    modes = weights * np.exp(np.outer(time, roots))
    return np.real(modes.sum(axis=1))[:, None] * start, np.real((modes * roots).sum(axis=1))[:, None] * start


@pytest.mark.parametrize(("momentum", "off"), [(0.8, 6e-3), (0.99, 3e-4)])
def test_column_sums_lie_on_the_closed_form_of_their_oscillator(run, momentum, off):
    """To second order in η: over-damped, the faster motion falls by 0.2 in a step, under-damped by 0.005."""
    with open_record(run(optim={**SWINGING, "momentum": momentum}, train=FP64)) as record:
        curve = phase_curve(record, "translation")
        start = record.charges("translation").value[0]
    assert curve is not None
    assert curve.oscillator.regime == ["over-damped" if momentum == 0.8 else "under-damped"]
    middle = 0.02 * (np.arange(len(curve.value)) + 0.5)
    own = start[np.abs(start[:, None] - curve.value[:1]).argmin(axis=0)]
    for found, theory, exact in zip(
        (curve.value, curve.velocity),
        (curve.theory_value, curve.theory_velocity),
        closed_form(own, 0.02, momentum, 0.032, middle),
        strict=True,
    ):
        size = np.abs(exact).max()
        assert np.abs(found - exact).max() < off * size
        assert np.abs(theory - exact).max() < off * size
        assert np.abs(found - theory).max() < off * size


def test_driven_charges_follow_the_law_where_they_oscillate(run):
    with open_record(run(optim=SWINGING, train=FP64)) as record:
        (translation, rescale) = phase_curves(record)
    assert (translation.family, rescale.family) == ("translation", "rescale")
    size = np.abs(rescale.velocity).max()
    assert size > 0.1
    assert np.abs(rescale.velocity - rescale.theory_velocity).max() < 0.01 * size
    panels = [axis for axis in phase_figure([("", translation), ("", rescale)]).axes if axis.axison]
    for panel, curve in zip(panels, (translation, rescale), strict=True):
        lines = [line for line in panel.lines if line.is_dashed()]
        assert len(lines) == curve.value.shape[1]
        np.testing.assert_array_equal(lines[0].get_ydata(), curve.theory_velocity[:, 0])


@pytest.mark.parametrize(
    "optim",
    [
        {"lr": 0.1, "momentum": 0.9},
        {"name": "sgdw", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
    ],
)
def test_there_is_none_without_a_spring_or_a_law(run, optim):
    with open_record(run(optim=optim)) as record:
        assert phase_curves(record) == []


def test_over_damped_charges_have_one_where_theory_needs_no_drive(run):
    with open_record(run(optim={"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01})) as record:
        assert [c.family for c in phase_curves(record)] == ["translation"]


def test_no_step_is_taken_over_a_gap(run):
    """Windows of a record, and rows apart: velocities are per unit of time, whatever lies between rows."""
    with open_record(run(optim=SWINGING, train={**FP64, "steps": 60}, track={"every": 4})) as record:
        apart = phase_curve(record, "translation")
    with open_record(run(optim=SWINGING, train={**FP64, "steps": 60}, track={"steps": [[0, 20], [40, 60]]})) as record:
        windows = phase_curve(record, "translation")
        values = record.charges("translation").value[:]
        time = record.column("time")
    with open_record(run(optim=SWINGING, train={**FP64, "steps": 60})) as record:
        whole = phase_curve(record, "translation")
        for block in (1, 7):
            np.testing.assert_array_equal(phase_curve(record, "translation", block=block).velocity, whole.velocity)
        assert len(whole.value) == 59
        assert np.isfinite(whole.value).all()
    assert np.abs(apart.velocity).max() == pytest.approx(np.abs(whole.velocity).max(), rel=0.05)
    (gap,) = np.flatnonzero(np.isnan(windows.velocity).all(axis=1))
    assert np.abs(windows.velocity[gap + 1 :] - windows.theory_velocity[gap + 1 :]).max() < 1e-2
    assert np.nanmax(np.abs(windows.velocity)) <= np.abs(np.diff(values, axis=0) / np.diff(time)[:, None]).max()
