"""Sentences and tables of docs/results.md against the committed figures that they tell of."""

import csv
import re
from decimal import Decimal
from statistics import fmean

import pytest

from cifar.experiment.config import config_hash, resolve
from cifar.reports.runs.statistics import Comparison, compare, holm, interval
from tests.conftest import ROOT, Compose, read_metrics, read_summary

RESULTS = (ROOT / "docs" / "results.md").read_text()
README = (ROOT / "README.md").read_text()
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


def signed(points: float) -> str:
    return f"{100 * points:+.2f}".replace("-", "−")


def difference_cells(comparison: Comparison) -> list[str]:
    """Return a paired difference with its interval, in points, and its p value."""
    assert comparison.ends is not None
    low, high = map(signed, comparison.ends)
    return [f"{signed(comparison.difference)} ({low} to {high})", f"{comparison.p_value:.2g}"]


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


RECIPES = {  # of docs/results.md: the folder of the runs, their number, and the seconds that training may take
    "speedrun86": ("speedrun86", 5, 90),
    "speedrun90": ("speedrun90", 5, 180),
    "speedrun94": ("speedrun94", 5, 600),
    "resnet18_10min": ("resnet18_10min/final", 3, 600),
}
VIEWS = {"mirror": "mirror", "mirror_translate": "six views"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_row_is_what_its_runs_were(name: str, compose: Compose) -> None:
    folder, count, limit = RECIPES[name]
    runs = [read_summary(MULTIRUN / folder / f"{seed}") for seed in range(count)]
    assert [run["seed"] for run in runs] == [*range(count)]
    for run in runs:
        assert run["config_hash"] == config_hash(resolve(compose(f"experiment={name}", f"seed={run['seed']}")))
    cells = [cell.replace("**", "") for cell in row_of(f"`{name}`")]
    plain, with_views = ({run["seed"]: run[key] for run in runs} for key in ("test_accuracy", "test_tta_accuracy"))
    tta = VIEWS[compose(f"experiment={name}").tta]
    assert cells[2:5] == [f"{count}", with_interval(plain), f"{with_interval(with_views)}, {tta}"]
    for part, cell in zip(("train", "eval"), cells[5:], strict=True):
        seconds = [run[f"{part}_seconds"] for run in runs]
        assert cell == f"{min(seconds):.0f}–{max(seconds):.0f} s"
    assert max(run["train_seconds"] for run in runs) <= limit
    if name.startswith("speedrun"):
        told = row_of(f"`{name}`")
        best = next(cell for cell in told if cell.startswith("**"))
        assert f"| `cifar run experiment={name}` | {count} | {best} | {cells[5]} |" in README


FP32 = {"speedrun86": (5, "mirror"), "speedrun90": (5, "six views"), "speedrun94": (3, "six views")}


@pytest.mark.parametrize("name", FP32)
def test_a_recipes_row_in_fp32_is_what_its_runs_were(name: str) -> None:
    count, tta = FP32[name]
    runs = [read_summary(MULTIRUN / f"speedrun_fp32/{name}/{seed}") for seed in range(count)]
    plain, with_views = ({run["seed"]: run[key] for run in runs} for key in ("test_accuracy", "test_tta_accuracy"))
    seconds = [run["train_seconds"] for run in runs]
    cells = [f"{count}", with_interval(plain), f"{with_interval(with_views)}, {tta}"]
    cells.append(f"{min(seconds):,.0f}–{max(seconds):,.0f} s")
    assert row_of(f"`{name}`, fp32")[2:6] == cells


def test_bf16_is_as_much_faster_as_is_said() -> None:
    runs = [[read_summary(MULTIRUN / folder / f"{seed}") for seed in range(2)]
            for folder in ("speedrun_fp32/speedrun86_beside", "speedrun86")]  # fmt: skip
    accuracies, seconds = ([run[key] for run in runs[0]] for key in ("test_accuracy", "train_seconds"))
    low, high = sorted(seconds)
    worst, best = sorted(accuracies)
    said = f"{low:.0f} and {high:.0f} s in fp32 (two seeds: {100 * worst:.2f} and {100 * best:.2f} %)"
    assert f"{said}, so bf16 is 1.65 times as fast" in RESULTS
    assert fmean(seconds) / fmean(run["train_seconds"] for run in runs[1]) == pytest.approx(1.65, abs=0.005)


def test_what_costs_less_is_what_was_searched() -> None:
    sizes = points("speedrun_search/sizes", "data.size_schedule")
    widths = points("speedrun_search/widths", "model.widths")
    base = sizes.pop("")
    assert row_of("32")[1:3] == ["64, 256, 256: the recipe", with_interval(base)]
    found = {(size.strip("[]"), "64, 256, 256"): seeds for size, seeds in sizes.items()}
    found |= {("24, 32", width.strip("[]")): seeds for width, seeds in widths.items()}
    assert len(found) == 5
    for (size, width), seeds in found.items():
        comparison = compare(seeds, base)
        assert comparison is not None
        assert row_of(f"{size} | {width}")[2:5] == [with_interval(seeds), *difference_cells(comparison)]
    for form, said in (("small", "93.52 % of the validation images in 860 s"), ("full", "93.34 % in 942 s")):
        run = read_summary(MULTIRUN / f"speedrun_search/longer_{form}")
        assert said.startswith(f"{100 * run['val_accuracy']:.2f} %")
        assert said.endswith(f"in {run['train_seconds']:.0f} s")
        assert said in RESULTS


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


def points_of_question(name: str, part: str) -> dict[tuple[float, str], dict[int, float]]:
    """Return the seeds' accuracies at every learning rate, kept or decayed, of a part of the report's question."""
    found: dict[tuple[float, str], dict[int, float]] = {}
    with (MULTIRUN / "lr_question" / name / "runs.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["status"] == "completed"
            form = {"constant": "kept", "cosine": "decayed"}[row["schedule"]]
            found.setdefault((float(row["lr"]), form), {})[int(row["seed"])] = float(row[f"{part}_accuracy"])
    return dict(sorted(found.items()))


REPORTS_RATE = (0.001, "kept")


def against_the_reports_rate(name: str) -> dict[tuple[float, str], tuple[Comparison, float]]:
    """Return each point's comparison with one more epoch at 0.001, by validation, and its p value corrected (Holm)."""
    validation = points_of_question(name, "val")
    base = validation.pop(REPORTS_RATE)
    found = {point: compare(seeds, base) for point, seeds in validation.items()}
    comparisons = {point: comparison for point, comparison in found.items() if comparison is not None}
    p_values = [comparison.p_value for comparison in comparisons.values() if comparison.p_value is not None]
    assert len(p_values) == len(validation)
    return dict(zip(comparisons, zip(comparisons.values(), holm(p_values), strict=True), strict=True))


def rows_of_question(name: str, title: str) -> list[str]:
    """Return the rows of docs/results.md on a part of the report's question."""
    validation, test = (points_of_question(name, part) for part in ("val", "test"))
    against, rows = against_the_reports_rate(name), []
    for (lr, form), seeds in validation.items():
        cells = [f"{title}, {Decimal(str(lr)):f}, {form}", f"{len(seeds)}", with_interval(seeds)]
        if (lr, form) in against:
            comparison, corrected = against[lr, form]
            cells += [*difference_cells(comparison), f"{corrected:.2g}"]
        else:
            cells += ["–"] * 3
        rows.append(f"| {' | '.join([*cells, with_interval(test[lr, form])])} |")
    return rows


PARTS_OF_QUESTION = {"resnet50": "resnet50, Adam"}


@pytest.mark.parametrize("name", PARTS_OF_QUESTION)
def test_the_tables_of_the_reports_question_are_those_of_its_runs(name: str) -> None:
    for row in rows_of_question(name, PARTS_OF_QUESTION[name]):
        assert row in RESULTS


def test_the_answer_to_the_reports_question_is_what_its_runs_say() -> None:
    (answer,) = re.findall(r"^\*\*No\..*?\n\n", RESULTS, re.MULTILINE | re.DOTALL)
    before = read_summary(MULTIRUN / "lr_question/plateau_resnet50")["val_accuracy"]
    assert f"has {100 * before:.2f} % of the validation images right" in answer
    points = points_of_question("resnet50", "val")
    means = {point: fmean(seeds.values()) for point, seeds in points.items()}
    for lr in (0.001, 0.003):
        assert (
            f"{100 * means[lr, 'kept']:.2f} % ({['three', 'four', 'five'][len(points[lr, 'kept']) - 3]} seeds)"
            in answer
        )
        assert means[lr, "kept"] < means[lr, "decayed"] < before
        assert f"{lr} gives {100 * means[lr, 'decayed']:.2f} %" in answer
    intervals = [interval([*points[lr, "kept"].values()]) for lr in (0.001, 0.003)]
    ends = [found.high for found in intervals if found is not None and found.high is not None]
    assert f"their intervals, kept, end at {100 * ends[0]:.2f} and {100 * ends[1]:.2f} %" in answer
    assert max(ends) < before
    comparison, corrected = against_the_reports_rate("resnet50")[0.003, "kept"]
    assert comparison.ends is not None
    low, high = (-100 * end for end in reversed(comparison.ends))
    assert f"{-100 * comparison.difference:.2f} points less, 95 % interval {low:.2f} to {high:.2f}" in answer
    both = f"p = {comparison.p_value:.2g}, paired ({corrected:.2g}, corrected for the table's eleven comparisons)"
    assert both in answer
    percent = [f"{100 * value:.2f} %" for value in (before, means[0.001, "kept"], means[0.003, "kept"])]
    assert f"with {percent[0]} of the validation images right, brings" in README
    assert f"to {percent[1]} at 0.001 and to {percent[2]} at 0.003; at 0.00001 it stays" in README
    kept, decayed = means[0.00001, "kept"], means[0.00001, "decayed"]
    assert f"at 0.00001 {100 * kept:.2f} % kept and {100 * decayed:.2f} % decayed" in answer
    assert sorted(means, key=lambda point: means[point])[-3:] == [(1e-5, "kept"), (1e-4, "decayed"), (1e-5, "decayed")]
    assert max(abs(kept - before), abs(decayed - before)) < 0.002


def test_the_questions_checkpoint_had_flattened() -> None:
    folder = MULTIRUN / "lr_question/plateau_resnet50"
    last = [row["val/accuracy"] for row in read_metrics(folder) if "val/accuracy" in row][-5:]
    assert f"in its last five epochs {100 * min(last):.2f} to {100 * max(last):.2f} %" in RESULTS
    assert f"It has {100 * read_summary(folder)['test_accuracy']:.2f} % of" in RESULTS
    with (MULTIRUN / "lr_question/resnet50/runs.csv").open() as file:
        seconds = [float(row["train_seconds"]) for row in csv.DictReader(file)]
    assert f"with a thread each, {min(seconds):.0f} to {max(seconds):.0f} s an" in RESULTS
