"""Sentences and tables of docs/results.md against the committed figures that they tell of."""

import csv
import json
import re
from decimal import Decimal
from statistics import fmean, median, stdev

import pytest
from scipy import stats

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
    "beat_report_resnet50": ("beat_report/resnet50", 3, 1800),
    "beat_report_vgg16": ("beat_report/vgg16", 3, 3600),
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
    if name != "resnet18_10min":
        told = row_of(f"`{name}`")
        best = next(cell for cell in told if cell.startswith("**"))
        assert f"| `cifar run experiment={name}` | {count} | {best} | {cells[5]} |" in README


@pytest.mark.parametrize(
    ("model", "report", "num_weights"), [("resnet50", 0.8278, 14_750_730), ("vgg16", 0.8605, 14_983_498)]
)
def test_the_reports_accuracies_are_beaten_by_every_seed(model: str, report: float, num_weights: int) -> None:
    runs = [read_summary(MULTIRUN / f"beat_report/{model}/{seed}") for seed in range(3)]
    assert min(run["test_accuracy"] for run in runs) > report
    assert {run["num_parameters"] for run in runs} == {num_weights}
    above = 100 * (fmean(run["test_accuracy"] for run in runs) - report)
    assert f"{above:.2f} points above the report's {100 * report:.2f} %" in RESULTS


def test_the_recipe_of_six_epochs_is_told_as_it_was() -> None:
    run, text = read_summary(MULTIRUN / "beat_report/resnet50_six_epochs"), " ".join(RESULTS.split())
    told = f"took {run['train_seconds']:.0f} s and ended at {100 * run['test_accuracy']:.2f} % of the test images"
    assert f"{told} ({100 * run['test_tta_accuracy']:.2f} % with six views" in text
    first, earlier = (
        next(row["time_seconds"] for row in read_metrics(MULTIRUN / "beat_report" / folder) if row["step"] == 100)
        for folder in ("resnet50/0", "resnet50_six_epochs")
    )
    assert f"the first epoch takes {first:.0f} s instead of {earlier:.0f}" in text


