"""What a paper takes from the report on a sweep: a table, figures as PDF, an entry for BibTeX, and how to use them.

Figures are drawn for a column of 3.25 inches and a text of 6.75, as of ICML and CVPR, with texts of 9 and 8 points in
a face like Times (STIX), so that they are put in as they are.
"""

import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from cifar.base.run_folder import write_atomically
from cifar.experiment.typed.command_line import run_command
from cifar.reports.files.tex import tex, tex_code
from cifar.reports.findings.importance import shown_keys
from cifar.reports.findings.rivals import Rival, rivals
from cifar.reports.findings.wording import NOTHING
from cifar.reports.runs.results import Results, Run, show
from cifar.reports.runs.statistics import MIN_SEEDS, Interval
from cifar.sweeps.plan import Plan, read_plan

if TYPE_CHECKING:
    from cifar.reports.figures.drawing import Figure, Style

COLUMN_INCHES, TEXT_INCHES = 3.25, 6.75
LABEL_POINTS, SMALL_POINTS = 9, 8  # LaTeX's \small and \footnotesize in a paper of 10 points
MAX_ROWS = 30  # of the table: a page holds no more
LIKE = 0.1  # sides of an interval that differ by less are shown as one
PREAMBLE = r"""% How to use what lies here: pdflatex example, bibtex example, pdflatex example twice.
\documentclass[twocolumn]{article}
\usepackage[letterpaper,textwidth=6.75in,textheight=9in,columnsep=0.25in]{geometry}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}
"""


def styles() -> list["Style"]:
    """Return how figures are drawn for a column and for the width of the text."""
    from cifar.reports.figures.drawing import Style

    return [
        Style(("pdf",), width, suffix, ("STIXGeneral", "DejaVu Sans"), LABEL_POINTS, SMALL_POINTS, SMALL_POINTS)
        for width, suffix in ((COLUMN_INCHES, "-column"), (TEXT_INCHES, "-text"))
    ]


def write_latex(results: Results, figures: Sequence["Figure"], folder: Path) -> None:
    """Write table.tex, references.bib and example.tex into the folder, in which the figures already are."""
    entries = [entry(results, sweep) for sweep in results.folders]
    files = {
        "table.tex": table(results),
        "references.bib": "\n".join(entries),
        "example.tex": example(figures, [citation(sweep) for sweep in results.folders]),
    }
    for name, text in files.items():
        content = text.encode(errors="replace")
        write_atomically(folder / name, lambda file, content=content: file.write(content))  # type: ignore[misc]


