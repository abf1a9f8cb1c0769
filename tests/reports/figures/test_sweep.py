"""The report's figures, read back from matplotlib's own objects."""

import hashlib
import json
import math
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.text import Text

from cifar.reports.figures.accuracy import draw_accuracy
from cifar.reports.figures.drawing import COLOURS, GREY, plain_style, safe, save
from cifar.reports.figures.study import draw_importances
from cifar.reports.figures.sweep import band, draw_curves, draw_figures, draw_heatmap, heatmap_keys, mean_curve
from cifar.reports.findings.wording import short_names, shorten
from cifar.reports.runs.reading import read_results
from cifar.reports.runs.results import Results
from tests.sweep_folders import write_metrics, write_run, write_sweep

RATES = {0.1: [0.20, 0.32, 0.29], 0.01: [0.50, 0.60, 0.55], 0.001: [0.48, 0.59, 0.55]}


def two_keys(folder: Path, num_rates: int = 3) -> Results:
    """Return the results of a sweep over optimizers and rates in which sgd diverged at the largest rate."""
    for number in range(2 * num_rates):
        optimizer, rate = ["adam", "sgd"][number // num_rates], 10.0 ** (number % num_rates - num_rates)
        facts: dict[str, Any] = {
            "overrides": [f"optimizer={optimizer}", f"lr={rate}"],
            "choices": {"optimizer": optimizer},
            "config_hash": str(number),
            "point": str(number),
            "val_accuracy": 0.1 + 0.1 * number,
            "status": "diverged" if number == 2 * num_rates - 1 else "completed",
        }
        write_run(folder / str(number), rate, 0, number, **facts)
    return read_results([folder])


def xs(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def ys(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def labels(canvas: Canvas) -> list[str]:
    return [text.get_text() for legend in canvas.legends for text in legend.get_texts()]


def test_accuracy_stands_at_its_rate_with_its_interval_as_bar(tmp_path: Path) -> None:
    write_sweep(tmp_path, RATES)
    results = read_results([tmp_path])
    canvas = draw_accuracy(results, "lr")
    (axes,) = canvas.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    (bars,) = axes.containers
    assert isinstance(bars, ErrorbarContainer)
    line, _, (segments,) = bars
    assert xs(line) == [0.001, 0.01, 0.1]
    assert ys(line) == pytest.approx([54, 55, 27])
    points = sorted(results.points, key=lambda point: float(point.values["lr"] or 0))
    for (low, high), point in zip(segments.get_segments(), points, strict=True):
        interval = point.interval("val_accuracy")
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        assert (low[1], high[1]) == pytest.approx((100 * interval.low, 100 * interval.high))
    (hollow,) = [other for other in axes.lines if other.get_fillstyle() == "none" and xs(other)]
    assert ys(hollow) == pytest.approx([50, 50, 50])
    assert axes.get_ylabel() == "accuracy (%)"
    assert labels(canvas) == ["validation", "test"]


def test_a_diverged_point_has_its_cross_at_its_place_and_the_best_comes_first(tmp_path: Path) -> None:
    canvas = draw_accuracy(two_keys(tmp_path), "lr")
    (cross,) = [line for line in canvas.axes[0].lines if line.get_marker() == "x" and xs(line)]
    assert xs(cross) == [0.1]
    assert ys(cross) == pytest.approx([60])
    assert labels(canvas) == ["optimizer=sgd", "optimizer=adam", "validation", "test", "a run diverged"]


def test_bars_end_at_what_an_accuracy_can_be_and_keep_their_caps(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.0, 0.01, 0.3], 0.01: [0.7, 0.99, 1.0]})
    (axes,) = draw_accuracy(read_results([tmp_path]), "lr").axes
    (bars,) = axes.containers
    assert isinstance(bars, ErrorbarContainer)
    _, caps, _ = bars
    ends = [value for cap in caps for value in ys(cap)]
    assert min(ends) >= 0
    assert max(ends) <= 100
    low, high = axes.get_ylim()
    assert low < min(ends)
    assert max(ends) < high
    assert (low, high) == (-3, 103)
    ticks = [float(tick) for tick in axes.get_yticks()]
    assert (ticks[0], ticks[-1]) == (0, 100)


def test_two_seeds_are_shown_themselves(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.2, 0.4], 0.01: [0.5, 0.6]})
    (axes,) = draw_accuracy(read_results([tmp_path]), "lr").axes
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [xs(line) for line in dots] == [[0.01, 0.01], [0.1, 0.1]]
    assert [y for line in dots for y in ys(line)] == pytest.approx([50, 60, 20, 40])


