"""report.html: the report on a sweep as one file that needs no network. The table sorts, the curves can be hovered.

page.html beside this module is its template (Jinja2, which escapes every value) and page.js what it does; uPlot draws
the curves (uplot.min.js and .css of the npm package uplot 1.6.32, MIT licence in uplot.LICENSE).
"""

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from cifar.base.run_folder import finite, write_atomically
from cifar.reports.figures.drawing import COLOURS, DARK_COLOURS, GREY, INK, LINE, PAPER, Figure
from cifar.reports.figures.sweep import CURVE_NAMES, band, is_recorded, mean_curve
from cifar.reports.findings.importance import keys_left_out, left_out, point_names, shown_keys
from cifar.reports.findings.table import unfinished
from cifar.reports.findings.wording import Column, percent
from cifar.reports.runs.results import Point, Results, Run, show

MAX_CURVES = 50  # points whose curves the page holds
MAX_UNFINISHED = 100  # runs that were not completed and are listed by themselves
MAX_BYTES = 900_000  # of the page: the best points have their rows in it as far as they fit
UNFINISHED_BYTES = 200_000  # of these for the list of what was not completed
ROW_BYTES, CELL_BYTES, RUN_BYTES = 160, 70, 420  # about what a row takes beside its texts
FOLDER = Path(__file__).parent
Item = TypeVar("Item")
# The page's names for the figures' colours, and what they are in the dark; in the light they are as they are.
NAMES = {INK: "var(--text)", LINE: "var(--line)", PAPER: "none"} | {
    colour: f"var(--curve-{rank})" for rank, colour in enumerate(COLOURS[:-1])
}


@dataclass(frozen=True)
class Cell:
    """A cell of the table: its text, the value to sort by, and whether it is a number."""

    text: str
    value: Any
    is_number: bool


@dataclass(frozen=True)
class Row:
    """A point's cells and its runs."""

    cells: list[Cell]
    runs: list[dict[str, str]]

    @property
    def num_bytes(self) -> int:
        """About how many bytes it takes in the page."""
        cells = sum(CELL_BYTES + num_bytes(cell.text) + num_bytes(str(cell.value)) for cell in self.cells)
        return ROW_BYTES + cells + sum(map(run_bytes, self.runs))


def write_page(
    results: Results, columns: list[Column], figures: list[Figure], verdict: list[str], note: str, path: Path
) -> None:
    """Write the page to `path`, in whose folder the figures already are."""
    template = page_template()
    curves = curve_data(results)
    pictures = [(inline_svg(path.with_name(f"{figure.stem}.svg")), figure.title)
                for figure in figures if figure.stem != "curves"]  # fmt: skip
    troubles = [run_row(run, path.parent) for run in unfinished(results)]
    facts = {
        "title": "Report on " + ", ".join("/".join(folder.absolute().parts[-2:]) for folder in results.folders),
        "warnings": results.warnings,
        "verdict": verdict,
        "columns": [(column.title, is_number(column)) for column in columns],
        "note": note,
        "unfinished": fitting(troubles[:MAX_UNFINISHED], [*map(run_bytes, troubles)], UNFINISHED_BYTES),
        "num_unfinished": len(troubles),
        "curves": curves,
        "pictures": pictures,
        "constants": [(key, show(value)) for key, value in results.constants.items()],
        **look(),
    }
    frame = template.render(facts, rows=[], left_out=[])
    rows = [point_row(results, place, columns, path.parent) for place in range(len(results.points))]
    rows = fitting(rows, [row.num_bytes for row in rows], MAX_BYTES - len(frame.encode(errors="replace")))
    text = template.render(facts, rows=rows, left_out=omissions(results, len(rows)))
    write_atomically(path, lambda file: file.write(text.encode(errors="replace")))


def look() -> dict[str, Any]:
    """Return what every page has: colours, style, scripts, and the policy that forbids all else."""
    scripts = page_scripts()
    return {
        "colours": [*zip(COLOURS, DARK_COLOURS, strict=False)],
        "grey": GREY,
        "style": Markup((FOLDER / "uplot.min.css").read_text(encoding="utf-8")),
        "scripts": [Markup(script) for script in scripts],
        "policy": policy(scripts),
    }


