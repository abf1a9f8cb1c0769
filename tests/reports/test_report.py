"""The report on synthetic sweeps with known numbers, to the digit; and on real ones, as the command makes it."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from cifar.base.signals import CLOSED_PIPE
from cifar.reports.report import find_folders, report
from tests.conftest import QUIET, ROOT, SLOW, Command, Start, read_summary
from tests.sweep_folders import interval_text, write_metrics, write_run, write_sweep

REPORT = ("-m", "cifar", "report")
# Their means' logits ± t(0.975, 2) s / (√3 m (1 − m)), and back: see interval_text
RATES = {0.1: [0.20, 0.32, 0.29], 0.01: [0.50, 0.60, 0.55], 0.001: [0.48, 0.59, 0.55]}


def table(text: str) -> list[list[str]]:
    """Return the cells of a Markdown file's table, the heading first."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in [rows[0], *rows[2:]]]


def test_the_table_to_the_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, RATES, "epochs=2")
    report([tmp_path], tmp_path)
    text = (tmp_path / "report.md").read_text()
    second, third = (float(stats.ttest_rel(RATES[0.01], RATES[lr]).pvalue) for lr in (0.001, 0.1))
    tail = ["1.5", "2 min 0 s", "1,000"]
    assert table(text) == [
        ["rank", "lr", "seeds", "validation", "test", "status", "p", "p (Holm)", "train loss", "time", "images/s"],
        ["1", "0.01", "3", interval_text(RATES[0.01]), "50.00 % each", "3 completed", "–", "–", *tail],
        ["2", "0.001", "3", interval_text(RATES[0.001]), "50.00 % each", "3 completed", *[f"{second:.2g}"] * 2, *tail],
        ["3", "0.1", "3", interval_text(RATES[0.1]), "50.00 % each", "3 completed",
         f"{third:.2g}", f"{2 * third:.2g}", *tail],
    ]  # fmt: skip
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert [line.split()[:3] for line in lines[:4]] == [row[:3] for row in table(text)]
    assert lines[-1].endswith("report.md (and report.html, report.csv, runs.csv, figures)")