def overlaps(canvas: Canvas) -> list[tuple[str, str]]:
    """Return the neighbouring tick labels on an axis that touch each other as they are drawn."""
    with plain_style("test"):
        FigureCanvasAgg(canvas).draw()  # type: ignore[no-untyped-call]
    found = []
    for axes in canvas.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = [label for label in axis.get_ticklabels(which="both") if label.get_visible() and label.get_text()]
            boxes = [(label.get_window_extent(), label.get_text()) for label in shown]
            found += [(text, other) for (box, text), (next_box, other) in pairwise(boxes) if box.overlaps(next_box)]
    return found


def collisions(canvas: Canvas) -> list[tuple[str, str]]:
    """Return the texts of a figure that touch each other as they are drawn, and those that reach beyond it."""
    with plain_style("test"):
        FigureCanvasAgg(canvas).draw()  # type: ignore[no-untyped-call]
    texts = [text for text in canvas.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    boxes = [(text.get_window_extent(), text.get_text()) for text in texts]
    found = [(one, other) for (box, one), (second, other) in combinations(boxes, 2) if box.overlaps(second)]
    beyond = [(text, "edge") for box, text in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > canvas.bbox.x1]
    return found + beyond


def hard_sweep(folder: Path) -> Results:
    """Return the results over many rates and long names, three of which diverged, with curves of two seeds."""
    rates = [10 ** (-6 + 0.37 * place) for place in range(17)]
    names = [f"{'a_module.' * 6}{name}.Optimizer" for name in ("first", "second", "third")]
    for number, (name, rate, seed) in enumerate(product(names, rates, range(2))):
        config = {"lr": rate, "optimizer_with_a_long_name_of_its_own": name, "seed": seed}
        write_run(folder / str(number), rate, seed, number, val_accuracy=0.1 + 0.008 * number,
                  status="diverged" if rate == rates[-1] else "completed", config=config, config_hash=str(number),
                  point=f"{name}{rate}", overrides=[f"{key}={value}" for key, value in config.items()])  # fmt: skip
        write_metrics(folder / str(number), 7, 3)
    return read_results([folder])


@pytest.mark.parametrize("width", [None, 3.25, 6.75])
def test_no_text_touches_another_in_hard_cases(tmp_path: Path, width: float | None) -> None:
    results = hard_sweep(tmp_path)
    first, second = results.keys
    for canvas in (
        draw_accuracy(results, "lr", width),
        draw_curves(results, width),
        draw_heatmap(results, second, first, width),
        draw_importances(dict.fromkeys(["a" * 80, "optimizer.weight_decay", "lr"], 0.1), width),
    ):
        assert collisions(canvas) == []
        if width is not None:
            assert canvas.get_figwidth() == width


def test_bands_reach_from_the_lowest_to_the_highest_seed(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.5, 0.6, 0.7], 0.01: [0.4]})
    for seed, losses in enumerate([[1.0, 2.0, 3.0], [3.0, 2.0, 0.5], [2.0, 2.5, 1.0]]):
        lines = [json.dumps({"step": step, "train/loss": loss}) + "\n" for step, loss in enumerate(losses, 1)]
        (tmp_path / str(seed) / "metrics.jsonl").write_text("".join(lines))
    write_metrics(tmp_path / "3", 1)
    canvas = draw_curves(read_results([tmp_path]))
    paths = [path for area in canvas.axes[0].collections for path in area.get_paths()]
    outlines = [np.asarray(path.vertices) for path in paths]
    corners = {(float(x), float(y)) for outline in outlines if len(outline) > 3 for x, y in outline}
    assert corners == {(1, 1), (1, 3), (2, 2), (2, 2.5), (3, 0.5), (3, 3)}
    assert labels(canvas) == ["lr=0.1", "lr=0.01", "lowest to highest seed"]
    assert band([([1, 2, 4], [1.0, 2.0, 4.0]), ([1, 4], [3.0, 0.0]), ([], [])]) == ([1, 0], [3, 4])


