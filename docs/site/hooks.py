"""What mkdocs does not do by itself: pages from above docs/, links between pages, equations that need no script.

For mkdocstrings it is an extension, too, which shows everything in the module that defines it.
"""

import html
import json
import re
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
ABOVE = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
NOTEBOOK, READ = "tutorial.ipynb", "tutorial.md"
PAGE = re.compile(r"`docs/(\w+)\.md`")
# What arithmatex leaves of $…$ and $$…$$: \(…\) and \[…\] in an element of its class.
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    """Add the pages that lie above docs/, where GitHub looks for them, and the notebook as a page to be read."""
    for source, target in ABOVE.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, target, content=text))
    files.append(File.generated(config, READ, content=_page_of(ROOT / "docs" / NOTEBOOK)))
    return files


def _page_of(notebook: Path) -> str:
    """The cells of a notebook one below the other, and where to get it."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
    parts = [f"```python\n{text}\n```" if is_code else text for text, is_code in texts]
    return "\n\n".join([*parts, f"This page is [a notebook]({notebook.name}) to be run."])


def on_page_markdown(markdown, page, config, files):
    """Make links of the pages that a text names: on GitHub they read as files, here as pages."""
    up = "../" * page.file.src_uri.count("/")
    if page.file.src_uri != READ:
        markdown = markdown.replace(f"]({NOTEBOOK})", f"]({READ})")
    return PAGE.sub(lambda named: f"[{named[1]}]({up}{named[1]}.md)", markdown)


def on_page_content(content, page, config, files):
    """Turn equations into MathML, which browsers show without a script."""
    return EQUATION.sub(_mathml, content)


def _mathml(found: re.Match) -> str:
    element, bracket, latex = found.groups()
    display = "block" if bracket == "[" else "inline"
    return f'<{element} class="equation">{convert(html.unescape(latex), display=display)}</{element}>'


class OncePerRoom(griffe.Extension):
    """Nothing appears a second time where a room's ``__init__`` hands it on."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Forget what each room exports; its modules still have it."""
        for room in pkg.modules.values():
            room.exports = None
