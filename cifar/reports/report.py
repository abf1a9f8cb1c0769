"""The report on a sweep, made at the end of every -m and at any time: cifar report multirun/DATE/TIME

Several folders or globs are reported together. Beside the table for readers (report.md, report.html) there are
report.csv with a row per point and runs.csv with a row per run.
"""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifar.base.errors import UserError
from cifar.base.run_folder import write_atomically
from cifar.reports.files.csv_files import points_csv, runs_csv
from cifar.reports.files.markdown import markdown
from cifar.reports.files.terminal import show
from cifar.reports.findings.table import columns, note
from cifar.reports.findings.verdict import verdict
from cifar.reports.findings.wording import printable
from cifar.reports.runs.reading import read_results
from cifar.reports.runs.results import Results
from cifar.sweeps.shared_homes import home_for_reading

if TYPE_CHECKING:
    from cifar.reports.figures.drawing import Figure, Style


def report(folders: Sequence[Path], output: Path, for_latex: bool = False) -> Results:
    """Write report.md, report.html, the CSV files and the figures into `output`, and show the table and the path.

    `for_latex` adds a folder with what a paper takes of it. Raises `UserError` if there is no run in the folders.
    """
    results = read_results(folders)
    sentences, num_before = verdict(results), len(results.warnings)
    show(results, sentences)

    from cifar.reports.figures.sweep import draw_figures  # after the answer is on the screen: this takes longer
    from cifar.reports.files.page import write_page

    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "report.csv", points_csv(results))
    write_text(output / "runs.csv", runs_csv(results, output))
    figures = draw_figures(results, output) + study_figures(results, output, output)
    images = [(figure.title, f"{figure.stem}.png") for figure in figures]
    write_text(output / "report.md", markdown(results, columns(results), sentences, images))
    write_page(results, columns(results), figures, sentences, note(results), output / "report.html")
    show_warnings(results, num_before)
    print(f"Report: {os.path.relpath(output / 'report.md')} (and report.html, report.csv, runs.csv, figures)")
    if for_latex:
        latex(results, output)
    return results


def latex(results: Results, output: Path) -> None:
    """Write what a paper takes into the subfolder latex, and say how it is tried."""
    from cifar.reports.figures.sweep import draw_figures
    from cifar.reports.files.latex import styles, write_latex

    folder, num_before = output / "latex", len(results.warnings)
    folder.mkdir(exist_ok=True)
    drawn = [
        [*draw_figures(results, folder, style), *study_figures(results, output, folder, style)] for style in styles()
    ]
    write_latex(results, [figure for figure in drawn[0] if figure in drawn[1]], folder)
    show_warnings(results, num_before)
    print(f"For LaTeX: {os.path.relpath(folder)}: table.tex, references.bib, figures as PDF; example.tex shows them.")


def show_warnings(results: Results, num_before: int) -> None:
    """Print what came to be warned of after so many warnings."""
    for text in results.warnings[num_before:]:
        print(printable(f"Warning: {text}"))


def study_figures(results: Results, folder: Path, output: Path, style: "Style | None" = None) -> list["Figure"]:
    """Draw what the report on a search in the folder shows beside; a study that can't be read costs a warning."""
    if (home := home_for_reading(folder)) is None:
        return []
    try:
        from cifar.reports.figures.drawing import SCREEN
        from cifar.reports.figures.study import draw_study

        return draw_study(home, output, results.warnings, style or SCREEN)
    except (UserError, ImportError) as error:
        results.warnings.append(f"The search's history is not shown: {error}")
        return []


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda file: file.write(text.encode(errors="replace")))


def find_folders(words: Sequence[str]) -> list[Path]:
    """Return the folders that the words name; raise `UserError` for the first that names none."""
    folders: list[Path] = []
    for word in words:
        names = [word] if Path(word).is_dir() else sorted(glob.glob(str(Path(word).expanduser()), recursive=True))
        found = [Path(name) for name in names if Path(name).is_dir()]
        if not found:
            raise UserError(f"{word}: there is no such folder.")
        folders += found
    return [*dict.fromkeys(folders)]