def test_the_accuracy_with_test_time_augmentation_stands_beside_the_plain_one(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([0.58, 0.62]):
        write_run(tmp_path / str(seed), 0.1, seed, seed, test_accuracy=accuracy - 0.05, test_tta_accuracy=accuracy)
    report([tmp_path], tmp_path)
    heading, row = table((tmp_path / "report.md").read_text())
    assert row[heading.index("test with TTA")] == "58.00, 62.00 %"
    assert row[heading.index("test")] == "53.00, 57.00 %"
    (point,) = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    assert float(point["test_tta_accuracy_mean"]) == pytest.approx(0.6)


def test_the_csv_files_hold_the_numbers_themselves(tmp_path: Path) -> None:
    write_sweep(tmp_path, RATES)
    report([tmp_path], tmp_path)
    points = [*csv.DictReader((tmp_path / "report.csv").read_text().splitlines())]
    for row in points:
        accuracies = RATES[float(row["lr"])]
        names = ("val_accuracy_mean", "val_accuracy_ci95_low", "val_accuracy_ci95_high")
        mean, low, high = (float(row[name]) for name in names)
        assert mean == pytest.approx(sum(accuracies) / 3, abs=1e-15)
        assert f"{100 * mean:.2f} % ({100 * low:.2f}–{100 * high:.2f})" == interval_text(accuracies)
        assert row["test_accuracy_ci95_low"] == row["test_accuracy_ci95_high"] == ""
        assert (row["completed"], row["failed"]) == ("3", "0")
    runs = [*csv.DictReader((tmp_path / "runs.csv").read_text().splitlines())]
    assert {(float(row["lr"]), int(row["seed"])): float(row["val_accuracy"]) for row in runs} == {
        (lr, seed): accuracy for lr, accuracies in RATES.items() for seed, accuracy in enumerate(accuracies)
    }
    assert {(tmp_path / row["folder"] / "summary.json").is_file() for row in runs} == {True}
    assert runs[1]["command"] == "cifar run lr=0.01 seed=1"


def test_what_was_constant_stands_once_above_and_errors_cant_break_the_table(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.2], 0.01: [0.5]})
    write_run(tmp_path / "2", 0.5, 0, 2, status="failed", error="a | b\n<script>", val_accuracy=None)
    report([tmp_path], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.count("torch=2.15.0") == 1
    assert "- **2** lr=0.5 seed=0, failed: a \\| b" in text
    assert "<script>" not in text
    assert len({len(row) for row in table(text)}) == 1


def test_folders_globs_and_what_is_none(tmp_path: Path) -> None:
    for name in ("a1", "a2", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a3").touch()
    assert find_folders([str(tmp_path / "a*"), str(tmp_path / "b"), str(tmp_path / "a1")]) == [
        tmp_path / "a1", tmp_path / "a2", tmp_path / "b",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"c\*: there is no such folder"):
        find_folders([str(tmp_path / "c*")])


def test_the_command_reports_several_sweeps_together_and_says_what_is_wrong(tmp_path: Path, start: Start) -> None:
    write_sweep(tmp_path / "multirun" / "a", {0.1: [0.2, 0.3]})
    write_sweep(tmp_path / "multirun" / "b", {0.01: [0.5]})
    run = start("multirun/a", "multirun/b", program=REPORT)
    assert run.end() == 0, run.text
    (folder,) = (tmp_path / "multirun").glob("report-*")
    assert [row[1] for row in table((folder / "report.md").read_text())] == ["lr", "0.01", "0.1"]
    assert not (tmp_path / "multirun" / "a" / "report.md").exists()
    run = start("multirun/*", "--output", "both", program=REPORT)  # the report's own folder holds no run
    assert run.end() == 0, run.text
    assert len(table((tmp_path / "both" / "report.md").read_text())) == 3
    for words, message in ((["absent"], "absent: there is no such folder."), (["both"], "There is no run in both.")):
        run = start(*words, program=REPORT)
        assert (run.end(), run.errors) == (1, message + "\n")


def test_a_sweep_ends_with_its_report_also_after_a_job_failed(tmp_path: Path, command: Command) -> None:
    result = command(
        "-m", *QUIET, "+model.dropout=0.1,-1", "seed=range(0,2)", "data.val_size=20", "hydra.sweep.dir=sweep"
    )
    assert result.returncode == 1
    text = (tmp_path / "sweep" / "report.md").read_text()
    accuracies = [read_summary(tmp_path / "sweep" / str(number))["val_accuracy"] for number in range(2)]
    shown = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
    assert table(text)[1][:4] == ["1", "0.1", "2", f"{shown} %"]
    assert table(text)[2][:3] == ["2", "-1", "0"]
    assert table(text)[2][5] == "2 failed"
    assert "dropout probability has to be between 0 and 1" in text
    assert "data.val_size=20" in text
    assert "Report: sweep/report.md" in result.stdout


def test_a_cut_sweep_is_reported_with_the_jobs_to_come(tmp_path: Path, start: Start) -> None:
    run = start("-m", *QUIET, *SLOW, "epochs=3", "lr=0.1,0.01,0.001", "hydra.sweep.dir=sweep")
    run.wait_for("Job 1 starts")
    run.wait_for(r"Epoch \[1/3\], Step \[2/8\]")
    run.send(signal.SIGTERM)
    assert run.end() == 143
    assert not (tmp_path / "sweep" / "report.md").exists()
    again = start("sweep", program=REPORT)
    assert again.end() == 0, again.text
    rows = table((tmp_path / "sweep" / "report.md").read_text())
    assert [row[4] for row in rows[1:]] == ["1 completed", "1 interrupted", "1 pending"]
    assert "No validation images were held out" in again.output


def test_a_report_that_cant_be_made_only_warns(tmp_path: Path, command: Command) -> None:
    (tmp_path / "sweep" / "report.md").mkdir(parents=True)
    result = command("-m", *QUIET, "seed=0,1", "data.val_size=20", "hydra.sweep.dir=sweep")
    assert result.returncode == 0, result.stderr
    assert "The report could not be made: IsADirectoryError" in result.stdout
    assert "Try again: cifar report sweep" in result.stdout


@pytest.mark.slow
def test_a_thousand_runs_of_a_hundred_epochs_are_reported_in_half_a_minute_and_a_gigabyte(
    tmp_path: Path, start: Start
) -> None:
    sweep = tmp_path / "sweep"
    write_sweep(sweep, {round(0.001 * number, 3): [0.01 * seed for seed in range(10)] for number in range(1, 101)})
    write_metrics(sweep / "0", 100, 10)
    for number in range(1, 1000):
        (sweep / str(number) / "metrics.jsonl").hardlink_to(sweep / "0" / "metrics.jsonl")
    run = start("sweep", program=("-m", "tests.measured_report"))
    assert run.end() == 0, run.text
    seconds, mebibytes = json.loads(run.output.splitlines()[-1])
    print(f"{seconds:.1f} s, {mebibytes:.0f} MiB")
    assert seconds < 30
    assert mebibytes < 1024


def test_a_closed_pipe_ends_the_command_without_a_word(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.1, 0)
    command = [sys.executable, "-u", "-m", "cifar", "report", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == CLOSED_PIPE
