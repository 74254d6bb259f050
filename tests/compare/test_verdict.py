"""The verdict on made charges whose right verdict is known: which law suffices, of which kind, what moved them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neuralmech import analyze
from neuralmech.compare.measure.verdict import law_scores, sufficient
from neuralmech.compare.show.verdicts import said
from neuralmech.laws import LAWS
from neuralmech.laws.kinds import ACCOUNT, DRIVEN, FORECAST, kind, lacks
from neuralmech.laws.system import Circumstances
from neuralmech.record import RecordWriter
from neuralmech.record.schema import SIGNALS, STEP_COLUMNS, FamilyLayout

ROWS = 1500


def made(folder, value, *, translation=False, given=None, **columns):
    """A record of one family at the sites a (two charges) and b, with given signals; the others are zero."""
    steps = {n: np.zeros(len(value), dtype=d) for n, d in STEP_COLUMNS.items()}
    steps |= {k: np.full(len(value), v).astype(STEP_COLUMNS[k]) for k, v in columns.items()}
    steps["step"], steps["batch_size"] = np.arange(len(value)), np.full(len(value), 8)
    steps["time"] = np.cumsum(steps["lr"]) - steps["lr"]
    name = "translation" if translation else "rescale"
    layout = {name: FamilyLayout(["a", "a", "b"], range(3), SIGNALS, translation=translation)}
    with RecordWriter(folder, {"config": "{}"}, layout) as writer:
        writer.append(steps, {name: dict.fromkeys(SIGNALS, 0 * value) | {"value": value, **(given or {})}})
    (row,) = analyze(folder).verdict.to_dict("records")
    return row


def spread(one):
    """Three charges of different size that move alike."""
    return np.asarray(one)[:, None] * np.array([[1.0, 2.0, -0.5]])


@pytest.mark.parametrize("translation", [True, False])
def test_decay_with_a_tiny_learning_rate_is_weight_decay(tmp_path, translation):
    rate = 1e-3 * 0.1 * (1 if translation else 2)
    row = made(tmp_path, spread(np.exp(-rate * np.arange(ROWS))), translation=translation, lr=1e-3, weight_decay=0.1)
    assert (row["law"], row["kind"], row["suffices"]) == ("weight_decay", FORECAST, True)
    assert (row["simpler"], row["simpler_lacks"]) == ("gradient_flow", "weight decay")
    assert row["simpler_error"] > 0.05
    assert row["moved_by"] == "weight decay 100 %"
    assert row["forecast"] == ""  # it is one
    assert row["rounding"] == 0


def test_charges_that_gradient_flow_is_enough_for_are_told_to_move_little(tmp_path):
    row = made(tmp_path, spread(np.exp(-2e-7 * np.arange(ROWS))), lr=1e-6, weight_decay=0.1)
    assert (row["law"], row["moved_by"]) == ("gradient_flow", "weight decay 100 %")
    moved = np.sqrt(np.mean(np.expm1(-2e-7 * np.arange(ROWS)) ** 2))
    (size,) = re.findall(r"Moved by weight decay 100 %, but by (\S+) of their size only\.", "\n".join(said(row).lines))
    assert float(size) == pytest.approx(moved, rel=0.05)


def test_a_translation_under_momentum_near_one_is_an_oscillator(tmp_path):
    lr, decay, beta = 0.02, 0.032, 0.99
    c, s, values = 1.0, 0.0, []
    for _ in range(ROWS):
        values.append(c)
        s = beta * s + decay * c
        c -= lr * s
    row = made(tmp_path, spread(values), translation=True, lr=lr, weight_decay=decay, momentum=beta)
    assert row["law"] in ("modified_flow", "discrete")
    assert (row["kind"], row["suffices"]) == (FORECAST, True)
    assert row["simpler_lacks"] == "the inertia of momentum"
    assert row["simpler_error"] > 0.1
    assert LAWS[row["law"]].label in said(row).headline


def test_what_a_drive_moves_is_driven_and_no_forecast_suffices(tmp_path):
    drive = spread(1 + np.sin(np.arange(ROWS) / 40)) ** 2
    value = 1 + np.vstack([np.zeros(3), np.cumsum(0.1**2 * drive, axis=0)[:-1]])
    row = made(tmp_path, value, lr=0.1, given={"drive_update": drive, "drive_gradient": drive})
    assert (row["kind"], row["suffices"]) == (DRIVEN, True)
    assert row["law"] == "modified_loss"  # the simplest that has a drive
    assert (row["forecast"], row["forecast_lacks"]) == ("gradient_flow", "the finite learning rate")
    assert row["moved_by"] == "discretisation 100 %"
    assert any(line.startswith("No forecast suffices") for line in said(row).lines)


def test_what_a_broken_symmetry_moves_is_an_account(tmp_path):
    residual = spread(np.full(ROWS, 1e-2))
    value = 1 + np.vstack([np.zeros(3), np.cumsum(-2 * 0.1 * residual, axis=0)[:-1]])
    row = made(tmp_path, value, lr=0.1, given={"residual": residual})
    assert (row["law"], row["kind"], row["suffices"]) == ("discrete_broken", ACCOUNT, True)
    assert row["simpler_lacks"] == "the broken symmetry"
    assert row["moved_by"] == "the broken symmetry 100 %"


def test_what_starts_at_zero_and_moves_by_rounding_is_only_rounding(tmp_path):
    noise = 1e-8 * np.random.default_rng(0).normal(size=(ROWS, 3)).cumsum(axis=0) / ROWS**0.5
    row = made(tmp_path, noise - noise[0], translation=True, lr=0.1)
    assert (row["law"], row["suffices"], row["rounding"]) == ("", False, 2)
    assert said(row).headline == "only rounding"
    assert row["moved_by"] == ""


def test_what_is_conserved_but_for_rounding_is_gradient_flow(tmp_path):
    noise = 1e-8 * np.random.default_rng(0).normal(size=(ROWS, 3)).cumsum(axis=0)
    row = made(tmp_path, spread(np.ones(ROWS)) + noise, translation=True, lr=0.1, momentum=0.9)
    assert (row["law"], row["kind"], row["rounding"], row["moved_by"]) == ("gradient_flow", FORECAST, 2, "")
    assert row["exact"] == "gradient_flow"  # all laws tie there
    found = analyze(tmp_path).budget
    assert set(found["reason"]) == {"moved by rounding alone"}
    assert found["share_weight_decay"].isna().all()


def test_a_motion_that_nothing_explains_is_not_called_rounding(tmp_path):
    row = made(tmp_path, spread(1 + np.linspace(0, 1, ROWS)), lr=0.1)
    assert (row["suffices"], row["rounding"]) == (False, 0)
    assert row["lacks"]
    assert said(row).headline.startswith("no law suffices")


def test_a_law_is_a_forecast_for_one_family_and_driven_for_another():
    shift, ratio = (
        Circumstances(name, translation=name == "translation", signals=(), momentum=True)
        for name in ("translation", "rescale")
    )
    found = {name: (kind(law, shift), kind(law, ratio)) for name, law in LAWS.items() if "sgd" in law.optimizers}
    free = {name for name, kinds in found.items() if kinds == (FORECAST, FORECAST)}
    assert free == {"gradient_flow", "weight_decay"}
    assert {n for n, kinds in found.items() if kinds == (ACCOUNT, ACCOUNT)} == {"discrete_broken"}
    for name in ("first_order_flow", "modified_flow", "discrete", "discrete_ascent"):
        assert found[name] == (FORECAST, DRIVEN)
    metric = Circumstances("rescale_metric", False, (), "adam", momentum=True, metric=True)
    assert [kind(LAWS[name], metric) for name in ("constant_metric", "moving_metric")] == [DRIVEN, ACCOUNT]
    assert lacks(LAWS["first_order_flow"], LAWS["discrete"], ratio, decays=True) == "the inertia of momentum"


def rows(**errors):
    kinds = {"gradient_flow": FORECAST, "weight_decay": FORECAST, "discrete_broken": ACCOUNT}
    return pd.DataFrame(
        [
            {"site": site, "law": law, "kind": kinds.get(law, DRIVEN), "error": e}
            for law, of in errors.items()
            for site, e in zip("ab", of, strict=True)
        ]
    )


NAN = float("nan")


@pytest.mark.parametrize(
    ("errors", "first"),
    [
        ({"gradient_flow": (5e-3, 5e-3), "weight_decay": (1e-5, 1e-5)}, "weight_decay"),  # ten times as far, and more
        ({"gradient_flow": (9e-4, 9e-4), "weight_decay": (1e-5, 1e-5)}, "gradient_flow"),  # good enough all the same
        ({"gradient_flow": (5e-3, 5e-3), "modified_flow": (1e-6, 1e-6)}, "gradient_flow"),  # which takes no drive
        ({"gradient_flow": (0.1, 0.1), "modified_flow": (5e-4, 5e-4), "discrete": (1e-7, 1e-7)}, "modified_flow"),
        ({"gradient_flow": (1e-5, NAN), "discrete": (1e-3, 1e-3)}, "discrete"),  # it must answer everywhere
        ({"gradient_flow": (1e-5, NAN), "discrete": (1e-3, NAN)}, "gradient_flow"),  # where any law does
        ({"gradient_flow": (0.5, 0.5), "discrete": (0.2, 0.2)}, None),
        ({"gradient_flow": (0.5, 0.5), "discrete": (0.2, 0.2), "discrete_broken": (1e-7, 1e-7)}, "discrete_broken"),
    ],
)
def test_the_simplest_law_that_suffices(errors, first):
    enough = sufficient(law_scores(rows(**errors)))
    assert (enough[0] if enough else None) == first


DOCS = Path(__file__).parents[2] / "docs/analysis.md"


def test_the_documentation_has_every_law_in_the_same_words_and_every_column(tmp_path):
    text = DOCS.read_text(encoding="utf-8")
    said_of_laws = re.findall(r"^\| `(\w+)` \| ([^|`]+) \| [^|]+(?:\\\|[^|]*)* \|$", text, re.MULTILINE)
    missing = {name: law.label for name, law in LAWS.items()}.items() - dict(said_of_laws).items()
    assert not missing, f"the table of laws in {DOCS.name} lacks the rows of (name, label) {sorted(missing)}"
    section = text.split("\n## verdict\n")[1].split("\n## ")[0]
    names = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    row = made(tmp_path, spread(np.ones(20)), translation=True, lr=0.1)
    assert names - {"driven", "account"} == set(row) - {"family"}
    assert {FORECAST, DRIVEN, ACCOUNT} <= names
