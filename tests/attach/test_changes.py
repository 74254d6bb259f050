"""What may happen to a training that is followed: it changes, stops, goes on, is called in other ways."""

import contextlib
import gc
import shutil
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor, nn
from torch.nn import functional as F

import neuralmech
from interpreters import Forked
from neuralmech.attachment import follower
from neuralmech.cli import main
from neuralmech.errors import UserError
from neuralmech.record import RecordError, open_record
from neuralmech.verification.claims import SymmetryGroup
from own_loops import STEPS, batches, data, law_errors, net, same_parameters, sgd, steps_of, train

EXACT = 1e-12


def freeze(model, optimizer):
    model[0].weight.requires_grad_(False)
    model[0].weight.grad = None


def add_a_group(model, optimizer):
    optimizer.add_param_group({"params": model[5].parameters(), "lr": 0.01})


def change_one_rate(model, optimizer):
    optimizer.param_groups[0]["lr"] *= 0.1


@pytest.mark.parametrize(
    ("change", "tracked"), [(freeze, "rescale"), (add_a_group, "translation"), (change_one_rate, "rescale")]
)
def test_a_change_begins_another_part(tmp_path, change, tracked):
    def run(model, folder=None):
        parts = [*model[:3].parameters()], [*model[3].parameters()], [*model[5].parameters()]
        optimizer = sgd(model)
        optimizer.param_groups.clear()
        for params in parts[: 2 if change is add_a_group else 3]:
            optimizer.add_param_group({"params": params})
        train(model, optimizer, folder, each=lambda k: change(model, optimizer) if k == 25 else None)

    alone, followed = net(), net()
    run(alone)
    run(followed, tmp_path)
    assert same_parameters(alone, followed)
    assert steps_of(tmp_path)["step"].tolist() == list(range(25))
    assert steps_of(tmp_path / "part-2")["step"].tolist() == list(range(25, STEPS))
    assert max(law_errors(tmp_path / "part-2").values()) < EXACT
    whole = neuralmech.analyze(tmp_path)
    assert sorted(whole.comparison["part"].unique()) == [1, 2]
    assert tracked in set(whole.comparison["family"])
    assert whole.comparison["error"][whole.comparison["law"] == "discrete_broken"].max() < EXACT


def test_frozen_parameters_are_not_tracked(tmp_path):
    model = net()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model[:5].parameters(), 0.05)  # and the head has no optimiser
    tracking = train(model, optimizer, tmp_path)
    assert set(tracking.symmetries.sites) == {"translation", "rescale"} or "scale" not in tracking.symmetries.sites
    assert "5.weight" in tracking.symmetries.uncovered
    assert "frozen" in tracking.symmetries.uncovered["0.weight"]
    assert all(p.requires_grad for name, p in model.named_parameters() if name != "0.weight")


def test_a_training_that_changes_all_the_time_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "MOST_PARTS", 3)
    model = net()

    def change(k):
        model[3].weight.requires_grad_(k % 2 == 0)
        model[3].weight.grad = None

    with pytest.warns(UserWarning, match="what is trained changed 3 times; nothing more is recorded"):
        train(model, sgd(model), tmp_path, each=change)
    assert sorted(p.name for p in tmp_path.glob("part-*")) == ["part-2", "part-3"]


def test_resumed(tmp_path):
    model = net()
    optimizer = sgd(model)
    train(model, optimizer, tmp_path)
    with pytest.raises(UserError, match="holds a record already; choose another folder, resume=True"):
        train(model, optimizer, tmp_path)
    train(model, optimizer, tmp_path, resume=True)
    steps = steps_of(tmp_path)
    assert steps["step"].tolist() == list(range(2 * STEPS))
    assert steps["segment"].tolist() == [0] * STEPS + [1] * STEPS
    np.testing.assert_allclose(steps["time"], 0.05 * np.arange(2 * STEPS))
    assert max(law_errors(tmp_path).values()) < EXACT
    other = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    with pytest.raises(RecordError, match="holds other charges"):
        train(other, sgd(other), tmp_path, resume=True)
    assert len(steps_of(tmp_path)["step"]) == 2 * STEPS


