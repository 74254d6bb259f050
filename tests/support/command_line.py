"""What tests of the command line share: options of a short run, code of a user, the form of a refusal."""

import re

SMALL = ["model=mlp", "model.width=6", "data.batch_size=16", "train.steps=30", "device=cpu"]
QUICK = [*SMALL[:-2], "train.steps=4", "device=cpu"]
OWN = """
from torch import nn

class MyNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x):
        return self.net(x)
"""


def unhurried(err):
    """What a command said on stderr, less the lines on what takes long: whether there are any, the machine decides."""
    lines = [line for line in err.splitlines(keepends=True) if not line.endswith(" s so far)\n")]
    return "".join(line for line in lines if "compiling the sums of charges" not in line)


def refused(answer, message):
    """Wrong usage: nothing but one line that says what is wrong."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("neuralmech: ")
    assert re.search(message, err), err


def there(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
