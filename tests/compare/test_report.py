"""The report in a real browser: it fits a phone and a desk, runs offline, sorts, and shows markup as text."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from matplotlib.image import imread

from made_runs import config, job
from neuralmech.compare.folder import analyze_folder
from neuralmech.compare.gather.options import Options
from neuralmech.compare.show.drawing import SMALLEST

pytestmark = pytest.mark.usefixtures("found_once")

EVIL = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">$\\frac{&|"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--allow-file-access-from-files",
)  # fmt: skip
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(BROWSERS)} is installed")


def browse(tmp_path, page, *flags):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def folder(finished):
    """A run whose site names, configuration and attributes are HTML."""
    folder = finished(model={"name": "mlp", "width": 6, "norm": "batch"}, optim={"lr": 0.1, "momentum": 0.9})
    with h5py.File(folder / "record.h5", "a") as file:
        for group in file["charges"].values():
            index = group["index"][:]
            index["site"][:3] = EVIL.encode()
            group["index"][...] = index
        config = yaml.safe_load(file.attrs["config"])
        file.attrs["config"] = yaml.safe_dump({**config, EVIL: {"text": EVIL}})
        file.attrs["device"] = EVIL
        file.attrs["status"] = EVIL
        file.attrs["versions"] = json.dumps({EVIL: EVIL})
    analyze_folder(folder, Options())
    return folder


def test_everything_from_the_record_is_escaped(folder):
    page = (folder / "analysis/report.html").read_text()
    assert page.count("<script>") == 1  # our own
    assert "<img src=x" not in page
    assert "&lt;script&gt;document.title=" in page
    outside = re.findall(
        r'(?:src|href)="(?!data:|#)[^"]*"|url\(|@import|https?://', unescape(re.sub("&lt;.*?&gt;", "", page))
    )
    assert outside == []  # nothing is fetched


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits(folder, tmp_path, width):
    """A window cannot be as narrow as a phone, a frame can; it reports its own widths in the title."""
    page = folder / "analysis/report.html"
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="{page.as_uri()}" style="border:0;width:{width}px;height:1600px" '
        'onload="const d=contentDocument; '
        "for(const e of d.querySelectorAll('details'))e.open=true;"
        "document.body.dataset.found=JSON.stringify({"
        "scroll:d.documentElement.scrollWidth, width:contentWindow.innerWidth, title:d.title,"
        "wide:[false,true].map(all=>{for(const e of d.querySelectorAll('.table > input'))e.checked=all;"
        "return [...d.querySelectorAll('.scroll')].filter(b=>b.scrollWidth>b.clientWidth).length}),"
        "equations:[...d.querySelectorAll('.equation img')].map(i=>"
        "[i.getBoundingClientRect().right-i.closest('.equation').getBoundingClientRect().right,"
        "i.clientWidth/parseFloat(i.style.width)]),"
        "zoomed:[...d.querySelectorAll('figure')].map(f=>{const i=f.querySelector('img'),"
        "b=f.querySelector('.picture');"
        "const before=[i.clientWidth,b.clientWidth,i.clientWidth/i.naturalWidth]; i.click();"
        "const after=[i.clientWidth,"
        "b.scrollWidth,b.clientWidth,d.documentElement.scrollWidth]; i.click(); return [before,after,i.clientWidth]}),"
        "cards:[...d.querySelectorAll('.card')].map(c=>[c.getBoundingClientRect().right,c.innerText]),"
        "hidden:(()=>{for(const e of d.querySelectorAll('.table > input'))e.checked=false;"
        "return [...d.querySelectorAll('#budget th')].filter(c=>!c.offsetWidth).length})(),"
        "images:[...d.images].filter(i=>!i.complete||!i.naturalWidth).length, count:d.images.length,"
        "first:(()=>{const t=d.querySelector('#error table'), b=t.querySelectorAll('th button');"
        "const n=[...t.tHead.rows[0].cells].findIndex(c=>c.textContent==='gradient flow');"
        "const read=()=>[...t.tBodies[0].rows].map(r=>Number(r.cells[n].dataset.value));"
        "b[n].click(); const up=read(); b[n].click(); return [up, read()]})()"
        '})"></iframe>'
    )
    shot = tmp_path / f"{width}.png"
    browse(tmp_path, frame, f"--screenshot={shot}", f"--window-size={max(width, 500)},1600")
    pixels = imread(shot)
    assert pixels.shape[:2] == (1600, max(width, 500))
    assert len(np.unique(pixels[:, :width].reshape(-1, pixels.shape[2]), axis=0)) > 20  # not a blank page
    html = browse(tmp_path, frame, "--dump-dom", f"--window-size={max(width, 500)},1600")
    found = json.loads(unescape(re.search(r'data-found="([^"]*)"', html)[1]))
    assert found["width"] == width
    assert found["scroll"] <= width
    assert "pwned" not in found["title"]
    assert found["count"] > 8
    assert found["images"] == 0  # all figures and equations are drawn
    few, every = found["wide"]
    assert every > 0  # wide tables scroll inside their boxes,
    assert few == 0 or width > 1000  # the columns that matter first have room, long names and all
    assert len(found["zoomed"]) >= 4
    for before, (full, reach, box, whole), again in found["zoomed"]:
        assert before[0] <= before[1]  # it fits,
        assert SMALLEST * 96 / 72 * before[2] >= 9  # its smallest text can be read,
        assert before[0] < full <= reach  # touched, it is larger,
        assert box <= whole <= width  # and scrolls inside the page;
        assert again == before[0]  # touched again, it fits again
    assert len(found["equations"]) > 10
    assert max(beyond for beyond, _ in found["equations"]) <= 0  # none is cut off
    assert min(scale for _, scale in found["equations"]) > 0.9  # nor too small to read
    assert len(found["cards"]) == 3  # a verdict on each family,
    assert all(right <= width and ("suffices" in text or "law" in text) for right, text in found["cards"])
    assert found["hidden"] > 0  # of wide tables the columns that matter first
    up, down = found["first"]
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)
    assert len(set(up)) > 1


def test_every_figure_says_what_it_shows(folder):
    page = (folder / "analysis/report.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == len(list((folder / "analysis").glob("*.png")))
    texts = [caption.rpartition(". ")[0] for caption in captions]
    assert len(set(texts)) == len(texts)
    assert all(len(text) > 80 for text in texts)
    errors = [text for text in texts if "RMS over the charges of theory − measured" in text]
    assert len(errors) == 3  # one per family


def test_the_page_is_one_file(folder, tmp_path):
    """Moved elsewhere, alone, it is the same page: all it needs is inside."""
    page = Path(shutil.copy(folder / "analysis/report.html", tmp_path / "alone.html"))
    pictures = list((folder / "analysis").glob("*.png"))
    assert page.read_text().count("<figure>") == len(pictures) > 0


@needs_browser
def test_the_page_of_a_sweep_fits_a_phone(tmp_path):
    """Its verdict, too: the table of all settings has its columns inside the window."""
    for number in range(6):
        job(tmp_path / "sweep" / str(number), config(0.01 * (1 + number // 2), number % 2))
    analyze_folder(tmp_path / "sweep", Options())
    page, frame = tmp_path / "sweep/analysis/report.html", tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="{page.as_uri()}" style="border:0;width:390px;height:1600px" '
        'onload="const d=contentDocument; document.body.dataset.found=JSON.stringify({'
        "scroll:d.documentElement.scrollWidth,"
        "scales:[...d.querySelectorAll('figure img')].map(i=>i.clientWidth/i.naturalWidth),"
        "reach:d.querySelector('#summary .scroll').scrollWidth,"
        "rows:d.querySelectorAll('#summary tbody tr').length})"
        '"></iframe>'
    )
    shot = tmp_path / "phone.png"
    browse(tmp_path, frame, f"--screenshot={shot}", "--window-size=500,1600")
    assert imread(shot).shape[:2] == (1600, 500)
    html = browse(tmp_path, frame, "--dump-dom", "--window-size=500,1600")
    found = json.loads(unescape(re.search(r'data-found="([^"]*)"', html)[1]))
    assert found["scroll"] <= 390
    assert found["reach"] <= 390
    assert min(found["scales"]) * SMALLEST * 96 / 72 >= 9  # figures are drawn for it, or scrolled
    assert found["rows"] == 3