def test_begun_in_the_middle(tmp_path):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    train(model, optimizer)
    train(model, optimizer, tmp_path)
    assert steps_of(tmp_path)["step"].tolist() == list(range(STEPS, 2 * STEPS))
    assert max(law_errors(tmp_path, "moving_metric").values()) < EXACT
    model = net()
    optimizer = sgd(model)
    train(model, optimizer)
    train(model, optimizer, tmp_path / "sgd")
    assert max(law_errors(tmp_path / "sgd").values()) < EXACT


def test_a_cell_that_is_run_twice(tmp_path):
    model, (x, y) = net(), data()
    optimizer = sgd(model)
    first = neuralmech.attach(model, optimizer, tmp_path, x)
    second = neuralmech.attach(model, optimizer, tmp_path, x)  # nothing was recorded yet: it takes the place
    for _ in range(3):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with pytest.raises(UserError, match="overwrite=True"):
        neuralmech.attach(model, optimizer, tmp_path, x)
    third = neuralmech.attach(model, optimizer, tmp_path, x, overwrite=True)
    for _ in range(5):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    third.close()
    assert len(steps_of(tmp_path)["step"]) == 5
    first.close(), second.close(), third.close()
    assert len(optimizer._optimizer_step_pre_hooks) == 0


def test_an_error_in_the_loop_leaves_a_record(tmp_path):
    model = net()

    def fail(k):
        if k == 30:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(model, sgd(model), tmp_path, each=fail)
    with open_record(tmp_path) as record:
        assert (record.rows, record.status) == (30, "stopped: ZeroDivisionError")


class Named(nn.Module):
    """Takes keywords, gives a dataclass; the loss is inside or outside."""

    @dataclass
    class Out:
        logits: Tensor
        hidden: Tensor
        aside: Tensor

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 2)

    def forward(self, *, features, scale=1.0, mask=None, flag=False):
        hidden = F.relu(self.body(features * scale))
        return self.Out(self.head(hidden), hidden, self.other(hidden))


def named_loop(folder, **options):
    model = Named().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with neuralmech.attach(model, optimizer, folder, **options) as tracking:
        for x, y in batches():
            optimizer.zero_grad()
            out = model(features=x, scale=2.0, mask=None)
            (F.cross_entropy(out.logits, y) + out.aside.square().mean()).backward()
            optimizer.step()
    return tracking


def test_keywords_and_several_heads(tmp_path):
    def loss(out):
        wanted = torch.zeros(len(out.logits), dtype=torch.long)
        return F.cross_entropy(out.logits, wanted, label_smoothing=0.1) + out.aside.square().mean()

    tracking = named_loop(tmp_path / "both", loss=loss)
    assert tracking.symmetries.sites == {
        "translation": {"head.weight": 8, "head.bias": 1},
        "rescale": {"body -> head + other": 8},
    }
    assert max(law_errors(tmp_path / "both").values()) < EXACT
    given = named_loop(tmp_path / "given", loss=loss, example_inputs={"features": data()[0], "scale": 2.0})
    assert given.symmetries.sites == tracking.symmetries.sites


def test_a_loss_that_ignores_no_shift_has_no_translations(tmp_path):
    model = net()
    weighted = neuralmech.attach(
        model, sgd(model), tmp_path / "a", data()[0], loss=lambda out: F.cross_entropy(out, out.argmax(1) * 0)
    )
    squared = neuralmech.attach(model, sgd(model), tmp_path / "b", data()[0], loss=lambda out: out.square().mean())
    assert "5.weight" in weighted.symmetries.sites["translation"]
    assert "5.weight" not in squared.symmetries.sites.get("translation", {})