def table(results: Results) -> str:
    """Return the table of the points for \\input: it needs the package booktabs."""
    keys, names = shown_keys(results), [*results.accuracies]
    ranked = rivals(results)
    lines = [
        r"\begin{table*}", r"\centering", r"\small", rf"\caption{{{caption(results, ranked)}}}", r"\label{tab:sweep}",
        r"\smallskip", rf"\begin{{tabular}}{{{'l' * len(keys)}r{'r' * len(names)}}}", r"\toprule",
        row([*[tex_code(key) for key in keys], "seeds", *[f"{tex(results.accuracies[name])} (\\%)" for name in names]]),
        r"\midrule",
    ]  # fmt: skip
    for rival in ranked[:MAX_ROWS]:
        point, is_bold = rival.point, may_be_best(rival, ranked)
        cells = [tex(show(point.values[key])) for key in keys] + [str(len(point.seeds))]
        lines.append(row([*cells, *[accuracy(point.interval(name), is_bold) for name in names]]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""]
    return "\n".join(lines)


def row(cells: Sequence[str]) -> str:
    """Return one row of a table."""
    return f"{' & '.join(cells)} \\\\"


def may_be_best(rival: Rival, ranked: Sequence[Rival]) -> bool:
    """Return whether it is the best, or was compared with it and not told apart, or is ahead of it."""
    if rival is ranked[0] or rival.is_ahead:
        return True
    return rival.corrected is not None and not rival.is_clear


def accuracy(interval: Interval | None, is_bold: bool) -> str:
    """Return a mean with its interval in percent, with one ± if both sides are about the same and end within 0 to 100.

    Fewer than three seeds are shown themselves, as there is no interval.
    """
    if interval is None:
        return tex(NOTHING)
    mean = f"{100 * interval.mean:.2f}"
    if interval.low is None or interval.high is None:
        equal = len(interval.values) >= MIN_SEEDS
        text = mean if equal else ", ".join(f"{100 * value:.2f}" for value in interval.values)
        return rf"\textbf{{{text}}}" if is_bold else text
    below, above = 100 * (interval.mean - interval.low), 100 * (interval.high - interval.mean)
    half = (below + above) / 2
    is_even = abs(below - above) <= LIKE * max(below, above) and half <= 100 * min(interval.mean, 1 - interval.mean)
    number = rf"\mathbf{{{mean}}}" if is_bold else mean
    ends = rf" \pm {half:.2f}" if is_even else rf"^{{+{above:.2f}}}_{{-{below:.2f}}}"
    return f"${number}{ends}$"


def caption(results: Results, ranked: Sequence[Rival]) -> str:
    """Return what the table shows, and what bold means."""
    what = "validation" if results.has_val else "test"
    text = (
        f"Means over seeds in percent with 95\\,\\% confidence intervals (Student's $t$ on the logit scale); fewer "
        f"than {MIN_SEEDS} seeds are shown themselves. Ranked by {what} accuracy."
    )
    if any(rival.corrected is not None for rival in ranked):
        text += (
            f" Bold: the best by {what} accuracy, and what a paired $t$ test over common seeds (without such, Welch's) "
            "does not tell apart from it at $p < 0.05$, corrected for the number of comparisons by Holm's method."
        )
    elif len(ranked) > 1:
        text += f" Bold: the best by {what} accuracy; too few seeds to test whether others are as good."
    if len(ranked) > MAX_ROWS:
        text += f" The best {MAX_ROWS} of {len(ranked)} points."
    without = len(results.points) - len(ranked)
    diverged = sum(point.count("diverged") for point in results.points)
    failed = f" Diverged runs, which count with their last state: {diverged}." if diverged else ""
    return text + (f" Points without a result: {without}." if without else "") + failed


def citation(folder: Path) -> str:
    """Return the key by which a sweep is cited."""
    return "cifar-" + re.sub(r"[^A-Za-z0-9]+", "-", "-".join(folder.absolute().parts[-2:])).strip("-").lower()


def entry(results: Results, folder: Path) -> str:
    """Return the entry for BibTeX of what was run: command, commit, hardware, versions, date."""
    runs = [run for run in results.runs if folder.absolute() in (run.folder.absolute(), *run.folder.absolute().parents)]
    plan = read_plan(folder)
    started = plan.started_at if plan else max((changed(run.folder) for run in runs), default=0.0)
    date = datetime.fromtimestamp(started, timezone.utc)
    facts = {"commit": "git_commit", "hardware": "device", "precision": "precision"}
    said = [f"{name} {', '.join(found)}" for name, key in facts.items()
            if (found := {str(run.summary[key]): None for run in runs if run.summary.get(key)})]  # fmt: skip
    versions = {f"{name} {version}": None for run in runs for name, version in run.summary.get("versions", {}).items()
                if name in ("python", "torch", "numpy")}  # fmt: skip
    keys = f" over {', '.join(results.keys)}" if results.keys else ""
    note = tex("; ".join([f"{len(runs)} runs", *said, *versions]))
    fields = {
        "key": "cifar-framework",
        "title": f"{{Experiments with cifar-framework{tex(keys)}}}",
        "howpublished": tex_code(command_of(plan, runs)),
        "year": str(date.year),
        "month": date.strftime("%b").lower(),
        "note": f"Run on {date:%Y-%m-%d}; {note}",
    }
    lines = [f"  {name} = {value if name == 'month' else f'{{{value}}}'}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{citation(folder)},", *lines, "}", ""])


def command_of(plan: Plan | None, runs: Sequence[Run]) -> str:
    """Return the command that began the sweep, or that of the only run."""
    if plan is None:
        return runs[0].command if len(runs) == 1 else f"cifar run … ({len(runs)} commands, see runs.csv)"
    if plan.begun:
        return run_command(["-m", *plan.begun.task], plan.begun.flags)
    values: dict[str, dict[str, None]] = {}  # of a plan that an earlier version wrote
    for key, _, value in (word.partition("=") for job in plan.jobs for word in job):
        values.setdefault(key, {})[value] = None
    return run_command(["-m", *[f"{key}={','.join(found)}" for key, found in values.items()]])


def changed(folder: Path) -> float:
    """Return when the run's summary was written, in seconds since 1970; 0 if it has none."""
    path = folder / "summary.json"
    return os.path.getmtime(path) if path.exists() else 0.0


def example(figures: Sequence["Figure"], citations: Sequence[str]) -> str:
    """Return a document that shows all that lies beside it."""
    lines = [rf"What was run: \cite{{{','.join(citations)}}}.", r"\input{table}"]
    for figure in figures:
        for suffix, star in (("-column", ""), ("-text", "*")):
            lines += [
                rf"\begin{{figure{star}}}", r"\centering", rf"\includegraphics{{{{{figure.stem}{suffix}}}.pdf}}",
                rf"\caption{{{tex(figure.title)}.}}", rf"\end{{figure{star}}}",
            ]  # fmt: skip
    lines += [r"\bibliographystyle{plain}", r"\bibliography{references}", r"\end{document}", ""]
    return PREAMBLE + "\n".join(lines)
