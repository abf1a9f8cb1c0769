"""The report's figures, read back from matplotlib's own objects."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from cifar.figures import (
    COLOURS,
    GREY,
    draw_accuracy,
    draw_curves,
    draw_figures,
    draw_heatmap,
    heatmap_keys,
    mean_curve,
    safe,
)
from cifar.reading import read_results
from cifar.results import Results
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


def labels(canvas: Canvas, panel: int = 0) -> list[str]:
    legend = canvas.axes[panel].get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_accuracy_stands_at_its_rate_with_its_interval_as_bar(tmp_path: Path) -> None:
    write_sweep(tmp_path, RATES)
    results = read_results([tmp_path])
    (axes,) = draw_accuracy(results, "lr").axes
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
        assert interval.half is not None
        assert (high[1] - low[1]) / 2 == pytest.approx(100 * interval.half)
    (hollow,) = [other for other in axes.lines if other.get_label() == "test"]
    assert ys(hollow) == pytest.approx([50, 50, 50])
    assert axes.get_ylabel() == "validation accuracy (%)"


def test_a_diverged_point_has_its_cross_at_its_place_and_the_best_comes_first(tmp_path: Path) -> None:
    canvas = draw_accuracy(two_keys(tmp_path), "lr")
    (cross,) = [line for line in canvas.axes[0].lines if line.get_marker() == "x" and xs(line)]
    assert xs(cross) == [0.1]
    assert ys(cross) == pytest.approx([60])
    assert labels(canvas) == ["optimizer=sgd", "optimizer=adam", "a run diverged"]


def test_an_interval_beyond_the_possible_does_not_stretch_the_axis(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.1, 0.5], 0.01: [0.6, 0.9]})
    (axes,) = draw_accuracy(read_results([tmp_path]), "lr").axes
    assert axes.get_ylim() == (-2, 102)


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
