"""Parameters that others move, replace or turn into another type between the steps: right rows, or a marker."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import neuralmech
from neuralmech.attachment.recording import Recording
from neuralmech.attachment.vectors import FlatVectors
from neuralmech.record import open_record
from neuralmech.symmetry.family import generator_matrix
from own_loops import STEPS, batches, data, law_errors, net, rows_of, sgd, steps_of, train

EXACT = 1e-12  # of float64: some thousand roundings of 10⁻¹⁶
RATE = 0.05


def flat(tensors):
    return np.concatenate([x.detach().double().flatten().numpy() for x in tensors])


def copied(model):
    for p in model.parameters():
        p.data = p.data.clone()


def transposed(model):
    """The same numbers in another order of memory."""
    for p in model.parameters():
        if p.dim() == 2:
            p.data = p.data.t().contiguous().t()


def turned(model):
    """Other numbers at the same place in memory."""
    model[3].weight.data = model[3].weight.data.t()


def scaled(model):
    model[3].weight.data.mul_(1.01)


def shared(model):
    model.share_memory()


ACTS = {
    "copied": copied,
    "transposed": transposed,
    "turned": turned,
    "scaled": scaled,
    "shared": shared,
    "double": lambda model: model.double(),
    "float": lambda model: model.float(),
    "bfloat16": lambda model: model.bfloat16(),
}


def followed(folder, acts, dtype):
    """A loop in which a step may have an act before it; returns θ before, θ behind and gradients of each step."""
    model, before, after, gradients, moved = net(dtype), [], [], [], []
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    with neuralmech.attach(model, optimizer, folder, data(dtype)[0]):
        for (x, y), act in zip(batches(len(acts), dtype), acts, strict=True):
            theta = flat(model.parameters())
            if act:
                ACTS[act](model)
            before.append(flat(model.parameters()))
            moved.append(bool((torch.tensor(theta).to(dtype) != torch.tensor(before[-1]).to(dtype)).any()))
            optimizer.zero_grad()
            F.cross_entropy(model(x.to(model[0].weight.dtype)).float(), y).backward()
            gradients.append(flat(p.grad for p in model.parameters()))
            optimizer.step()
            after.append(flat(model.parameters()))
    return np.array(before), np.array(after), np.array(gradients), np.array(moved)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_rows_are_right_whatever_is_done_to_the_parameters(tmp_path, seed, dtype):
    rng = np.random.default_rng(seed)
    acts = [str(rng.choice(list(ACTS))) if k and rng.random() < 0.4 else "" for k in range(STEPS)]
    before, after, gradient, moved = followed(tmp_path, acts, dtype)
    update, steps = (before - after) / RATE, steps_of(tmp_path)
    assert steps["step"].tolist() == list(range(STEPS))
    np.testing.assert_array_equal(np.diff(steps["segment"]) > 0, moved[1:])
    found = neuralmech.find_symmetries(net(dtype), data(dtype)[0][:4])
    near = 1e-12 if dtype == torch.float64 else 3e-6  # θ of 64 bits is rounded to 32, and u = Δθ/η by as much over η
    with open_record(tmp_path) as record:
        for name, family in found.families.items():
            matrix, charges = generator_matrix(family, found.shapes), record.charges(name)
            forms = {"value": (before, before), "drive_update": (update, update), "residual": (before, gradient)}
            for signal, (x, y) in forms.items():
                of = y if family.is_translation else x * y
                truth, size = (matrix @ of.T).T, (np.abs(matrix) @ np.abs(of).T).T
                off = np.abs(getattr(charges, signal)[:] - truth)
                assert (off <= near * (size + (1 / RATE if signal == "drive_update" else 0))).all(), (name, signal)


def test_a_part_begins_where_a_parameter_has_another_shape(tmp_path):
    model = net()
    optimizer = sgd(model, momentum=0.0)

    def grow():
        model[3].weight.data = torch.cat([model[3].weight.data, torch.ones(2, 8).double()])
        model[3].bias.data = torch.cat([model[3].bias.data, torch.zeros(2).double()])
        model[5].weight.data = torch.cat([model[5].weight.data, torch.ones(4, 2).double()], dim=1)

    with neuralmech.attach(model, optimizer, tmp_path):
        for k, (x, y) in enumerate(batches()):
            if k == 20:
                grow()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()  # no name holds its graph, which knows the old shapes
            optimizer.step()
    assert steps_of(tmp_path)["step"].tolist() == list(range(20))
    assert steps_of(tmp_path / "part-2")["step"].tolist() == list(range(20, STEPS))
    with open_record(tmp_path / "part-2") as record:
        assert (record.charges("rescale").index["site"] == "3 -> 5").sum() == 10
    assert max(law_errors(tmp_path / "part-2").values()) < EXACT


@pytest.mark.parametrize("to_none", [True, False])
def test_parameters_that_the_model_has_no_more_are_told(tmp_path, to_none):
    model = net()
    optimizer = sgd(model)

    def loop():
        with neuralmech.attach(model, optimizer, tmp_path, data()[0]):
            for k, (x, y) in enumerate(batches()):
                if k == 20:
                    model.load_state_dict({n: v.clone() for n, v in model.state_dict().items()}, assign=True)
                optimizer.zero_grad(set_to_none=to_none)
                F.cross_entropy(model(x), y).backward()
                optimizer.step()

    with pytest.warns(UserWarning, match="trains no parameter of the model any more"):
        loop()
    assert len(steps_of(tmp_path)["step"]) == (20 if to_none else 32)


@pytest.mark.parametrize("rule", [sgd, lambda m: torch.optim.AdamW(m.parameters(), 1e-3)], ids=["sgd", "adamw"])
def test_going_on_elsewhere_changes_no_row(tmp_path, monkeypatch, rule):
    """What is done when a model comes to be on another device, without one."""
    moved, move = [], Recording.move
    monkeypatch.setattr(Recording, "move", lambda *given: (moved.append(1), move(*given)))
    for way in ("stays", "moves"):
        model, at = net(torch.float32), []
        if way == "moves":
            monkeypatch.setattr(FlatVectors, "have_moved", property(lambda _, at=at: at[-1:] in ([10], [25])))
        train(model, rule(model), tmp_path / way, dtype=torch.float32, each=at.append)
    assert len(moved) == 2
    stayed, went = rows_of(tmp_path / "stays"), rows_of(tmp_path / "moves")
    for name, rows in stayed.items():
        near = 1e-6 if name[1].startswith(("metric", "rule")) else 1e-13  # w of whole vectors is rounded otherwise
        np.testing.assert_allclose(went[name], rows, rtol=0, atol=near * np.abs(rows).max(), err_msg=str(name))
    assert not steps_of(tmp_path / "moves")["segment"].any()


def test_a_model_on_another_device_is_noticed():
    model = nn.Linear(3, 2)
    vectors = FlatVectors(dict(model.named_parameters()))
    assert not vectors.have_moved
    model.to("meta")
    assert FlatVectors(dict(model.named_parameters())).device.type == "meta"
    parameters = dict(nn.Linear(3, 2).named_parameters())
    vectors = FlatVectors(parameters)
    for p in parameters.values():
        p.data = p.data.double()
    assert not vectors.have_moved
    assert not vectors.are_alike
