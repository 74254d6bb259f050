"""The live view in a notebook's kernel, not a stand-in for one: what is shown is what the run came to."""

import re
import sys

import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
from nbformat.v4 import new_code_cell, new_notebook  # noqa: E402

BEGIN = """
import sys; sys.path[:0] = {path!r}
from own_loops import *
model = net()
optimizer = sgd(model)
tracking = neuralmech.attach(model, optimizer, {folder!r}, data()[0])

def steps(count):
    for x, y in batches(count):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

steps(20)
import time; time.sleep(1.5); steps(1)  # it is committed every second
"""
SHOW = """
view = neuralmech.live({folder!r}, interval=0.05)
print("at first:", view._seen.glance.step if view._seen.glance else 0)
steps(40)
tracking.close()
view._thread.join(60)
assert view.is_over
view
"""


def text_of(html):
    return re.sub(r"<[^>]+>", "", html)


def test_a_cell_is_updated_until_the_run_ends(tmp_path):
    """The view's own cell, and only that: where it is shown last it is there already."""
    places = {"path": sys.path, "folder": str(tmp_path / "run")}
    cells = [new_code_cell(source.format(**places)) for source in (BEGIN, SHOW)]
    client = nbclient.NotebookClient(new_notebook(cells=cells), timeout=240, kernel_name="python3")
    client.execute()
    outputs = cells[1]["outputs"]
    said = "".join(o["text"] for o in outputs if o["output_type"] == "stream")
    assert int(re.search(r"at first: (\d+)", said)[1]) <= 21
    shown = [o for o in outputs if o["output_type"] == "display_data"]
    assert len(shown) == 1
    found = text_of(shown[0]["data"]["text/html"])
    assert "step 61" in found
    assert "complete" in found
    assert not [o for o in outputs if o["output_type"] == "execute_result"]
