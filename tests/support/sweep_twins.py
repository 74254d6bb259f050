"""Short jobs of a sweep as a user starts them, and whether two of them have the same numbers."""

import sys

import numpy as np

from neuralmech.record import open_record

NEURALMECH = [sys.executable, "-m", "neuralmech"]
SHORT = ["data.batch_size=16", "device=cpu", "train.checkpoint.every=10", "track.block=16", "train.eval_every=0"]


def assert_same_numbers(one, other):
    with open_record(one) as a, open_record(other) as b:
        assert a.status == b.status == "complete"
        assert a.rows == b.rows > 0
        for column in ("step", "loss", "lr", "time"):
            assert a.column(column, slice(0, a.rows)).tobytes() == b.column(column, slice(0, a.rows)).tobytes()
        for family in a.families:
            for name in ("value", "drive_update", "residual"):
                x, y = (getattr(r.charges(family), name)[:] for r in (a, b))
                assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), (family, name)
        assert a.evaluation().equals(b.evaluation())
