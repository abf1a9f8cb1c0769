"""report.html: the report on a sweep as one file that needs no network. The table sorts, the curves can be hovered.

Plotly draws the curves; its whole library lies in the page. The rest of the page is page.html beside this module.
"""

import base64
import json
import os
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from cifar.drawing import COLOURS, GREY, Figure, shorten
from cifar.figures import is_recorded, mean_curve
from cifar.results import Point, Results, Run, show
from cifar.run_folder import write_atomically
from cifar.wording import Column, percent

MAX_CURVES = 200  # points whose curves the page holds; a browser stays quick with that many
PANELS = {"train/loss": ("training loss", "x", "y"), "val/accuracy": ("validation accuracy (%)", "x2", "y2")}


def write_page(
    results: Results, columns: list[Column], figures: list[Figure], verdict: list[str], note: str, path: Path
) -> None:
    """Write the page to `path`, in whose folder the figures already are."""
    curves, script = curve_section(results)
    title = "Report on " + ", ".join("/".join(folder.absolute().parts[-2:]) for folder in results.folders)
    text = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        warnings="\n".join(f'<p class="warning" role="alert">{escape(text)}</p>' for text in results.warnings),
        verdict="\n".join(f"<p>{escape(text)}</p>" for text in verdict),
        headings="".join(heading(column) for column in columns),
        points="\n".join(
            point_rows(point, number, columns, path.parent) for number, point in enumerate(results.points)
        ),
        note=escape(note),
        curves=curves,
        figures=figure_section(figures, path.parent),
        constants="\n".join(
            f"<dt>{escape(key)}</dt><dd>{escape(show(value))}</dd>" for key, value in results.constants.items()
        ),
        script=script,
    )
    write_atomically(path, lambda file: file.write(text.encode()))


def heading(column: Column) -> str:
    """Return a column's heading, whose button sorts by it."""
    return f'<th scope="col"{kind(column)}><button type="button">{escape(column.title)}</button></th>'


def kind(column: Column) -> str:
    """Return the class by which numbers stand to the right."""
    is_number = all(isinstance(value, (int, float)) or value is None for value in column.values)
    return ' class="number"' if is_number else ""


def point_rows(point: Point, number: int, columns: list[Column], folder: Path) -> str:
    """Return a point's row and the hidden one with its runs, a table body of their own so that they sort together."""
    cells = []
    for place, column in enumerate(columns):
        value = column.values[number]
        sorted_by = "" if value is None else escape(str(value), quote=True)
        button = '<button class="open" type="button" aria-expanded="false" aria-label="Runs"></button>' * (place == 0)
        cells.append(f'<td{kind(column)} data-value="{sorted_by}">{button}{escape(column.texts[number])}</td>')
    runs = "\n".join(run_row(run, folder) for run in point.runs)
    return (
        f"<tbody><tr>{''.join(cells)}</tr>\n"
        f'<tr class="runs" hidden><td colspan="{len(columns)}"><table>\n{runs}\n</table></td></tr></tbody>'
    )


def run_row(run: Run, folder: Path) -> str:
    """Return the row of one run: a link to its folder, how it ended, and the command that makes it again."""
    place = os.path.relpath(run.folder, folder)
    link = f'<a href="{escape(quote(Path(place).as_posix()), quote=True)}/">{escape(place)}</a>'
    results = f"validation {percent(run.figure('val_accuracy'))}, test {percent(run.figure('test_accuracy'))}"
    cells = [
        link if run.status != "pending" else escape(place),
        f"seed {run.seed}",
        f"{escape(run.status)}{': ' + escape(run.error) if run.error else ''}",
        results,
        f'<code>{escape(run.command)}</code><button class="copy" type="button">copy</button>',
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def figure_section(figures: list[Figure], folder: Path) -> str:
    """Return the figures, their pictures within the page; the curves are there in a form that can be hovered."""
    shown = [figure for figure in figures if figure.stem != "curves"]
    items = []
    for figure in shown:
        data = base64.b64encode((folder / f"{figure.stem}.svg").read_bytes()).decode()
        image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(figure.title, quote=True)}">'
        items.append(f"<figure>{image}<figcaption>{escape(figure.title)}</figcaption></figure>")
    return f'<h2>Figures</h2>\n<div class="figures">\n{"".join(items)}\n</div>' if items else ""


def curve_section(results: Results) -> tuple[str, str]:
    """Return the place of the curves in the page and the script that draws them; nothing if nothing was recorded."""
    from plotly.offline import get_plotlyjs

    recorded = [point for point in results.points if any(is_recorded(point.runs, key) for key in PANELS)]
    if not recorded:
        return "", ""
    traces = [trace for rank, point in enumerate(recorded[:MAX_CURVES]) for trace in traces_of(point, rank)]
    more = f" The {MAX_CURVES} best of {len(recorded)} points are drawn." if len(recorded) > MAX_CURVES else ""
    section = (
        '<h2>Curves</h2>\n<div id="curves"></div>\n<p class="soft">Means over seeds at the steps that all have. '
        f"A click on a name hides its curves, a double click shows them alone.{more}</p>"
    )
    data = json.dumps(traces, allow_nan=False).replace("<", "\\u003c")
    drawing = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    return section, f"<script>{get_plotlyjs()}</script>\n<script>const traces = {data};\n{drawing}</script>"


def traces_of(point: Point, rank: int) -> list[dict[str, Any]]:
    """Return a point's two curves for Plotly: training loss, and validation accuracy in %."""
    traces: list[dict[str, Any]] = []
    for key, (name, x_axis, y_axis) in PANELS.items():
        steps, values = mean_curve([run.curves[key] for run in point.runs if key in run.curves])
        if not steps:
            continue
        scale = 100 if key == "val/accuracy" else 1
        traces.append({
            "type": "scattergl" if rank >= len(COLOURS) else "scatter",
            "x": steps,
            "y": [float(f"{scale * value:.5g}") for value in values],
            "xaxis": x_axis,
            "yaxis": y_axis,
            "name": escape(shorten(point.label)),
            "legendgroup": str(rank),
            "showlegend": not traces,
            "mode": "lines" if len(steps) > 1 else "markers",
            "line": {"color": COLOURS[rank] if rank < len(COLOURS) else GREY, "width": 2 if rank < len(COLOURS) else 1},
            "hovertemplate": f"%{{y}} at step %{{x}}<extra>{escape(point.label)}, {name}</extra>",
        })  # fmt: skip
    return traces
