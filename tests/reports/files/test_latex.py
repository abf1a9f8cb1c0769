"""What a paper takes of the report: a table that says what the report says, figures that fit, all of which compiles."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cifar.reports.files.latex import COLUMN_INCHES, TEXT_INCHES, accuracy
from cifar.reports.files.tex import tex, tex_code
from cifar.reports.report import report
from cifar.reports.runs.reading import read_results
from cifar.reports.runs.statistics import Interval, interval
from tests.sweep_folders import write_metrics, write_run, write_sweep

RATES = {0.1: [0.20, 0.32, 0.29], 0.01: [0.50, 0.60, 0.55], 0.001: [0.48, 0.59, 0.55], 0.5: [0.4]}
HOSTILE = (
    r"\input{/etc/passwd} \end{document} % & $x^2_1$ # ~ {a}b} \\ <tag> |pipe| \"q\" 'q' `q` -- --- ,, <<x>> ?` "
    "é ß þ ñ µ × … 漢字 \U0001f600 €5 90° −1 ﬁ"
)
PDFLATEX = shutil.which("pdflatex")


def write_all(folder: Path) -> Path:
    """Write a sweep with curves, and its report for a paper; return the latter's folder."""
    write_sweep(folder, RATES)
    for number in range(9):
        write_metrics(folder / str(number), 5, 4)
    report([folder], folder, for_latex=True)
    return folder / "latex"


def rows(text: str) -> list[list[str]]:
    """Return the cells between the rules of a table."""
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    return [line.removesuffix(" \\\\").split(" & ") for line in body.splitlines()]


def test_bold_is_the_best_and_what_the_report_does_not_tell_apart_from_it(tmp_path: Path) -> None:
    text = (write_all(tmp_path) / "table.tex").read_text()
    assert [row[:2] for row in rows(text)] == [["0.01", "3"], ["0.001", "3"], ["0.5", "1"], ["0.1", "3"]]
    assert [["bf" in cell for cell in row[2:]] for row in rows(text)] == [
        [True, True], [True, True], [False, False], [False, False],
    ]  # fmt: skip
    found = interval(RATES[0.1])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    ends = f"^{{+{100 * (found.high - found.mean):.2f}}}_{{-{100 * (found.mean - found.low):.2f}}}"
    assert rows(text)[3][2] == f"$27.00{ends}$"
    assert "Holm's method" in text
    assert "\\toprule" in text


def test_an_interval_is_one_number_only_where_that_says_the_truth() -> None:
    assert accuracy(Interval((), 0.5, 0.49, 0.51), False) == r"$50.00 \pm 1.00$"
    assert accuracy(Interval((), 0.5, 0.49, 0.51), True) == r"$\mathbf{50.00} \pm 1.00$"
    assert accuracy(Interval((), 0.9, 0.86, 0.92), False) == "$90.00^{+2.00}_{-4.00}$"
    assert accuracy(Interval((), 0.999, 0.9978, 0.9999), False) == "$99.90^{+0.09}_{-0.12}$"  # ± would pass 100 %
    assert accuracy(Interval((0.5, 0.625), 0.5625, None, None), False) == "50.00, 62.50"
    assert accuracy(Interval((0.5, 0.5, 0.5), 0.5, None, None), True) == r"\textbf{50.00}"
    assert accuracy(None, False) == r"\textendash{}"


def test_one_seed_each_leaves_only_the_best_bold(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.5], 0.2: [0.4]})
    report([tmp_path], tmp_path, for_latex=True)
    text = (tmp_path / "latex" / "table.tex").read_text()
    assert [["bf" in cell for cell in row[2:]] for row in rows(text)] == [[True, True], [False, False]]
    assert "too few seeds to test" in text


def test_what_latex_takes_specially_is_escaped() -> None:
    special = "\\{}&%$#_~^<>|\"'`"
    escaped = [tex(character) for character in special]
    assert all(len(text) > 1 for text in escaped)
    assert not re.search(r"(?<!\\)[&%$#_~^]", tex(special.replace("\\", "")).replace("$", "\\$"))
    assert tex("--- ,,") == "-{}-{}- ,{},"
    assert tex("é\n漢") == "é [U+6F22]"
    assert tex("lr=0.01 seed 3") == "lr=0.01 seed 3"
    assert tex_code("lr=0.1,0.2") == r"\texttt{lr=\allowbreak 0.1,\allowbreak 0.2}"
    for text in (tex(HOSTILE), tex_code(HOSTILE)):
        assert text.count("{") == text.count("}")


def test_figures_have_a_papers_widths_and_truetype_fonts(tmp_path: Path) -> None:
    folder = write_all(tmp_path)
    stems = {path.stem for path in folder.glob("*.pdf")}
    assert stems == {f"{stem}-{kind}" for stem in ("accuracy_vs_lr", "curves") for kind in ("column", "text")}
    for path in folder.glob("*.pdf"):
        content = path.read_bytes()
        (box,) = re.findall(rb"/MediaBox \[ *0 0 ([\d.]+) ([\d.]+) *\]", content)
        inches = COLUMN_INCHES if path.stem.endswith("column") else TEXT_INCHES
        assert float(box[0]) == pytest.approx(72 * inches)
        assert b"/FontFile2" in content
        assert b"/Type3" not in content


def test_the_entry_says_what_was_run(tmp_path: Path) -> None:
    text = (write_all(tmp_path / "my sweep") / "references.bib").read_text()
    assert text.startswith("@misc{cifar-")
    assert r"\texttt{cifar run -m lr=\allowbreak 0.1,\allowbreak 0.01,\allowbreak 0.001,\allowbreak 0.5 seed=" in text
    assert "commit 0123456789; hardware a processor; precision fp32; python 3.11.7; torch 2.15.0" in text
    assert re.search(r"Run on \d{4}-\d\d-\d\d; 12 runs;", text)
    assert text.count("{") == text.count("}")


@pytest.mark.slow
@pytest.mark.skipif(PDFLATEX is None, reason="there is no pdflatex: nothing was compiled")
def test_all_of_it_compiles_also_with_hostile_names(tmp_path: Path) -> None:
    sweep = tmp_path / "a_sweep & more"
    for number, value in enumerate([HOSTILE, f"{HOSTILE}2", "plain_name"]):
        for seed in range(3):
            place = 3 * number + seed
            write_run(sweep / str(place), 0.1, seed, place, overrides=[f"na_me#={value}", f"note='{HOSTILE}'"],
                      config={"na_me#": value, "note": HOSTILE, "seed": seed}, config_hash=str(place),
                      point=str(number), device=HOSTILE, git_commit=HOSTILE,
                      val_accuracy=0.5 + 0.01 * place)  # fmt: skip
            write_metrics(sweep / str(place), 5, 4)
    report([sweep], sweep, for_latex=True)
    folder = sweep / "latex"
    assert len(read_results([sweep]).points) == 3
    for program in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] if program == "pdflatex" else []
        result = subprocess.run([program, *options, "example"], cwd=folder, capture_output=True, timeout=300)
        assert result.returncode == 0, result.stdout.decode(errors="replace")[-3000:]
    log = (folder / "example.log").read_text(errors="replace")
    assert not re.findall(r"^LaTeX Warning: (?:Citation|Reference).*undefined", log, flags=re.MULTILINE)
    assert "Missing character" not in log
    assert (folder / "example.pdf").read_bytes().startswith(b"%PDF")
