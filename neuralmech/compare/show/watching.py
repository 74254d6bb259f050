"""One screen of a run: how far it is, its loss, its charges and effective learning rates as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from neuralmech.compare.measure.glance import Glance, SiteGlance
from neuralmech.compare.show.cells import DASH, number, shortened
from neuralmech.compare.show.sparks import BLOCKS, PLAIN, sparkline
from neuralmech.laws.system import Array
from neuralmech.record.safety import printable
from neuralmech.record.schema import held_out

LEAST_WIDTH = 60
NUMBERS = 9  # letters of a column of numbers
NARROW = 72  # where there is room for one curve only
LEAST_CURVE, LONGEST_CURVE = 8, 40
N_WIDTH, ERROR_WIDTH = 6, 7
ABOUT = (
    "Charges and η/Q: means over a site. Error: RMS of the exact law − measured, over that of measured, so far; the "
    "law takes η, λ, β and the recorded drives."
)


@dataclass(frozen=True)
class Look:
    """A look at a run, and what is said around it: its folder, its status, steps per second if they are known."""

    folder: str
    status: str
    glance: Glance | None
    speed: float | None = None

    def says_as(self, other: Look | None) -> bool:
        """Whether another look says the same."""
        if other is None or self.status != other.status:
            return False
        mine, others = self.glance, other.glance
        if mine is None or others is None:
            return mine is others
        return (mine.step, mine.compared, mine.held_out) == (others.step, others.compared, others.held_out)


def screen(seen: Look, console: Console, sites: int, height: int | None = None) -> RenderableType:
    """What a console shows of a run: up to `sites` sites of each family, fewer where it has less `height`."""
    width, letters = max(LEAST_WIDTH, min(console.width, 120)), _letters(console)
    look = seen.glance
    if look is None:
        return Text(f"{seen.folder}: {printable(seen.status)}", overflow="fold")
    head = [_title(seen, look, width), _progress(seen, look), _loss(look, width, letters)]
    head += [Text(f"step {look.held_out[0]:,}: {held_out(*look.held_out[1:])}")] if look.held_out else []
    if not look.sites:
        return Group(*head, Text("\nno charges: the model has no symmetry, or none was tracked"))
    families = list(dict.fromkeys(site.family for site in look.sites))
    notes = [Text(note, style="dim", overflow="fold") for note in (_about(look), *_reasons(look.sites))]
    if height is not None:
        room = height - len(head) - 2 - len(families)  # for rows of sites and notes
        below = len(console.render_lines(Group(*notes)))
        if room - below < len(families):
            notes, below = [], 0
        sites = max(1, min(sites, (room - below) // len(families)))
    shown = [(f, [s for s in look.sites if s.family == f]) for f in families]
    return Group(*head, Text(), _table(shown, sites, width, letters), *notes)


def _title(seen: Look, look: Glance, width: int) -> Text:
    status, about = printable(seen.status), printable(look.about)
    room = max(12, width - len(status) - len(about) - 4)
    text = Text(shortened(seen.folder, room), style="bold", no_wrap=True)
    text.append(f"  {about}  ", style="not bold")
    return text.append(status, style="green" if status == "running" else "not bold")


def _progress(seen: Look, look: Glance) -> Text:
    parts = [f"step {look.step:,}"]
    if look.total:
        parts[0] += f" of {look.total:,} ({min(1.0, look.step / look.total):.0%})"
    parts += [f"{seen.speed:,.3g} steps/s"] if seen.speed else []
    signs = {"lr": "η", "weight_decay": "λ", "momentum": "β"}
    parts += [f"{sign} = {look.now[name]:.3g}" for name, sign in signs.items() if name == "lr" or look.now[name]]
    return Text("  ".join(parts))


def _loss(look: Glance, width: int, letters: str) -> Text:
    if not len(look.loss):
        return Text("loss: nobody logged it")
    text = Text(f"loss {_last(look.loss[:1])} ", no_wrap=True)
    tail = f" {_last(look.loss)}"
    line = sparkline(look.loss, min(LONGEST_CURVE, width - len(text) - len(tail)), letters)
    return text.append(line, style="cyan").append(tail)


def _table(families: Sequence[tuple[str, list[SiteGlance]]], sites: int, width: int, letters: str) -> Table:
    """A heading for each family, and below it some sites, evenly spread from the first to the last."""
    rated = any(site.rate is not None for _, found in families for site in found)
    curves = 1 + (rated and width >= NARROW)
    room = width - N_WIDTH - ERROR_WIDTH - curves - (1 + rated) * (NUMBERS + 1) - 2
    longest = max(len(printable(s.site)) for _, found in families for s in _spread(found, sites)) + 1
    name = min(longest, max(14, room - curves * LEAST_CURVE))
    curve = max(LEAST_CURVE, min(LONGEST_CURVE, (room - name) // curves))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("site", width=name, no_wrap=True)
    table.add_column("n", width=N_WIDTH, justify="right", no_wrap=True)
    table.add_column("charge", width=curve, no_wrap=True)
    table.add_column("now", width=NUMBERS, justify="right", no_wrap=True)
    if curves > 1:
        table.add_column("η/Q", width=curve, no_wrap=True)
    if rated:
        table.add_column("now" if curves > 1 else "η/Q", width=NUMBERS, justify="right", no_wrap=True)
    table.add_column("error", width=ERROR_WIDTH, justify="right", no_wrap=True)
    for family, found in families:
        rest = len(found) - sites
        more = f" ({len(found)} sites)" if rest > 0 else ""
        table.add_row(Text(f"{family}{more}", style="bold", overflow="ignore"))
        for site in _spread(found, sites):
            cells = [Text(f" {shortened(printable(site.site), name - 1)}"), Text(f"{site.charges:,}")]
            cells += [Text(sparkline(site.value, curve, letters), style="cyan"), Text(_last(site.value))]
            rate = [] if site.rate is None else site.rate
            cells += [Text(sparkline(rate, curve, letters), style="magenta")] if curves > 1 else []
            cells += [Text(_last(rate) if len(rate) else "")] if rated else []
            table.add_row(*cells, Text(number(site.error)))
    return table


def _about(look: Glance) -> str:
    return ABOUT if look.compared >= 1 else f"{ABOUT} Errors are of the first {look.compared:.0%} of the rows as yet."


def _spread(found: Sequence[SiteGlance], count: int) -> list[SiteGlance]:
    """`count` of some sites, evenly spread, first and last among them."""
    if len(found) <= count:
        return list(found)
    if count == 1:
        return [found[0]]
    return [found[round(i * (len(found) - 1) / (count - 1))] for i in range(count)]


def _reasons(sites: Sequence[SiteGlance]) -> list[str]:
    """Why some sites have no error, each reason once; two of them, not to fill the screen."""
    found = dict.fromkeys(site.reason for site in sites if site.reason and math.isnan(site.error))
    return [f"{DASH} {reason}" for reason in found][:2]


def _last(curve: Sequence[float] | Array) -> str:
    return number(float(curve[-1]), 3)


def _letters(console: Console) -> str:
    """Letters for curves that the terminal has."""
    try:
        BLOCKS.encode(console.encoding)
    except UnicodeEncodeError:
        return PLAIN
    return BLOCKS
