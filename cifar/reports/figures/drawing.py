"""What all figures of a report share: colours, a canvas, the legend, and how they get to the disk.

`render` is the only way to a file: it draws without the user's matplotlibrc and without mathematics in texts, because
texts come from runs ("$" is no formula), and a figure that fails costs a warning.
"""

import re
import warnings as python_warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.base.run_folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# The page replaces these three by its own, which follow the reader's light or dark mode.
INK, LINE, PAPER = "#1D2126", "#E1E4E8", "#FFFFFF"
# Okabe & Ito's colours, which the colour-blind tell apart (2008, jfly.uni-koeln.de/color)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", INK)
GREY, DARK_GREY = "#B8B8B8", "#808080"  # both can be seen on white and on black
MAX_VECTORS = 150  # marks in a picture: beyond, an SVG holds them as pixels, which is smaller
CHARACTER = 6.4  # points, about the width of one at `FONT_SIZE`
FONT_SIZE = 10


@dataclass(frozen=True)
class Figure:
    """A figure in the report's folder: STEM.png and STEM.svg."""

    stem: str
    title: str


Drawing = tuple[Figure, "Callable[[], Canvas]"]


def render(drawings: Sequence[Drawing], folder: Path, warnings: list[str]) -> list[Figure]:
    """Draw the figures into the folder and return those that could be drawn; the others cost a warning each."""
    drawn = []
    for figure, draw in drawings:
        try:
            with plain_style(figure.stem):
                save(draw(), folder / figure.stem)
            drawn.append(figure)
        except Exception as error:  # whatever happens to a picture, the report is made
            warnings.append(f"The figure {figure.stem} could not be drawn: {type(error).__name__}: {error}")
    return drawn


@contextmanager
def plain_style(salt: str) -> Iterator[None]:
    """Set matplotlib to its own defaults and to plain text while figures are drawn; `salt` makes an SVG's ids."""
    import matplotlib

    with matplotlib.rc_context(), python_warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rc("text", parse_math=False, color=INK)
        matplotlib.rc("axes", labelcolor=INK, edgecolor=INK)
        matplotlib.rc("axes.formatter", use_mathtext=False)
        matplotlib.rc("xtick", color=INK)
        matplotlib.rc("ytick", color=INK)
        matplotlib.rc("font", size=FONT_SIZE)
        matplotlib.rc("svg", fonttype="none", hashsalt=salt)
        python_warnings.filterwarnings("ignore", r"Glyph .* missing from")  # it is drawn as a box
        yield


def save(canvas: "Canvas", path: Path) -> None:
    """Write PATH.png and PATH.svg atomically, the same bytes for the same figure."""
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        write = partial(canvas.savefig, format=kind, dpi=150, metadata=metadata)
        write_atomically(path.with_name(f"{path.name}.{kind}"), write)


def new_canvas(width: float, height: float, num_columns: int = 1) -> "tuple[Canvas, list[Axes]]":
    """Return a canvas of that many inches, with axes side by side."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = [canvas.add_subplot(1, num_columns, number + 1) for number in range(num_columns)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=LINE, linewidth=0.6)
        panel.set_axisbelow(True)
    return canvas, axes


def add_legend(canvas: "Canvas", entries: Sequence[tuple[Any, str]]) -> None:
    """Add a legend of handles and labels below the axes; the canvas grows by what it takes."""
    if not entries:
        return
    handles, labels = zip(*entries, strict=True)
    longest = max(map(len, labels))
    num_columns = max(1, min(len(entries), int(canvas.get_figwidth() * 72 / (0.9 * CHARACTER * longest + 40))))
    canvas.legend(handles, labels, loc="outside lower center", ncols=num_columns, frameon=False, fontsize=9)
    canvas.set_figheight(canvas.get_figheight() + 0.22 * -(-len(entries) // num_columns))


def others_entry(axes: "Axes", num_others: int) -> list[tuple[Any, str]]:
    """Return the legend's entry for the lines that are grey, if there are any."""
    if num_others <= 0:
        return []
    return [(axes.plot([], [], color=GREY)[0], f"{num_others} other{'s' * (num_others > 1)}")]


def width_of(labels: Sequence[str]) -> float:
    """Return about how many inches the longest of the labels takes."""
    return CHARACTER / 72 * max(map(len, labels), default=0)


def safe(key: str) -> str:
    """Return a key as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", key).strip(".")[:80] or "key"
