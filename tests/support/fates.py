"""Jobs that end badly: for workers, without torch, and as a user's model in a sweep."""

import ctypes
import os
import signal
import time

WORDS = ("done", "raise", "kill", "segfault", "exit", "wait")


def do(job):
    """What a worker is to do with a job, whose only word is how it ends."""
    word = job.overrides[0]
    print(f"job {job.number}: {word}")
    if word == "raise":
        raise KeyError("missing")
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "segfault":
        ctypes.string_at(0)
    if word == "exit":
        os._exit(3)
    while word == "wait":
        time.sleep(0.01)
    return os.getpid(), os.environ["PLACE"]


MODEL = """
import ctypes, os, signal
from collections import Counter
from pathlib import Path
from torch import nn

CALLS = Counter()  # of each fate, in this process; those of tracing count, too

class Net(nn.Module):
    def __init__(self, fate):
        super().__init__()
        self.fate = fate
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))

    def forward(self, x):
        CALLS[self.fate] += 1
        y = self.net(x)
        if CALLS[self.fate] < 120 or not Path("armed").exists():
            return y
        if self.fate == "raise":
            raise KeyError("missing")
        if self.fate == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "segfault":
            ctypes.string_at(0)
        return y * float("nan") if self.fate == "diverge" else y
"""


def analysed(item):
    """What a process of an analysis is to do: square a number, unless it is told how to end."""
    if item == "raise":
        raise KeyError("missing")
    if item == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "print":
        print("what libraries say")
    while item == "wait":
        time.sleep(0.01)
    return (item * item if isinstance(item, int) else item), os.getpid(), os.environ["OMP_NUM_THREADS"]