def page_template(name: str = "page.html") -> Template:
    """Return a template, by default the sweep's, in which every value is escaped and none may be missing."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def omissions(results: Results, num_rows: int) -> list[str]:
    """Return in words what the page leaves out."""
    texts = keys_left_out(results)
    if num_rows < len(results.points):
        texts.append(f"The best {num_rows} of {len(results.points)} points are shown.")
    if texts:
        texts.append("report.csv and runs.csv have all.")
    return [*texts, *left_out(results)]


def fitting(items: list[Item], sizes: list[int], budget: int) -> list[Item]:
    """Return as many of the first items as the budget of bytes holds, at least one."""
    totals = accumulate(sizes)
    return [
        item for place, (item, total) in enumerate(zip(items, totals, strict=False)) if total <= budget or not place
    ]


def num_bytes(text: str) -> int:
    """Return how many bytes a text takes in the page."""
    return len(str(escape(text)).encode(errors="replace"))


def run_bytes(run: dict[str, str]) -> int:
    """Return about how many bytes a run takes in the page."""
    return RUN_BYTES + sum(map(num_bytes, run.values()))


def is_number(column: Column) -> bool:
    """Return whether a column has only numbers, which stand to the right."""
    return all(isinstance(value, (int, float)) or value is None for value in column.values)


def point_row(results: Results, place: int, columns: list[Column], folder: Path) -> Row:
    """Return the row of the point at that place of the ranking."""
    cells = [Cell(column.texts[place], column.values[place], is_number(column)) for column in columns]
    return Row(cells, [run_row(run, folder) for run in results.points[place].runs])


def run_row(run: Run, folder: Path) -> dict[str, str]:
    """Return what the page says of a run; `link` leads to its folder, if it has begun, and `page` to its own page."""
    place = Path(os.path.relpath(run.folder, folder)).as_posix()
    accuracies = f"validation {percent(run.figure('val_accuracy'))}, test {percent(run.figure('test_accuracy'))}"
    link = quote(f"./{place}/" if ":" in place else f"{place}/", errors="replace")
    return {
        "place": place,
        "link": "" if run.status == "pending" else link,
        "page": f"{link}run.html" if (run.folder / "run.html").is_file() else "",
        "seed": "" if run.seed is None else str(run.seed),
        "kind": run.status,
        "status": run.status_text,
        "error": run.error,
        "accuracies": accuracies if run.is_counted else "",
        "command": run.command,
    }


def curve_data(results: Results) -> dict[str, Any] | None:
    """Return the curves for page.js: panels of (rank, steps, values) and the names by rank; None if there are none."""
    recorded = [point for point in results.points if any(is_recorded(point.runs, key) for key in CURVE_NAMES)]
    best = recorded[:MAX_CURVES]
    panels = []
    for key, words in CURVE_NAMES.items():
        if series := [curve for rank, point in enumerate(best) if (curve := page_curve(point, rank, key))]:
            panels.append({"title": "".join(words), "isLoss": key == "train/loss", "series": series})
    if not panels:
        return None
    names = point_names(best, shown_keys(results))
    data: dict[str, Any] = finite({"names": names, "panels": panels, "numColours": len(COLOURS)})
    return data | {"numDrawn": len(best), "numRecorded": len(recorded)}


def page_curve(point: Point, rank: int, key: str) -> list[Any]:
    """Return a point's rank, steps and mean values, nothing if it has none; a coloured one has its band's ends too."""
    curves = [run.curves[key] for run in point.runs if is_recorded([run], key)]
    steps, means = mean_curve(curves)
    ends = band(curves) if len(curves) > 1 and rank < len(COLOURS) else ()
    scale = 100 if key == "val/accuracy" else 1
    columns = [[float(f"{scale * value:.5g}") for value in values] for values in (means, *ends)]
    return [rank, steps, *columns] if steps else []


def inline_svg(path: Path) -> Markup:
    """Return a figure as part of the page, in whose colours it is; matplotlib has escaped its texts."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(
        r"<metadata>.*?</metadata>|<style>.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    used = {*re.findall(r'(?:href="#|url\(#)([\w.-]+)', text)}
    text = re.sub(r' id="([\w.-]+)"', lambda match: match[0] if match[1] in used else "", text)
    for colour, name in NAMES.items():
        text = re.sub(rf"(fill|stroke|stop-color): ?{colour}\b", rf"\1: {name}", text, flags=re.IGNORECASE)
    return Markup(re.sub(r"\n\s*", "\n", text))


def page_scripts() -> list[str]:
    """Return the page's scripts: uPlot under its licence, and its own."""
    licence, library, own = ((FOLDER / name).read_text(encoding="utf-8")
                             for name in ("uplot.LICENSE", "uplot.min.js", "page.js"))  # fmt: skip
    return [f"/*\n{licence}*/\n{library}", own]


def policy(scripts: Sequence[str]) -> str:
    """Return the content security policy: nothing is loaded, and no script runs but these."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    own = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {own}"
