"""report.md: whatever runs bring along is shown as it is and never becomes markup."""

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cifar.base.locks import locked
from cifar.reports.files.csv_files import defused
from cifar.reports.files.markdown import escape, markdown
from cifar.reports.findings.table import columns
from cifar.reports.findings.verdict import verdict
from cifar.reports.runs.reading import read_results
from cifar.sweeps.plan import Begun, make_plan, write_plan
from tests.sweep_folders import write_run

HOSTILE = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "<iframe src=//x>", "[a](javascript:alert(1))",
    "![a](http://x/y.png)", "https://evil.example/a", "www.evil.example", "someone@evil.example", "a\n# heading",
    "a\r\n- item", "`code` **bold** _soft_ ~~gone~~ $x$", "a | b", "a \\| b", "&lt;b&gt;", "<!-- ", "\u2028# heading",
    "\x1b[2Jgone", "\u202egnihton",
]  # fmt: skip


def unescaped(text: str) -> str:
    """Return what a reader of Markdown sees of escaped text (CommonMark 0.31, sections 2.4 and 2.5)."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text))


def bare(text: str) -> str:
    """Return the text without characters that stand behind a backslash, and so stand for themselves."""
    return re.sub(r"\\[!-/:-@\[-`{-~]", "", text)


def test_what_is_escaped_is_no_markup_and_reads_as_it_was() -> None:
    for text in HOSTILE:
        escaped = escape(text)
        assert not re.search(r"[<>`*\[\]|~$@]|://|www\.|(?<!\w)_|_(?!\w)", bare(escaped)), text
        assert escaped.isprintable()
        shown = re.sub(r"[\n\r\u2028\x1b\u202e]", " ", text)
        assert unescaped(escaped) == shown


def test_usual_texts_stay_readable() -> None:
    usual = [
        "optimizer.weight_decay=0.001",
        "55.00 % (43.45–66.02)",
        "lr=1e-05 seed=3",
        "2 completed, 1 failed",
        "–",
        "-1",
    ]
    assert [escape(text) for text in usual] == usual


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_a_run_gets_raw_into_the_report(tmp_path: Path, text: str) -> None:
    folder = tmp_path / re.sub(r"[/\n\r]", "", text)
    for number, lr in enumerate((0.1, 0.2)):
        config = {"lr": f"{text}{lr}", "seed": 0, "tag": text}
        write_run(folder / str(number), lr, 0, number, val_accuracy=lr, git_commit=text, device=f"{text}{lr}",
                  overrides=[f"lr={lr}", "tag=x"], config=config, point=str(lr))  # fmt: skip
    write_run(folder / "9", 0.3, 0, 9, status="failed", error=text)
    results = read_results([folder])
    lines = markdown(results, columns(results), verdict(results), [(text, "a.png")]).splitlines()
    assert len([line for line in lines if line.startswith("#")]) == 3
    assert len([line for line in lines if line.startswith("|")]) == 2 + 3
    assert len([line for line in lines if line.startswith("- ")]) == 1
    (image,) = [line for line in lines if line.startswith("![")]
    assert image == f"![{escape(text)}](a.png)"
    fences = [place for place, line in enumerate(lines) if line.startswith("  ```")]
    assert len(fences) == 2
    assert lines[fences[0] + 1 : fences[1]] == ["  cifar run lr=0.3 seed=0"]
    rest = bare("\n".join(line for place, line in enumerate(lines) if line != image and place not in fences))
    assert not re.search(r"<|`|\[|://|www\.|@", rest)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("=1+1", "'=1+1"), ("+cmd", "'+cmd"), ("-x", "'-x"), ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"), ("\r=1", "'\r=1"),
        ("  =1", "'  =1"), ("-1", "-1"), ("+0.5", "+0.5"), ("-1e-5", "-1e-5"), ("-inf", "-inf"), ("a=1", "a=1"),
        (-1, -1), (None, None), ("", ""),
    ],
)  # fmt: skip
def test_formulas_in_csv_are_texts_and_numbers_stay(cell: object, shown: object) -> None:
    assert defused(cell) == shown


def test_what_has_not_ended_well_is_listed_with_a_command_to_copy(tmp_path: Path) -> None:
    plan = make_plan(["lr=0.1,0.2,0.3", "seed=0"], 0)
    begun = Begun(["lr=0.1,0.2,0.3", "seed=0"], [], ["--config-dir", "/my conf"], str(tmp_path), {})
    write_plan(tmp_path, replace(plan, begun=begun))
    write_run(tmp_path / "0", 0.1, 0, 0, status="diverged", error="It diverged.", overrides=["lr=0.1", "name=a```b"])
    write_run(tmp_path / "1", 0.2, 0, 1, status="running", test_accuracy=None)
    with locked(tmp_path / "1"):
        results = read_results([tmp_path])
    text = markdown(results, columns(results), verdict(results), [])
    section = text.partition("## Runs that failed, diverged or have not ended\n\n")[2]
    assert [line for line in section.splitlines() if line] == [
        "- **0** lr=0.1 seed=0, diverged: It diverged.",
        "  ````bash", "  cifar run lr=0.1 'name=a```b'", "  ````",
        "- **1** lr=0.2 seed=0, running",
        "  ```bash", "  cifar run lr=0.2 seed=0", "  ```",
        "- **2** lr=0.3 seed=0, pending",
        "  ```bash", "  cifar run --config-dir '/my conf' lr=0.3 seed=0", "  ```",
    ]  # fmt: skip
