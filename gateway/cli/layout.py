"""How commands lay out what they print. No name is cut or broken: where they are long, the lines are longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Sequence[str]
GAP: Final = 2
NONE: Final = "-"
RIGHT: Final = frozenset(
    {
        "rpm",
        "tpm",
        "at once",
        "context",
        "output",
        "keys",
        "#",
        "weight",
        "load",
        "sum",
        "chance",
        "ours",
        "theirs",
        "difference",
        "unexplained",
        "paid",
        "calls",
        "input",
        "credits",
        "raw tokens",
        "price",
        "left",
    }
)  # columns of numbers


def table(title: str, headings: Row, rows: Sequence[Row]) -> None:
    """The last column may take several lines, broken between words; the others are as wide as they need to be."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_header=any(headings))
    columns = [[heading, *(row[at] for row in rows)] for at, heading in enumerate(headings)]
    widths = [max(map(cell_len, column)) for column in columns[:-1]]
    widths.append(max(cell_len(word) for cell in columns[-1] for word in cell.split() or [""]))
    for heading, width in zip(headings[:-1], widths[:-1], strict=True):
        table.add_column(heading, justify=_side(heading), min_width=width, no_wrap=True)
    table.add_column(headings[-1], justify=_side(headings[-1]), min_width=widths[-1])
    for row in rows:
        table.add_row(*row)
    say(Text(f"\n{title}" if title else "", style="bold"))
    say(table, least=sum(widths) + GAP * len(widths))


def _side(heading: str) -> Literal["left", "right"]:
    return "right" if heading in RIGHT else "left"


def say(what: Any, least: int = 0, *, stderr: bool = False) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=not least, stderr=stderr)
    if least > console.width:
        console = Console(highlight=False, markup=False, width=least, stderr=stderr)
    console.print(what)