@pytest.mark.parametrize(
    ("search", "title"), [("resnet50_search_sgd", "SGD"), ("resnet50_search", "Muon"), ("vgg16_search", "best")]
)
def test_the_searches_for_the_reports_accuracies_are_told_as_they_were(search: str, title: str) -> None:
    with (MULTIRUN / "beat_report" / search / "runs.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "completed"]
    accuracies = [100 * float(row["val_accuracy"]) for row in rows]
    link = f"[{title}](../multirun/beat_report/{search}/report.md)"
    (line,) = [line for line in RESULTS.splitlines() if link in line]
    if title == "best":
        assert f"had {max(accuracies):.2f} % of the validation" in line
        assert len(rows) == 3
    else:
        seconds = [float(row["train_seconds"]) for row in rows]
        cells = f"{max(accuracies):.2f} %, {min(accuracies):.2f} % | {min(seconds):.0f}–{max(seconds):.0f}"
        assert f"| {cells} |" in line


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


Points = dict[tuple[float, str], dict[int, float]]
REPORTS_RATE = (0.001, "kept")


def points_of_question(name: str, part: str, model: str = "resnet50") -> Points:
    """Return the seeds' accuracies at every learning rate, kept or decayed, of a part of the report's question."""
    found: Points = {}
    with (MULTIRUN / "lr_question" / name / "runs.csv").open() as file:
        for row in csv.DictReader(file):
            if row.get("model", model) == model:
                assert row["status"] in ("completed", "diverged")
                form = {"constant": "kept", "cosine": "decayed"}[row["schedule"]]
                found.setdefault((float(row["lr"]), form), {})[int(row["seed"])] = float(row[f"{part}_accuracy"])
    return dict(sorted(found.items()))


def against_the_reports_rate(validation: Points) -> dict[tuple[float, str], tuple[Comparison, float]]:
    """Return each point's comparison with the same epochs at 0.001, kept, and its p value corrected (Holm)."""
    others = {point: seeds for point, seeds in validation.items() if point != REPORTS_RATE}
    found = {point: compare(seeds, validation[REPORTS_RATE]) for point, seeds in others.items()}
    comparisons = {point: comparison for point, comparison in found.items() if comparison is not None}
    p_values = [comparison.p_value for comparison in comparisons.values() if comparison.p_value is not None]
    assert len(p_values) == len(others)
    return dict(zip(comparisons, zip(comparisons.values(), holm(p_values), strict=True), strict=True))


def rows_of_question(name: str, title: str, is_compared: bool) -> list[str]:
    """Return the rows of docs/results.md on a part of the report's question, for the model that begins the title."""
    model = title.partition(",")[0]
    validation, test = (points_of_question(name, part, model) for part in ("val", "test"))
    against = against_the_reports_rate(validation) if is_compared else {}
    rows = []
    for (lr, form), seeds in validation.items():
        cells = [f"{title}, {Decimal(str(lr)):f}, {form}", f"{len(seeds)}", with_interval(seeds)]
        if (lr, form) in against:
            comparison, corrected = against[lr, form]
            cells += [*difference_cells(comparison), f"{corrected:.2g}"]
        elif is_compared:
            cells += ["–"] * 3
        rows.append(f"| {' | '.join([*cells, with_interval(test[lr, form])])} |")
    return rows


PARTS_OF_QUESTION = [
    ("gpu/adam", "resnet50, Adam", True),
    ("gpu/adam", "vgg16, Adam", True),
    ("gpu/five", "resnet50, Adam, five epochs", True),
    ("gpu/five", "vgg16, Adam, five epochs", True),
    ("gpu/sgd", "resnet50, SGD", False),
    ("gpu/sgd", "vgg16, SGD", False),
    ("resnet50", "resnet50, Adam, on two cores", True),
]


@pytest.mark.parametrize(("name", "title", "is_compared"), PARTS_OF_QUESTION)
def test_the_tables_of_the_reports_question_are_those_of_its_runs(name: str, title: str, is_compared: bool) -> None:
    rows = rows_of_question(name, title, is_compared)
    assert "\n".join(rows) in RESULTS
    assert RESULTS.count(f"| {title}, 0") == len(rows)


def answer_to_the_question() -> str:
    (answer,) = re.findall(r"^\*\*Not in one more epoch\..*?(?=^```)", RESULTS, re.MULTILINE | re.DOTALL)
    return " ".join(str(answer).split())


GPU = MULTIRUN / "lr_question/gpu"
BOTH = ("resnet50", "vgg16")
BEFORE = [read_summary(GPU / f"plateau_{model}")["val_accuracy"] for model in BOTH]


def seeds_of(part: str, model: str, lr: float, form: str) -> dict[int, float]:
    return points_of_question(f"gpu/{part}", "val", model)[lr, form]


def means_of_both(part: str, lr: float, form: str) -> list[float]:
    """Return both models' mean validation accuracies at a point."""
    return [fmean(seeds_of(part, model, lr, form).values()) for model in BOTH]


def percents(values: list[float]) -> str:
    """Return two accuracies as the text has them, such as "63.25 and 74.44 %"."""
    return f"{100 * values[0]:.2f} and {100 * values[1]:.2f} %"


def compared(part: str, model: str, form: str, num_pairs: int) -> tuple[float, float, float, float]:
    """Return by how many points 0.003 is above 0.001, the ends of that interval, and p; paired by seed."""
    comparison = compare(*(seeds_of(part, model, lr, form) for lr in (0.003, 0.001)))
    assert comparison is not None
    assert comparison.ends is not None
    assert comparison.p_value is not None
    assert (comparison.kind, comparison.counts) == ("paired", (num_pairs, num_pairs))
    return 100 * comparison.difference, 100 * comparison.ends[0], 100 * comparison.ends[1], comparison.p_value


def test_the_answer_says_what_one_more_epoch_did() -> None:
    answer = answer_to_the_question()
    assert f"have {100 * BEFORE[0]:.2f} % (resnet50) and {100 * BEFORE[1]:.2f} % (vgg16) of the" in answer
    kept = {lr: means_of_both("adam", lr, "kept") for lr in (0.001, 0.003)}
    assert f"of 0.001 leaves {percents(kept[0.001])}, at 0.003 {percents(kept[0.003])}:" in answer
    words, corrections = [], []
    for model in BOTH:
        points, low, high, p_value = compared("adam", model, "kept", 5)
        before = "95 % interval " * (model == BOTH[0])
        words.append(f"{-points:.2f} points less ({before}{-high:.2f} to {-low:.2f}, p = {p_value:.2g})")
        against = against_the_reports_rate(points_of_question("gpu/adam", "val", model))
        assert len(against) == 11
        corrections.append(f"{against[0.003, 'kept'][1]:.2g}")
    assert f"{' and '.join(words)}, five pairs of runs each ({' and '.join(corrections)}, corrected for" in answer
    above = [fmean(seeds.values()) - start for model, start in zip(BOTH, BEFORE, strict=True)
             for seeds in points_of_question("gpu/adam", "val", model).values()]  # fmt: skip
    assert f"no point is more than {100 * max(above):.2f} points above its checkpoint" in answer


def test_the_answer_says_what_five_more_epochs_did() -> None:
    answer = answer_to_the_question()
    kept, decayed = ({lr: means_of_both("five", lr, form) for lr in (0.001, 0.003)} for form in ("kept", "decayed"))
    assert f"constant rate leave {percents(kept[0.001])} at 0.001, {percents(kept[0.003])} at 0.003." in answer
    gains = []
    for model, start in zip(BOTH, BEFORE, strict=True):
        above = [100 * (accuracy - start) for accuracy in seeds_of("five", model, 0.001, "decayed").values()]
        low, high = stats.ttest_1samp(above, 0).confidence_interval()
        assert low > 0
        gains.append(f"{fmean(above):.2f} ({low:.2f} to {high:.2f})")
    assert f"{percents(decayed[0.001])}, which is {gains[0]} and {gains[1].replace(' (', ' points (')} more" in answer
    points, low, high, p_value = compared("five", "resnet50", "decayed", 3)
    there = f"gives resnet50 {100 * decayed[0.003][0]:.2f} %, {-points:.2f} points less than 0.001 "
    assert f"{there}({-high:.2f} to {-low:.2f}, p = {p_value:.2g}, three pairs)" in answer
    points, low, high, p_value = compared("five", "vgg16", "decayed", 3)
    there = f"and vgg16 {100 * decayed[0.003][1]:.2f} %, {points:.2f} points more "
    assert f"{there}({signed(low / 100).lstrip('+')} to {high:.2f}, p = {p_value:.2g})" in answer


def test_what_the_answer_begins_with_holds() -> None:
    """Not in one more epoch; over five not for ResNet50; and for VGG16 no difference that can be told."""
    for form in ("kept", "decayed"):
        for model in BOTH:
            assert compared("adam", model, form, 5)[2] < 0
        assert compared("five", "resnet50", form, 3)[2] < 0
        _, low, high, _ = compared("five", "vgg16", form, 3)
        assert low < 0 < high


def test_the_readme_says_what_the_runs_say() -> None:
    readme = " ".join(README.split())
    assert f"with {percents(BEFORE)} of the validation images right" in readme
    for lr in (0.001, 0.003):
        assert f"{percents(means_of_both('adam', lr, 'kept'))} at {lr}" in readme
        assert f"{percents(means_of_both('five', lr, 'decayed'))} from {lr}" in readme


def test_the_answer_on_two_cores_is_what_its_runs_say() -> None:
    before = read_summary(MULTIRUN / "lr_question/plateau_resnet50")["val_accuracy"]
    validation = points_of_question("resnet50", "val")
    report, larger = (validation[lr, "kept"] for lr in (0.001, 0.003))
    comparison, corrected = against_the_reports_rate(validation)[0.003, "kept"]
    assert (
        f"with {100 * before:.2f} % of the validation images right. It pointed the same way: 0.001 brings it to "
        f"{100 * fmean(report.values()):.2f} % (five seeds), 0.003 to {100 * fmean(larger.values()):.2f} % "
        f"(three seeds; p = {comparison.p_value:.2g}, corrected {corrected:.2g})." in RESULTS
    )
    assert (len(report), len(larger)) == (5, 3)


def test_the_questions_checkpoints_had_flattened() -> None:
    text = " ".join(RESULTS.split())
    for folder, words in (
        (GPU / "plateau_resnet50", "In the last five epochs their validation accuracy was {} % for resnet50"),
        (GPU / "plateau_vgg16", "{} % for vgg16"),
        (MULTIRUN / "lr_question/plateau_resnet50", "In the checkpoint's last five epochs it had {} %"),
    ):
        last = [row["val/accuracy"] for row in read_metrics(folder) if "val/accuracy" in row][-5:]
        assert words.format(f"{100 * min(last):.2f} to {100 * max(last):.2f}") in text
        assert max(last) - min(last) < 0.0065
        losses = [row["train/epoch_loss"] for row in read_metrics(folder) if "train/epoch_loss" in row][-5:]
        assert losses == sorted(losses, reverse=True)
    test = [read_summary(GPU / f"plateau_{model}")["test_accuracy"] for model in BOTH]
    assert f"They have {percents(test)} of the test images right" in text
    alone = read_summary(MULTIRUN / "lr_question/plateau_resnet50")["test_accuracy"]
    assert f"it has {100 * alone:.2f} % of the test images" in text
    with (MULTIRUN / "lr_question/resnet50/runs.csv").open() as file:
        seconds = [float(row["train_seconds"]) for row in csv.DictReader(file)]
    assert f"with a thread each, {min(seconds):.0f} to {max(seconds):.0f} s an" in text


def test_as_many_runs_were_made_as_is_said() -> None:
    num_runs = len(list(GPU.glob("*/*/summary.json")))
    assert f"the {num_runs} runs five and a half minutes" in RESULTS
    rows = [line for part in ("adam", "sgd", "five") for line in (GPU / part / "runs.csv").read_text().splitlines()[1:]]
    assert len(rows) == num_runs


def test_the_short_measurement_settles_the_lean() -> None:
    runs = {kind: [read_summary(MULTIRUN / f"same_numbers/short_{kind}/{seed}") for seed in range(24)]
            for kind in ("fast", "plain")}  # fmt: skip
    for kind, title in (("fast", "`run.py`"), ("plain", "torch's own forms")):
        cells = []
        for key, scale, digits, unit in (("train_loss", 1, 3, ""), ("test_accuracy", 100, 2, " %")):
            values = [scale * run[key] for run in runs[kind]]
            half = stats.t.ppf(0.975, 23) * stdev(values) / 24**0.5
            cells.append(f"{fmean(values):.{digits}f} ± {half:.{digits}f}{unit}")
        assert f"| resnet50, {title}, 100 steps | 24 | {' | '.join(cells)} | {stdev(values):.2f} points |" in RESULTS
        assert {run["steps"] for run in runs[kind]} == {100}
    text = " ".join(RESULTS.split())
    found = {key: stats.ttest_rel(*([run[key] for run in runs[kind]] for kind in ("fast", "plain")))
             for key in ("test_accuracy", "train_loss", "test_loss")}  # fmt: skip
    differences = {key: fmean(fast[key] - plain[key] for fast, plain in zip(*runs.values(), strict=True))
                   for key in found}  # fmt: skip
    low, high = found["test_accuracy"].confidence_interval()
    said = f"is {signed(differences['test_accuracy'])} points (95 % interval {signed(low)} to {signed(high)}, "
    said += f"p = {found['test_accuracy'].pvalue:.2f}), of the training losses "
    said += f"{differences['train_loss']:+.3f} (p = {found['train_loss'].pvalue:.2f}), of the test losses "
    said += f"{differences['test_loss']:+.3f} (p = {found['test_loss'].pvalue:.2f})"
    assert said.replace("-", "−") in text
    assert -low < 0.029 / 4


def test_the_short_measurement_would_have_seen_the_lean() -> None:
    accuracies = [[100 * read_summary(MULTIRUN / f"same_numbers/short_{kind}/{seed}")["test_accuracy"]
                   for seed in range(24)] for kind in ("fast", "plain")]  # fmt: skip
    of_pairs = stdev(fast - plain for fast, plain in zip(*accuracies, strict=True))
    alone = (fmean(stdev(values) ** 2 for values in accuracies) * 2) ** 0.5
    assert f"differences have a standard deviation of {of_pairs:.2f})" in " ".join(RESULTS.split())
    for points, spread, freedom in ((0.60, of_pairs, 23), (1.29, alone, 46)):
        limit, shift = stats.t.ppf(0.975, freedom), points / (spread / 24**0.5)
        assert stats.nct.sf(limit, freedom, shift) == pytest.approx(0.8, abs=0.015)


GPU_PAGE = (ROOT / "docs/gpu.md").read_text()


def test_the_steps_on_a_gpu_are_those_that_were_timed() -> None:
    files = [MULTIRUN / "gpu_h200" / name for name in ("bench.jsonl", "bench_recorded.jsonl")]
    results = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    shares = []
    for result in results:
        model, is_recorded = result["words"][0].partition("=")[2], "device.graph=true" in result["words"]
        low, *_, high = sorted(result["ratios"])
        ours = "recorded" if is_recorded else "as it is"
        ratio = f"**{median(result['ratios']):.2f}** ({low:.2f}–{high:.2f})"
        for name, what, last in (("plain", "plain loop", ""), ("run.py", ours, ratio)):
            seconds = median(turn[name]["total"] for turn in result["rounds"]) / result["num_steps"]
            cells = [f"{1000 * seconds:.1f}", f"{100 / seconds:,.0f}", f"{result['peak_bytes'][name] / 2**30:.2f} GiB"]
            assert f"| {model} | {what} | {' | '.join(cells)} | {last} |" in GPU_PAGE
        shares.append(fmean(turn["plain"]["loading"] / turn["plain"]["total"] for turn in result["rounds"]))
    assert f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % goes into loading" in GPU_PAGE
    assert len(results) == 5


def test_the_two_seconds_on_a_gpu_are_what_was_timed() -> None:
    (result,) = json.loads((MULTIRUN / "gpu_h200/speedrun94.json").read_text())["results"]
    ours = {run["seed"]: (run["tta_accuracy"], run["seconds"]) for run in result["runs"]}
    package = json.loads((MULTIRUN / "gpu_h200/airbench94.json").read_text())["runs"]
    theirs = {run["run"]: (run["tta_val_acc"], run["total_time_seconds"]) for run in package}
    for name, runs in (("`speedrun94` as published, recorded", ours), ("airbench94, its package", theirs)):
        accuracy = with_interval({number: accuracy for number, (accuracy, _) in runs.items()})
        seconds = [seconds for _, seconds in runs.values()]
        times = f"{fmean(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"
        assert f"| {name} | {len(runs)} | {accuracy} | {times} |" in GPU_PAGE
    assert f"The recording took {result['first']['warmup_seconds']:.1f} s" in GPU_PAGE