VALUES: dict[str, list[float]] = {
    "crowded": [0.1, 0.101, 0.102, 0.5],
    "sampled": [10 ** -(1 + 4 * math.sin(number) ** 2) for number in range(40)],
    "twenty decades": [10.0**number for number in range(-10, 11)],
    "zero beside a wide range": [0.0, 1e-6, 1e-5, 1e-4, 0.1],
    "narrow": [0.123456781, 0.123456782, 0.123456783],
    "large": [float(number) for number in range(1_000_000, 1_000_050, 7)],
    "both signs": [-1000.0, -0.1, 0.0, 0.1, 1000.0],
    "one and another": [1e-30, 1e30],
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("key", ["lr", "x"])
def test_labels_of_ticks_do_not_overlap(tmp_path: Path, name: str, key: str) -> None:
    for number, value in enumerate(VALUES[name]):
        facts = {"overrides": [f"{key}={value!r}"], "config": {key: value, "seed": 0}, "point": str(number)}
        write_run(tmp_path / str(number), 0.1, 0, number, config_hash=str(number), **facts)
        lines = [json.dumps({"step": step, "train/loss": 10.0 ** (-step % 9)}) + "\n" for step in range(1, 50)]
        (tmp_path / str(number) / "metrics.jsonl").write_text("".join(lines))
    results = read_results([tmp_path])
    for canvas in (draw_accuracy(results, key), draw_curves(results)):
        assert overlaps(canvas) == []
        for axes in canvas.axes:
            for axis in (axes.xaxis, axes.yaxis):
                texts = [label.get_text() for label in axis.get_ticklabels()]
                assert len({*texts}) == len(texts) >= 2


def test_nothing_is_drawn_where_nothing_has_a_result(tmp_path: Path) -> None:
    for number, (lr, size) in enumerate(product([0.1, 0.2], [32, 64])):
        facts = {"overrides": [f"lr={lr}", f"size={size}"], "config": {"lr": lr, "size": size, "seed": 0}}
        write_run(tmp_path / str(number), lr, 0, number, status="failed", test_accuracy=None,
                  config_hash=str(number), point=str(number), **facts)  # fmt: skip
    results = read_results([tmp_path])
    assert heatmap_keys(results) == ("lr", "size")
    assert draw_figures(results, tmp_path) == []
    write_run(tmp_path / "4", 0.1, 1, 4, test_accuracy=0.0, config_hash="4", point="0",
              overrides=["lr=0.1", "size=32"], config={"lr": 0.1, "size": 32, "seed": 1})  # fmt: skip
    results = read_results([tmp_path])
    assert len(draw_figures(results, tmp_path)) == 3
    assert draw_heatmap(results, "lr", "size").axes[0].images[0].get_clim() == (0, 1)
    low, high = draw_accuracy(results, "lr").axes[0].get_ylim()
    assert (low, high) == (-0.5, 0.5)
    assert all(tick >= 0 for tick in draw_accuracy(results, "lr").axes[0].get_yticks())


def swept_paths(folder: Path, *names: str) -> Results:
    """Return the results of a sweep over long paths and two rates, three seeds each."""
    for number, (name, lr, seed) in enumerate(product(names, [0.1, 0.01], range(3))):
        path = f"/data/{'a-long-folder/' * 12}{name}/{'another-one/' * 12}checkpoint.pt"
        facts = {"overrides": [f"init_from={path}", f"lr={lr}"], "config": {"init_from": path, "lr": lr, "seed": seed}}
        write_run(folder / str(number), lr, seed, number, config_hash=str(number), point=f"{name} {lr}",
                  val_accuracy=0.5 + 0.01 * number, **facts)  # fmt: skip
    return read_results([folder])


def test_swept_long_paths_leave_room_for_the_axes(tmp_path: Path) -> None:
    results = swept_paths(tmp_path, "first", "second")
    figures = draw_figures(results, tmp_path)  # a collapsed layout is a warning, here an error
    assert [figure.stem for figure in figures] == ["accuracy_vs_lr", "heatmap_init_from_lr"]
    assert results.warnings == []
    canvas = draw_accuracy(results, "lr")
    assert labels(canvas)[:2] == ["init_from=…/second/…", "init_from=…/first/…"]
    assert overlaps(canvas) == []
    assert canvas.axes[0].get_position().width > 0.7
    assert canvas.axes[0].get_position().height > 0.5


def test_dollars_are_text(tmp_path: Path) -> None:
    results = swept_paths(tmp_path, "a$x_$", "b$_{$c")
    results.keys[:] = ["$ke^y_$" if key == "lr" else key for key in results.keys]
    for point in results.points:
        point.values["$ke^y_$"] = point.values.pop("lr")
    assert len(draw_figures(results, tmp_path)) == 2
    assert results.warnings == []
    for path in tmp_path.glob("*.svg"):
        texts = ["".join(text.itertext()) for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
        assert "$ke^y_$" in texts
        assert any("a$x_$" in text for text in texts)


def test_a_users_settings_of_matplotlib_change_nothing(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", RATES)
    results, found = read_results([tmp_path / "sweep"]), []
    for name, settings in (("a", {}), ("b", {"text.usetex": True, "axes.facecolor": "#123456", "font.size": 30})):
        (tmp_path / name).mkdir()
        with matplotlib.rc_context(settings):  # type: ignore[arg-type]
            draw_figures(results, tmp_path / name)
        found.append((tmp_path / name / "accuracy_vs_lr.svg").read_bytes())
    assert found[0] == found[1]


def test_a_figure_that_fails_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(tmp_path, RATES)
    write_metrics(tmp_path / "0", 5)
    results = read_results([tmp_path])

    def fail(*_: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr("cifar.reports.figures.sweep.draw_accuracy", fail)
    assert [figure.stem for figure in draw_figures(results, tmp_path)] == ["curves"]
    assert results.warnings == ["The figure accuracy_vs_lr could not be drawn: ValueError: no ink"]


def test_a_figure_that_cant_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    canvas = draw_accuracy(two_keys(tmp_path / "sweep"), "lr")
    for kind in ("png", "svg"):
        (tmp_path / f"a.{kind}").write_text("old")

    class Full(Canvas):
        def savefig(self, fname: Any, **_: Any) -> None:
            fname.write(b"half")
            raise OSError(28, "No space left on device")

    canvas.__class__ = Full
    with pytest.raises(OSError, match="No space"):
        save(canvas, tmp_path / "a")
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {
        "a.png": "old", "a.svg": "old",
    }  # fmt: skip


def test_names_are_cut_where_they_agree() -> None:
    assert shorten("a" * 30 + "b" * 30, 11) == "aaaaa…bbbbb"
    assert shorten("a\nb\x1b\ud800") == "a b  "
    assert short_names(["short", "x"]) == ["short", "x"]
    shared = "/home/" + "x" * 50
    assert short_names([f"{shared}/one/last.pt", f"{shared}/two/last.pt"]) == ["…/one/…", "…/two/…"]
    assert short_names(["q" * 50 + "1", "q" * 50 + "2"]) == ["…qqq1", "…qqq2"]
    long = ["1" + "z" * 60 + letter + "z" * 60 + "1" for letter in "ab"]
    assert short_names([long[0], "2" + long[1] + "2"], 20)[0] != short_names([long[0], "2" + long[1] + "2"], 20)[1]
    cut = short_names([*long, "2" + "z" * 121 + "1"], 20)
    assert len({*cut}) == 3
    assert max(map(len, cut)) <= 20


def test_a_search_is_drawn_as_dots_by_its_choices_and_not_as_a_heat_map(tmp_path: Path) -> None:
    for number in range(10):
        optimizer, rate, decay = ["adam", "sgd"][number % 2], 0.001 * (number + 1), 0.01 * (number + 1)
        facts: dict[str, Any] = {
            "overrides": [f"optimizer={optimizer}", f"lr={rate}", f"decay={decay}"],
            "choices": {"optimizer": optimizer},
            "config": {"lr": rate, "decay": decay, "seed": 0},
            "config_hash": str(number),
            "point": str(number),
            "val_accuracy": 0.1 + 0.01 * number,
        }
        write_run(tmp_path / str(number), rate, 0, number, **facts)
    results = read_results([tmp_path])
    canvas = draw_accuracy(results, "lr")
    assert labels(canvas) == ["optimizer=sgd", "optimizer=adam"]
    sgd, adam = (next(line for line in canvas.axes[0].lines if line.get_color() == colour) for colour in COLOURS[:2])
    assert sgd.get_linestyle() == adam.get_linestyle() == "None"
    assert xs(sgd) == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert ys(adam) == pytest.approx([10, 12, 14, 16, 18])
    results.keys.remove("optimizer")
    assert heatmap_keys(results) is None
    assert heatmap_keys(two_keys(tmp_path / "grid")) == ("optimizer", "lr")


def test_without_validation_images_the_axis_says_test(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), 0.5 + number, 0, number)
    (axes,) = draw_accuracy(read_results([tmp_path]), "lr").axes
    assert axes.get_ylabel() == "test accuracy (%)"


def test_other_numbers_than_rates_get_a_log_axis_only_if_they_span_much(tmp_path: Path) -> None:
    for number, size in enumerate([100, 200, 400]):
        facts = {"overrides": [f"batch_size={size}"], "config": {"batch_size": size, "seed": 0}, "point": str(size)}
        write_run(tmp_path / str(number), 0.1, 0, number, config_hash=str(size), **facts)
    (axes,) = draw_accuracy(read_results([tmp_path]), "batch_size").axes
    assert axes.get_xscale() == "linear"


def test_the_best_are_coloured_the_rest_are_grey_and_counted(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.001 * number: [0.01 * number] for number in range(1, 31)})
    for number in range(30):
        write_metrics(tmp_path / str(number), 5, 4)
    results = read_results([tmp_path])
    canvas = draw_curves(results)
    assert labels(canvas) == [*[f"lr={0.001 * number:g}" for number in range(30, 22, -1)], "22 others"]
    drawn = [line for line in canvas.axes[0].lines if xs(line)]
    assert [line.get_color() for line in drawn] == [GREY] * 22 + [*reversed(COLOURS)]
    assert ys(drawn[-1]) == [1 / step for step in range(10, 201, 10)]
    (best, *_) = [line for line in canvas.axes[1].lines if line.get_color() == COLOURS[0]]
    assert ys(best) == pytest.approx([20, 40, 60, 80, 100])


def test_only_what_was_recorded_has_a_panel(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.1, 0)
    names = {"train/loss": "training loss", "val/accuracy": "validation accuracy"}
    for keys in (["train/loss"], ["val/accuracy"], [*names]):
        lines = [json.dumps({"step": step, **dict.fromkeys(keys, 0.5)}) + "\n" for step in (10, 20)]
        (tmp_path / "0" / "metrics.jsonl").write_text("".join(lines))
        results = read_results([tmp_path])
        assert [axes.get_ylabel().removesuffix(" (%)") for axes in draw_curves(results).axes] == [
            names[key] for key in keys
        ]
        (figure,) = [figure for figure in draw_figures(results, tmp_path) if figure.stem == "curves"]
        assert figure.title == " and ".join(names[key] for key in keys).capitalize()


def test_one_stray_loss_does_not_flatten_the_others(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.2], 0.01: [0.5], 0.001: [0.4]})
    for number, loss in enumerate([1e30, 2.0, 1.8]):
        lines = [f'{{"step": {step}, "train/loss": {loss - 0.01 * step}}}\n' for step in range(1, 50)]
        (tmp_path / str(number) / "metrics.jsonl").write_text("".join(lines))
    low, high = draw_curves(read_results([tmp_path])).axes[0].get_ylim()
    assert low < 1.3
    assert 2 < high < 20


