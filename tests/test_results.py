"""Sentences and tables of docs/results.md against the committed figures that they tell of."""

import csv
import re
from statistics import fmean

import pytest

from cifar.experiment.config import config_hash, resolve
from cifar.reports.runs.statistics import compare, holm, interval
from tests.conftest import ROOT, Compose, read_metrics, read_summary

RESULTS = (ROOT / "docs" / "results.md").read_text()
MULTIRUN = ROOT / "multirun"


def points(folder: str, name: str, column: str = "val_accuracy") -> dict[str, dict[int, float]]:
    """Return the seeds' accuracies at every value of what was swept."""
    found: dict[str, dict[int, float]] = {}
    with (MULTIRUN / folder / "runs.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["status"] == "completed"
            found.setdefault(row[name], {})[int(row["seed"])] = float(row[column])
    return found


def row_of(first: str) -> list[str]:
    """Return the cells of the table's row that begins so."""
    (line,) = re.findall(rf"^\| {re.escape(first)} \|.*$", RESULTS, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


def with_interval(accuracies: dict[int, float]) -> str:
    found = interval([*accuracies.values()])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return f"{100 * found.mean:.2f} % ({100 * found.low:.2f}–{100 * found.high:.2f})"


def test_the_ablations_table_is_that_of_its_runs() -> None:
    validation, test = (points("ablation", "experiment", f"{part}_accuracy") for part in ("val", "test"))
    assert {name: len(seeds) for name, seeds in validation.items()} == dict.fromkeys(validation, 5)
    others = [name for name in validation if name != "ablation"]
    found = {name: compare(validation[name], validation["ablation"]) for name in others}
    p_values = [0.0 if each is None or each.p_value is None else each.p_value for each in found.values()]
    corrected = dict(zip(others, holm(p_values), strict=True))
    for name in validation:
        cells = row_of(f"`{name}`")
        assert (cells[2], cells[6]) == (with_interval(validation[name]), with_interval(test[name]))
    for name, p_value in zip(others, p_values, strict=True):
        comparison = found[name]
        assert comparison is not None
        expected = f"{100 * comparison.difference:+.2f} points".replace("-", "−")
        assert row_of(f"`{name}`")[3:6] == [expected, f"{p_value:.2g}", f"{corrected[name]:.2g}"]


def test_what_is_said_of_the_ablation_holds() -> None:
    validation = points("ablation", "experiment")
    base = validation.pop("ablation")
    found = {name: compare(seeds, base) for name, seeds in validation.items()}
    p_values = holm([1.0 if each is None or each.p_value is None else each.p_value for each in found.values()])
    told = {name for name, p_value in zip(found, p_values, strict=True) if p_value < 0.05}
    assert told == {f"ablation_{name}" for name in ("cutout", "trivial", "mixup", "cutmix")}
    losses = [100 * (fmean(base.values()) - fmean(validation[name].values())) for name in told]
    assert 2 <= min(losses) <= max(losses) <= 3.5
    rows = [row for job in range(5) for row in read_metrics(MULTIRUN / f"ablation/{job}")]
    last = [row["train/epoch_accuracy"] for row in rows if row["epoch"] == 2 and "train/epoch_accuracy" in row]
    assert len(last) == 5
    assert 100 * fmean(last) == pytest.approx(80.2, abs=0.05)
    assert 100 * fmean(base.values()) == pytest.approx(85.4, abs=0.05)


def test_ten_minutes_are_what_its_three_runs_were(compose: Compose) -> None:
    runs = [read_summary(MULTIRUN / f"resnet18_10min/final/{seed}") for seed in range(3)]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    for run in runs:
        assert run["config_hash"] == config_hash(resolve(compose("experiment=resnet18_10min", f"seed={run['seed']}")))
    cells = row_of("`resnet18_10min`")
    plain, views = ({run["seed"]: run[key] for run in runs} for key in ("test_accuracy", "test_tta_accuracy"))
    assert cells[3] == with_interval(plain)
    assert cells[4] == f"**{with_interval(views)}**, six views"
    seconds = [run["train_seconds"] for run in runs]
    assert cells[5] == f"{min(seconds):.0f}–{max(seconds):.0f} s"
    assert max(seconds) < 600


@pytest.mark.parametrize(
    ("run", "percent"),
    [("optimizers/0", 86.2), ("optimizers/1", 81.6), ("optimizers/2", 85.7), ("widths/0", 91.3), ("widths/1", 91.6)],
)
def test_the_steps_to_the_recipe_of_ten_minutes_are_told_as_they_were(run: str, percent: float) -> None:
    summary = read_summary(MULTIRUN / "resnet18_10min" / run)
    assert 100 * summary["val_accuracy"] == pytest.approx(percent, abs=0.05)
    (section,) = re.findall(r"^## Ten minutes.*?(?=^## )", RESULTS, re.MULTILINE | re.DOTALL)
    assert f"{percent} %" in section
    if run.startswith("widths"):
        assert f"after {summary['train_seconds']:,.0f} s" in section