def test_compiled_and_channels_last(tmp_path):
    def conv():
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.Conv2d(6, 5, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 4),
        )
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def run(folder=None, way="compiled"):
        model = conv()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        example = None if way == "compiled" else torch.randn(8, 3, 8, 8)
        called = torch.compile(model, backend="aot_eager") if way != "first" else None
        tracked = called if way == "compiled" else model
        tracking = neuralmech.attach(tracked, optimizer, folder, example) if folder else None
        called = called or torch.compile(model, backend="aot_eager")
        for k in range(12):
            x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(k))
            optimizer.zero_grad()
            F.cross_entropy(called(x.to(memory_format=torch.channels_last)), torch.arange(8) % 4).backward()
            optimizer.step()
        if tracking:
            tracking.close()
        return model

    alone = run()
    for way in ("compiled", "inner", "first"):
        folder = tmp_path / way
        assert same_parameters(alone, run(folder, way))
        assert steps_of(folder)["batch_size"].tolist() == [8] * 12
        assert max(law_errors(folder).values()) < 1e-5  # float32: of charges of order one, 12 roundings of 10⁻⁷


def test_claims_that_fail_are_left_out(tmp_path):
    class Liar(nn.ReLU):
        def forward(self, x):
            return x + 0.1 * x.square() if not torch.compiler.is_exporting() else F.relu(x)

    model = nn.Sequential(nn.Linear(6, 8), Liar(), nn.Linear(8, 4)).double()
    with pytest.warns(UserWarning, match="left out: rescale '0 -> 2'"):
        tracking = neuralmech.attach(model, sgd(model), tmp_path, data()[0])
    assert set(tracking.symmetries.sites) == {"translation"}
    trusting = neuralmech.attach(model, sgd(model), tmp_path / "b", data()[0], verify=False)
    assert "rescale" in trusting.symmetries.sites


def test_groups_by_hand(tmp_path):
    model = net()
    eye = torch.eye(8)[:, None, :]
    group = SymmetryGroup("translation", "head", {"5.weight": eye})
    tracking = train(model, sgd(model), tmp_path, groups=[group])
    assert tracking.symmetries.sites == {"translation": {"head": 8}}
    assert max(law_errors(tmp_path).values()) < EXACT
    with pytest.raises(UserError, match="does not hold"):
        neuralmech.attach(
            model, sgd(model), tmp_path / "b", data()[0], groups=[SymmetryGroup("translation", "no", {"0.weight": 1.0})]
        )


def test_nothing_is_kept_of_a_model_that_is_gone(tmp_path):
    model = net()
    optimizer = sgd(model)
    train(model, optimizer, tmp_path)
    gone = weakref.ref(model)
    del model, optimizer
    gc.collect()
    assert gone() is None


RANKS = """
import os, sys
import torch.distributed as dist
from own_loops import *
dist.init_process_group("gloo", init_method="file://{store}", rank=int(sys.argv[1]), world_size=2)
model = net()
ddp = nn.parallel.DistributedDataParallel(model)
optimizer = sgd(model)
tracking = neuralmech.attach(ddp, optimizer, {folder!r})
for k, (x, y) in enumerate(batches(10)):
    optimizer.zero_grad()
    half = slice(0, 8) if dist.get_rank() == 0 else slice(8, 16)
    F.cross_entropy(ddp(x[half]), y[half]).backward()
    optimizer.step()
tracking.close()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # a thread of gloo sometimes aborts an interpreter that ends by itself
"""


def test_the_first_of_two_ranks_records(tmp_path):
    script = RANKS.format(store=tmp_path / "store", folder=str(tmp_path / "run"))
    ranks = [Forked(script, str(rank)) for rank in (0, 1)]
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert "10 steps recorded" in said[0]
    assert not said[1]
    assert len(steps_of(tmp_path / "run")["step"]) == 10
    assert max(law_errors(tmp_path / "run").values()) < EXACT