def test_the_heat_map_has_a_number_a_cross_and_a_dash(tmp_path: Path) -> None:
    write_run(tmp_path / "9", 5.0, 0, 9, status="failed", test_accuracy=None, config_hash="9", point="9",
              overrides=["optimizer=adam", "lr=5.0"], choices={"optimizer": "adam"})  # fmt: skip
    axes = draw_heatmap(two_keys(tmp_path), "optimizer", "lr").axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {
        (0, 0): "10.0", (1, 0): "20.0", (2, 0): "30.0", (3, 0): "–",
        (0, 1): "40.0", (1, 1): "50.0", (2, 1): "60.0 ×", (3, 1): "–",
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1", "5"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["adam", "sgd"]


def test_figures_are_png_and_svg_the_same_bytes_each_time(tmp_path: Path) -> None:
    results = two_keys(tmp_path / "sweep")
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stems = [figure.stem for figure in draw_figures(results, tmp_path / name)]
        assert stems == ["accuracy_vs_lr", "heatmap_optimizer_lr"]
        files = sorted((tmp_path / name).iterdir())
        assert [path.name for path in files] == [f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")]
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1]


def test_nothing_to_draw(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.1, 0)
    assert draw_figures(read_results([tmp_path]), tmp_path) == []


def test_means_are_over_the_steps_that_all_curves_have() -> None:
    curves = [([1, 2, 4], [1.0, 2.0, 4.0]), ([1, 4, 5], [3.0, 0.0, 1.0]), ([], [])]
    assert mean_curve(curves) == ([1, 4], [2.0, 2.0])
    assert mean_curve([([], [])]) == ([], [])
    assert math.isclose(mean_curve([([1], [0.1])])[1][0], 0.1)


def test_keys_make_safe_file_names() -> None:
    assert [safe(key) for key in ("optimizer.weight_decay", "a/b", "../x", "@!")] == [
        "optimizer.weight_decay", "a-b", "-x", "--",
    ]  # fmt: skip


def test_of_many_parameters_the_most_important_have_bars() -> None:
    keys = [f"model.{'long_' * 20}{number}" for number in range(200)]
    canvas = draw_importances({key: 0.5**number for number, key in enumerate(keys, 1)})
    assert len(canvas.axes[0].patches) == 20
    assert canvas.get_figheight() < 10
    assert [label.get_text() for label in canvas.axes[0].get_yticklabels()][-1] == "…ng_0"
    assert overlaps(canvas) == []
