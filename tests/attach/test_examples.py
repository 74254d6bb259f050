"""Loops of other people, with two lines more: the same parameters, every step a row, exact laws as exact as float32."""

import collections
import contextlib
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import neuralmech
from own_loops import closures, law_errors, same_parameters, steps_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:::lightning"),  # its own deprecations, and advice on more workers
    pytest.mark.filterwarnings("ignore:::accelerate"),
    pytest.mark.filterwarnings("ignore:::transformers"),
]
FOLDER = Path(__file__).parents[2] / "scripts" / "examples"
NEEDS = {"lightning_resnet": "lightning", "transformers_gpt2": "transformers", "accelerate_loop": "accelerate"}
OURS = re.compile("neuralmech|tracking")
EPS = torch.finfo(torch.float32).eps

# The law that takes all of a rule into account. The discrete law's other input is how far the gradient leans on the
# generator, by BatchNorm's eps or bfloat16.
EXACT = {
    "plain_sgd": "discrete",
    "adamw_groups": "moving_metric",
    "accumulation": "discrete_broken",
    "amp_bf16": "discrete_broken",
    "lightning_resnet": "discrete_broken",
    "transformers_gpt2": "moving_metric",
    "accelerate_loop": "discrete",
}
LOOPS = [*EXACT, "two_optimizers"]


def rounding(steps):
    """What float32 leaves of an exact law: each step rounds θ anew, at random, so that errors grow as √steps.

    A charge is rounded by an eps of θᵀ|S|θ, which is a few times the charge where the sides of it nearly cancel: 4.
    """
    return 4 * math.sqrt(steps) * EPS


def program(name, *, tracked):
    """An example's main, also without the lines that are ours."""
    path, lines = FOLDER / f"{name}.py", (FOLDER / f"{name}.py").read_text().splitlines()
    kept = [line if tracked or not OURS.search(line) else "" for line in lines]
    names = {"__name__": name}
    exec(compile("\n".join(kept), path, "exec"), names)
    return names["main"]


@contextlib.contextmanager
def counted_steps():
    """How many steps the busiest optimiser takes."""
    taken = collections.Counter()
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: taken.update([id(optimizer)]))
    try:
        yield taken
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model of a loop alone, that of the loop with our lines, its folder, and how many steps there were."""
    done = {}

    def train(name):
        if name not in done:
            pytest.importorskip(NEEDS.get(name, "torch"))
            folder, before = tmp_path_factory.mktemp(name), dict(os.environ)
            with counted_steps() as taken:
                alone = program(name, tracked=False)(str(folder / "other"))
            tracked = program(name, tracked=True)(str(folder / "run"))
            os.environ.clear()
            os.environ.update(before)  # Lightning and accelerate leave what they were told
            done[name] = alone, tracked, folder / "run", max(taken.values())
        return done[name]

    return train


@pytest.mark.parametrize("name", LOOPS)
def test_the_parameters_are_those_of_the_loop_alone(trained, name):
    alone, tracked, _, _ = trained(name)
    assert same_parameters(alone, tracked)
    assert all(torch.equal(a, b) for a, b in zip(alone.buffers(), tracked.buffers(), strict=True))


@pytest.mark.parametrize("name", LOOPS)
def test_every_step_is_a_row(trained, name):
    *_, folder, taken = trained(name)
    steps = steps_of(folder)
    assert steps["step"].tolist() == list(range(taken))
    assert (steps["batch_size"] > 0).all()
    assert np.isfinite(steps["loss"]).all()
    assert not list(folder.glob("part-*"))


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_law_is_as_exact_as_float32(trained, name):
    *_, folder, taken = trained(name)
    errors = law_errors(folder, EXACT[name])
    assert len(errors) >= 3
    assert max(errors.values()) < rounding(taken)


@pytest.mark.parametrize("name", ["accumulation", "lightning_resnet"])
def test_only_the_eps_of_batch_norm_breaks_symmetries(trained, name):
    _, model, folder, taken = trained(name)
    errors = law_errors(folder, "discrete")
    assert max(error for (family, _), error in errors.items() if family != "scale") < rounding(taken)
    # Of a gradient's lean on its own channel's weights, eps/(variance + eps) is left, and such leans add up to no more
    # than a few times the charge.
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    left = max((m.eps / m.running_var).max().item() for m in norms)
    assert max(error for (family, _), error in errors.items() if family == "scale") < 4 * left


def test_bfloat16_breaks_symmetries_by_its_rounding(trained):
    *_, folder, taken = trained("amp_bf16")
    worst = max(law_errors(folder, "discrete").values())
    assert rounding(taken) < worst < torch.finfo(torch.bfloat16).eps  # gradients lean by 2⁻⁸ of what moves the charge


def test_the_account_of_two_rules_closes(trained):
    *_, folder, _ = trained("two_optimizers")
    assert {family for family, _ in closures(folder)} == {"translation", "rescale"}
    table = neuralmech.analyze(folder).budget
    assert (table["closure"].abs() < EPS * table["moved"]).all()
    # PyTorch's Muon rounds to bfloat16 and multiplies what that leaves off the gradient's space up to 485 times: 0.2 to
    # 0.7 % of a charge in a hundred steps of 10⁻³ (docs/theory.md, Muon), and Σ η is six times that here.
    error = law_errors(folder, "weight_decay")["translation", "4.weight"]
    assert 0.002 < error < 6 * 0.01


def test_our_lines_are_few():
    for name in LOOPS:
        lines = (FOLDER / f"{name}.py").read_text().split('"""', 2)[2].splitlines()
        assert 2 <= sum(bool(OURS.search(line)) for line in lines) <= 4, name  # import, attach, log, close