SHARDED = """
import contextlib, os, sys
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from neuralmech.errors import UserError
from own_loops import *
dist.init_process_group("gloo", init_method="file://{store}", rank=int(sys.argv[1]), world_size=2)
for shard in (fully_shard, lambda model: FullyShardedDataParallel(model, device_id=torch.device("cpu"))):
    model = shard(net())
    try:
        neuralmech.attach(model, sgd(model), {folder!r})
    except UserError as error:
        print(error)
for example in (None, next(batches())[0]):
    model = net()
    optimizer = sgd(model)
    with contextlib.redirect_stdout(None):
        neuralmech.attach(model, optimizer, {folder!r} + "ab"[example is None], example)
    fully_shard(model)
    optimizer.param_groups[0]["params"] = list(model.parameters())
    x, y = next(batches())
    F.cross_entropy(model(x), y).backward()
    try:
        optimizer.step()
    except UserError as error:
        print(error)
sys.stdout.flush()
os._exit(0)
"""


def test_parameters_in_pieces_are_refused_by_every_rank(tmp_path):
    """Those that are cut later, at the next step, by the one that records."""
    script = SHARDED.format(store=tmp_path / "store", folder=str(tmp_path / "run"))
    ranks = [Forked(script, str(rank)) for rank in (0, 1)]
    for number, said in enumerate([rank.communicate(timeout=120)[0] for rank in ranks]):
        first, second, *later = said.splitlines()
        assert later == [first, first] * (number == 0)
        assert first.startswith("attach: the model is sharded (0.weight is in pieces, one for each process)")
        assert second.startswith("attach: the model is sharded (FullyShardedDataParallel cuts it to pieces)")
        assert "torch.nn.parallel.DistributedDataParallel" in first
    assert not [file for folder in tmp_path.iterdir() if folder.is_dir() for file in folder.iterdir()]


