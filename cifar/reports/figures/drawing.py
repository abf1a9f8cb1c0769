"""What all figures of a report share: colours, a canvas, the legend, and how they get to the disk.

`render` is the only way to a file: it draws without the user's matplotlibrc and without mathematics in texts, because
texts come from runs ("$" is no formula), and a figure that fails costs a warning.
"""

import io
import re
import warnings as python_warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cifar.base.run_folder import write_atomically
from cifar.reports.findings.wording import MAX_LABEL, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# The page replaces these three by its own, which follow the reader's light or dark mode.
INK, LINE, PAPER = "#1D2126", "#E1E4E8", "#FFFFFF"
# Okabe & Ito's colours, which the colour-blind tell apart (2008, jfly.uni-koeln.de/color)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", INK)
# What they and the three above are where the reader's system is dark.
DARK_COLOURS = ("#4FA8E0", "#F08A4B", "#2FC79A", "#E39CC3", "#F0B840", "#8CCBF2", "#B48CCB")
DARK = {INK: "#E6E8EB", LINE: "#343B44", PAPER: "#15181C"} | dict(zip(COLOURS, DARK_COLOURS, strict=False))
GREY, DARK_GREY = "#B8B8B8", "#808080"  # both can be seen on white and on black
MAX_VECTORS = 150  # marks in a picture: beyond, an SVG holds them as pixels, which is smaller
CHARACTER = 6.4  # points, about the width of one at `FONT_SIZE`
FONT_SIZE = 10
HANDLE = 40  # points that an entry of a legend takes beside its text
BAND = 0.25  # the opacity of a band over seeds


@dataclass(frozen=True)
class Style:
    """For what figures are drawn: the kinds of files, a width in inches, and the sizes of texts in points.

    Without a width every figure has its own. `suffix` ends the files' stems.
    """

    kinds: tuple[str, ...] = ("png", "svg")
    width: float | None = None
    suffix: str = ""
    family: tuple[str, ...] = ("DejaVu Sans",)
    label_size: float = FONT_SIZE
    tick_size: float = FONT_SIZE
    legend_size: float = 9


SCREEN = Style()


@dataclass(frozen=True)
class Figure:
    """A figure in the report's folder: STEM.png and STEM.svg."""

    stem: str
    title: str


Drawing = tuple[Figure, "Callable[[float | None], Canvas]"]  # what draws it takes the width in inches


def render(drawings: Sequence[Drawing], folder: Path, warnings: list[str], style: Style = SCREEN) -> list[Figure]:
    """Draw the figures into the folder and return those that could be drawn; the others cost a warning each."""
    drawn = []
    for figure, draw in drawings:
        try:
            with plain_style(figure.stem, style):
                save(draw(style.width), folder / f"{figure.stem}{style.suffix}", style.kinds)
            drawn.append(figure)
        except Exception as error:  # whatever happens to a picture, the report is made
            warnings.append(f"The figure {figure.stem} could not be drawn: {type(error).__name__}: {error}")
    return drawn


@contextmanager
def plain_style(salt: str, style: Style = SCREEN) -> Iterator[None]:
    """Set matplotlib to its own defaults and to plain text while figures are drawn; `salt` makes an SVG's ids.

    A PDF has TrueType fonts (type 42) in it, which publishers ask for, and of these the glyphs that it uses.
    """
    import matplotlib

    with matplotlib.rc_context(), python_warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rc("text", parse_math=False, color=INK)
        matplotlib.rc("axes", labelcolor=INK, edgecolor=INK)
        matplotlib.rc("axes.formatter", use_mathtext=False)
        matplotlib.rc("xtick", color=INK, labelsize=style.tick_size)
        matplotlib.rc("ytick", color=INK, labelsize=style.tick_size)
        matplotlib.rc("font", size=style.label_size, family=[*style.family])
        matplotlib.rc("legend", fontsize=style.legend_size)
        matplotlib.rc("svg", fonttype="none", hashsalt=salt)
        matplotlib.rc("pdf", fonttype=42)
        python_warnings.filterwarnings("ignore", r"Glyph .* missing from")  # it is drawn as a box
        yield


METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def save(canvas: "Canvas", path: Path, kinds: Sequence[str] = SCREEN.kinds) -> None:
    """Write PATH.png, PATH.svg or PATH.pdf atomically, the same bytes for the same figure."""
    for kind in kinds:
        picture = io.BytesIO()
        canvas.savefig(picture, format=kind, dpi=150, metadata=METADATA[kind])
        content = darkened(picture.getvalue()) if kind == "svg" else picture.getvalue()
        write_atomically(path.with_name(f"{path.name}.{kind}"), partial(write_bytes, content))


def write_bytes(content: bytes, file: IO[bytes]) -> None:
    """Write the content into the file."""
    file.write(content)


def darkened(svg: bytes) -> bytes:
    """Return an SVG that is dark where the reader's system is; programs without style sheets show it light."""
    rules = "".join(
        f'[style*="{name}: {light.lower()}"]{{{name}:{dark}!important}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return svg.replace(b"<defs>", f"{style}\n <defs>".encode(), 1)


def new_canvas(width: float, height: float, num_columns: int = 1, num_rows: int = 1) -> "tuple[Canvas, list[Axes]]":
    """Return a canvas of that many inches, with axes side by side or below each other."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = [canvas.add_subplot(num_rows, num_columns, number + 1) for number in range(num_rows * num_columns)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=LINE, linewidth=0.6)
        panel.set_axisbelow(True)
    return canvas, axes


def add_legend(canvas: "Canvas", entries: Sequence[tuple[Any, str]]) -> None:
    """Add a legend of handles and labels below the axes; the canvas grows by what it takes."""
    import matplotlib
    from matplotlib.font_manager import FontProperties

    if not entries:
        return
    scale = FontProperties(size=matplotlib.rcParams["legend.fontsize"]).get_size_in_points() / FONT_SIZE
    room, character = 72 * canvas.get_figwidth(), scale * CHARACTER
    labels = short_names([label for _, label in entries], int((room - HANDLE) / character))
    num_columns = max(1, min(len(entries), int(room / (character * max(map(len, labels)) + HANDLE))))
    handles = [handle for handle, _ in entries]
    canvas.legend(handles, labels, loc="outside lower center", ncols=num_columns, frameon=False)
    canvas.set_figheight(canvas.get_figheight() + 0.245 * scale * -(-len(entries) // num_columns))


def others_entry(axes: "Axes", num_others: int) -> list[tuple[Any, str]]:
    """Return the legend's entry for the lines that are grey, if there are any."""
    if num_others <= 0:
        return []
    return [(axes.plot([], [], color=GREY)[0], f"{num_others} other{'s' * (num_others > 1)}")]


def width_of(labels: Sequence[str]) -> float:
    """Return about how many inches the longest of the labels takes."""
    return CHARACTER / 72 * max(map(len, labels), default=0)


def letters_in(inches: float) -> int:
    """Return how many letters of a label have room, forty at most."""
    return max(8, int(min(72 * inches / CHARACTER, MAX_LABEL)))


def safe(key: str) -> str:
    """Return a key as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", key).strip(".")[:80] or "key"
