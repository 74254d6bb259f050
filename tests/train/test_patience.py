"""What takes long is named on stderr, what does not is silent."""

import threading
import time
from functools import partial

from torch import nn, randn

from conftest import config
from neuralmech.discovery.discover import find_symmetries
from neuralmech.training import setup
from neuralmech.training.process import patience

STEPS = ["tracing the model", "shifts of each operation", "log-scales of each operation"]
STEPS += ["solving for shifts and log-scales", "mixing of channels"]


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("nothing was said in 10 s")


def test_a_task_that_takes_long_names_its_steps_as_they_begin(capsys):
    said = ""

    def hears(text):
        nonlocal said
        said += capsys.readouterr().err
        return text in said

    with patience("counting", after=0.05) as enter:
        enter("one")
        until(lambda: hears("neuralmech: counting: one ("))
        enter("two")
        until(lambda: hears("neuralmech: counting: two ("))
    assert said.count("\n") == 2  # a step once, until it has gone on for long


def test_a_step_that_goes_on_is_named_again(capsys):
    said = ""

    def times():
        nonlocal said
        said += capsys.readouterr().err
        return said.count("one")

    with patience("counting", after=0.0, again=0.05) as enter:
        enter("one")
        until(lambda: times() > 2)


def test_a_task_that_ends_soon_is_silent_and_leaves_no_thread(capsys):
    before = threading.active_count()
    with patience("counting") as enter:
        enter("one")
    assert threading.active_count() == before
    assert capsys.readouterr() == ("", "")


def test_discovery_names_its_steps_to_who_asks_and_prints_nothing(capsys):
    steps = []
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    find_symmetries(net, randn(2, 5), progress=steps.append)
    find_symmetries(net, randn(2, 5))
    assert steps == STEPS
    assert capsys.readouterr() == ("", "")


def test_commands_say_that_a_model_is_being_traced_though_torchs_own_words_are_kept_back(capsys, monkeypatch):
    monkeypatch.setattr(setup, "patience", partial(patience, after=0.0))
    setup.prepare(config())
    assert f"neuralmech: finding symmetries: {STEPS[0]} (" in capsys.readouterr().err