def test_what_is_no_number_is_not_logged_and_costs_no_row(tmp_path):
    model = net()
    optimizer = sgd(model)
    with neuralmech.attach(model, optimizer, tmp_path) as tracking:
        for x, y in batches(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            for value in ("hi", None, torch.zeros(2)):
                with pytest.raises(UserError, match="log: note="):
                    tracking.log(note=value)
    assert len(steps_of(tmp_path)["step"]) == 5


def test_a_folder_that_is_deleted_does_not_end_the_training(tmp_path):
    model = net()

    def delete(k):
        if k == 20:
            shutil.rmtree(tmp_path / "run")

    with pytest.warns(UserWarning, match="nothing more is recorded: .* was deleted"):
        train(model, sgd(model), tmp_path / "run", each=delete)
    assert not (tmp_path / "run").exists()


def test_a_gradient_of_another_loss_is_told(tmp_path):
    model = net()
    optimizer = sgd(model)

    def loop():
        with neuralmech.attach(model, optimizer, tmp_path):
            for x, _ in batches(5):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()

    with pytest.warns(UserWarning, match=r"breaks symmetries that were found: translation '5.weight' \(0\.\d\d\)"):
        loop()


def test_what_moves_parameters_beside_the_steps_begins_a_segment(tmp_path):
    model = net()

    def clamp(k):
        if k in (10, 30):
            model[0].weight.data.clamp_(-0.1, 0.1)  # which no version counter sees

    train(model, sgd(model), tmp_path, each=clamp)
    assert np.flatnonzero(np.diff(steps_of(tmp_path)["segment"])).tolist() == [9, 29]
    assert max(law_errors(tmp_path).values()) < EXACT
    assert any("before steps 10, 30 something other" in note for note in neuralmech.analyze(tmp_path).notes)


def test_a_model_may_become_of_another_type(tmp_path):
    """Its tensors are not what compiled code was told; the parameters are copied then, rounded."""
    found, sums = [], []
    for folder in (None, tmp_path):
        model = net(torch.float32)
        optimizer = sgd(model, momentum=0.0)
        tracking = neuralmech.attach(model, optimizer, folder) if folder else contextlib.nullcontext()
        with tracking:
            for k, (x, y) in enumerate(batches(20)):
                if k == 10:
                    model.double()
                if folder:
                    sums.append(model[5].weight.detach().sum(dim=0).numpy().copy())
                optimizer.zero_grad()
                F.cross_entropy(model(x.to(model[0].weight.dtype)), y).backward()
                optimizer.step()
        found.append(model)
    assert same_parameters(*found)
    with open_record(tmp_path) as record:
        charges = record.charges("translation")
        mine = (charges.index["site"] == "5.weight").to_numpy()
        of_sums, moved = charges.value[:][:, mine], 0.05 * charges.drive_update[:][:, mine]
    np.testing.assert_allclose(of_sums, np.array(sums) * (of_sums[0] / sums[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved[:-1], of_sums[:-1] - of_sums[1:], rtol=0, atol=1e-6)
    assert not steps_of(tmp_path)["segment"].any()


def test_another_optimizer_than_that_attached(tmp_path):
    model = net()
    first = sgd(model)

    def loop():
        used = first
        with neuralmech.attach(model, first, tmp_path):
            for k, (x, y) in enumerate(batches()):
                used = sgd(model) if k == 20 else used
                used.zero_grad()
                F.cross_entropy(model(x), y).backward()
                used.step()

    with pytest.warns(UserWarning, match="was another one made"):
        loop()


class Batched(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, batch):
        return self.net(batch["parts"][0])


def test_batches_may_be_nested(tmp_path):
    model = Batched().double()
    optimizer = sgd(model)
    with neuralmech.attach(model, optimizer, tmp_path) as tracking:
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(model({"parts": [x, None], "name": "train"}), y).backward()
            optimizer.step()
    assert "rescale" in tracking.symmetries.sites
    assert steps_of(tmp_path)["batch_size"].tolist() == [16] * STEPS
    assert max(law_errors(tmp_path).values()) < EXACT


def test_a_criterion_of_two_arguments_is_told(tmp_path):
    model = net()
    with pytest.raises(UserError, match="loss= is called with what the model returns, and nothing else"):
        neuralmech.attach(model, sgd(model), tmp_path, data()[0], loss=nn.CrossEntropyLoss())
    _, targets = data()
    tracking = neuralmech.attach(
        model, sgd(model), tmp_path, data()[0], loss=lambda out: F.cross_entropy(out, targets, label_smoothing=0.1)
    )
    assert "translation" in tracking.symmetries.sites


def test_commands_that_need_the_model_say_whose_it_is(tmp_path, capsys):
    model = net()
    train(model, sgd(model), tmp_path)
    for command in (["verify", str(tmp_path)], ["train", f"resume={tmp_path}"]):
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2
        assert "of a training loop of your own" in capsys.readouterr().err


def test_resumed_in_the_same_kernel_without_a_close(tmp_path):
    model, (x, y) = net(), data()
    optimizer = sgd(model)
    for k in range(2):
        tracking = neuralmech.attach(model, optimizer, tmp_path, x, resume=k == 1)
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    tracking.close()
    assert steps_of(tmp_path)["segment"].tolist() == [0] * 4 + [1] * 4


def test_a_run_that_explodes_is_judged_by_the_rows_before(tmp_path):
    model = net()
    optimizer = sgd(model)

    def explode(k):
        optimizer.param_groups[0]["lr"] = 1e200 if k == 30 else 0.05

    train(model, optimizer, tmp_path, each=explode)
    found = neuralmech.analyze(tmp_path)
    assert any("not finite after row" in note for note in found.notes)
    assert not found.comparison["reason"].str.contains("starts at zero").any()
    assert max(law_errors(tmp_path).values()) < EXACT
