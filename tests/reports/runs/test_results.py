"""Runs read back from their folders: which count, what tells them apart, and what a damaged file costs."""

import cProfile
import csv
import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cifar.base.errors import UserError
from cifar.base.locks import locked
from cifar.reports.files.csv_files import points_csv, runs_csv
from cifar.reports.findings.table import columns
from cifar.reports.findings.verdict import verdict
from cifar.reports.runs.reading import read_results
from cifar.reports.runs.records import MAX_CURVE_POINTS, read_curves, thin
from cifar.reports.runs.results import Results, show
from cifar.sweeps.plan import make_plan, write_plan
from tests.sweep_folders import write_metrics, write_run, write_sweep


def labels(results: Results) -> list[str]:
    return [point.label for point in results.points]


def test_points_pool_seeds_and_are_ranked_by_validation(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.2, 0.3], 0.01: [0.5, 0.6], 0.001: [0.4, 0.3]}, test_accuracy=0.7)
    results = read_results([tmp_path])
    assert labels(results) == ["lr=0.01", "lr=0.001", "lr=0.1"]
    assert results.keys == ["lr"]
    assert [point.mean("val_accuracy") for point in results.points] == pytest.approx([0.55, 0.35, 0.25])
    assert [point.seeds for point in results.points] == [[0, 1]] * 3
    assert results.constants == {
        "hardware": "a processor", "precision": "fp32", "commit": "0123456789",
        "python": "3.11.7", "torch": "2.15.0", "numpy": "2.4.6",
    }  # fmt: skip
    assert results.warnings == []
    assert results.numeric_keys() == ["lr"]


def test_jobs_to_come_failed_and_cut_ones_are_rows_but_do_not_count(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.2, 0.9, 0.8], 0.01: [0.5], 0.001: [0.1, 0.1, 0.1]})
    for number, status in ((1, "failed"), (2, "running")):
        path = tmp_path / str(number) / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": status, "error": "no room\nat all"}))
    results = read_results([tmp_path])
    assert labels(results) == ["lr=0.01", "lr=0.1", "lr=0.001"]
    best, second, _ = results.points
    assert second.status_text == "1 completed, 1 failed, 1 interrupted"
    assert second.mean("val_accuracy") == 0.2
    assert [run.error for run in second.runs] == ["", "no room", "no room"]
    assert best.status_text == "1 completed, 2 pending"
    assert [run.seed for run in best.runs] == [0, 1, 2]
    assert [run.command for run in best.runs][2] == "cifar run lr=0.01 seed=2"
    with locked(tmp_path / "2"):
        assert read_results([tmp_path]).points[1].status_text == "1 completed, 1 failed, 1 running"


def test_a_diverged_run_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.1, 0, val_accuracy=0.5)
    write_run(tmp_path / "1", 0.1, 1, val_accuracy=0.1, status="diverged")
    write_run(tmp_path / "2", 0.1, 2, val_accuracy=0.9, status="pruned")
    (point,) = read_results([tmp_path]).points
    assert point.mean("val_accuracy") == pytest.approx(0.3)
    assert point.status_text == "1 completed, 1 diverged, 1 pruned"
    assert point.label == "all runs"


def test_a_damaged_or_missing_file_costs_a_warning(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.2, 0.3], 0.01: [0.5, 0.6]})
    write_metrics(tmp_path / "0", 4)
    text = (tmp_path / "0" / "metrics.jsonl").read_text()
    (tmp_path / "0" / "metrics.jsonl").write_text(text.replace('"step": 20', '"step": x', 1) + '{"step": 90, "train/')
    (tmp_path / "1" / "summary.json").unlink()
    (tmp_path / "1" / "metrics.jsonl").write_bytes(b"\xff\x00\n[]\n")
    (tmp_path / "2" / "summary.json").write_text('{"status": "compl')
    (tmp_path / "3" / ".hydra").mkdir()
    (tmp_path / "3" / ".hydra" / "config.yaml").write_text("lr: 0.01\nseed: 1\n")
    (tmp_path / "3" / ".hydra" / "overrides.yaml").write_text("- lr=0.01\n- seed=1\n")
    (tmp_path / "3" / "summary.json").write_text("[]")
    results = read_results([tmp_path])
    assert labels(results) == ["lr=0.1", "lr=0.01"]
    assert [point.status_text for point in results.points] == ["1 completed, 1 interrupted", "2 interrupted"]
    assert [run.seed for run in results.runs] == [0, 1, 0, 1]
    assert len(results.runs[0].curves["train/loss"][0]) == 3
    for number, reason in (
        (0, "2 of 9 lines"),
        (1, "is missing"),
        (1, "2 of 2 lines"),
        (2, "can't be read"),
        (3, "can't"),
    ):
        assert any(f"/{number}/" in text and reason in text for text in results.warnings), (number, reason)
    assert len(results.warnings) == 5


def test_without_validation_images_the_first_warning_says_so(tmp_path: Path) -> None:
    for number, accuracy in enumerate([0.1, 0.3]):
        write_run(tmp_path / str(number), 0.1 * (number + 1), 0, test_accuracy=accuracy)
    results = read_results([tmp_path])
    assert labels(results) == ["lr=0.2", "lr=0.1"]
    assert results.warnings[0].startswith("No validation images were held out")
    write_run(tmp_path / "2", 0.5, 0, val_accuracy=0.05, test_accuracy=0.01)
    results = read_results([tmp_path])
    assert labels(results)[0] == "lr=0.5"
    assert results.warnings[0].startswith("2 of 3 runs held no validation images out")


def test_a_run_made_twice_counts_once(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", {0.1: [0.2, 0.3]})
    write_sweep(tmp_path / "b", {0.1: [0.2, 0.3, 0.4]})
    results = read_results([tmp_path / "a", tmp_path / "b"])
    assert [point.seeds for point in results.points] == [[0, 1, 2]]
    assert len([text for text in results.warnings if "is not counted again" in text]) == 2


def test_what_the_command_lines_do_not_tell_apart_the_configurations_do(tmp_path: Path) -> None:
    for number, width in enumerate([16, 32]):
        config = {"lr": 0.1, "seed": 0, "model": {"width": width}, "log_every": number}
        facts: dict[str, Any] = {
            "config": config,
            "config_hash": str(width),
            "point": str(width),
            "val_accuracy": width / 100,
        }
        write_run(tmp_path / str(number), 0.1, 0, **facts)
    results = read_results([tmp_path])
    assert results.keys == ["model.width"]
    assert labels(results) == ["model.width=32", "model.width=16"]


def test_groups_are_shown_by_their_choice_and_other_software_is_warned_of(tmp_path: Path) -> None:
    for number, model in enumerate(["vgg16", "resnet50"]):
        facts: dict[str, Any] = {
            "overrides": [f"model={model}", "+x=[1,2]"],
            "choices": {"model": model},
            "point": model,
        }
        write_run(tmp_path / str(number), 0.1, 0, config_hash=model, device=f"gpu {number}", val_accuracy=0.1, **facts)
    results = read_results([tmp_path])
    assert results.keys == ["model"]
    assert sorted(labels(results)) == ["model=resnet50", "model=vgg16"]
    assert results.warnings == ["Not all runs were made with the same hardware: gpu 0, gpu 1."]
    assert results.constants["x"] == "[1, 2]"
    assert "hardware" not in results.constants


def test_no_run_is_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no run in"):
        read_results([tmp_path])


def test_curves_are_thinned_to_the_first_last_and_evenly_between(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    write_metrics(tmp_path / "0", 100, 10)
    curves = read_curves(tmp_path / "0" / "metrics.jsonl", [])
    steps, losses = curves["train/loss"]
    assert len(steps) == MAX_CURVE_POINTS
    assert (steps[0], steps[-1]) == (10, 10000)
    assert losses == [1 / step for step in steps]
    assert {later - earlier for earlier, later in pairwise(steps)} <= {50, 60}
    assert curves["val/accuracy"] == ([100 * epoch for epoch in range(1, 101)], [n / 100 for n in range(1, 101)])
    assert thin(([1, 2], [0.1, 0.2])) == ([1, 2], [0.1, 0.2])


def test_values_are_shown_as_on_the_command_line() -> None:
    assert [show(value) for value in (True, None, 0.001, 1e-05, 3, "sgd", 1e36)] == [
        "true", "null", "0.001", "1e-05", "3", "sgd", "1e+36",
    ]  # fmt: skip


def test_skipped_steps_show_in_status_warnings_and_files(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.1, 0, 0, val_accuracy=0.1, steps=12, skipped_steps=11)
    write_run(tmp_path / "1", 0.1, 1, 1, val_accuracy=0.2, steps=12)
    write_run(tmp_path / "2", 0.2, 0, 2, val_accuracy=0.3, steps=12, skipped_steps=0)
    results = read_results([tmp_path])
    assert [point.status_text for point in results.points] == ["1 completed", "2 completed, 11 of 24 steps skipped"]
    assert [run.status_text for run in results.points[1].runs] == ["completed, 11 of 12 steps skipped", "completed"]
    assert results.warnings == [
        f"1 of 3 runs skipped steps whose loss or gradient was not finite: {tmp_path}/0 (11 of 12 steps skipped)."
    ]
    (first, second) = csv.DictReader(points_csv(results).splitlines())
    assert (first["skipped_steps"], second["skipped_steps"]) == ("0", "11")
    assert [row["skipped_steps"] for row in csv.DictReader(runs_csv(results, tmp_path).splitlines())] == ["0", "11", ""]


def test_runs_of_one_configuration_with_other_results_are_both_kept_and_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.1, 0, val_accuracy=0.5, test_loss=1.0)
    write_run(tmp_path / "b", 0.1, 0, val_accuracy=0.5, test_loss=1.5)
    write_run(tmp_path / "c", 0.1, 0, val_accuracy=0.5, test_loss=1.5)
    write_run(tmp_path / "d", 0.1, 0, val_accuracy=0.6, test_loss=1.0, status="diverged")
    results = read_results([tmp_path])
    (point,) = results.points
    assert [run.folder.name for run in point.runs] == ["a", "b", "d"]
    assert point.seeds == [0]
    assert point.over_seeds("val_accuracy") == {0: pytest.approx(1.6 / 3)}
    start = f"{tmp_path}/a and {tmp_path}/{{}} have the same configuration and seed, but other results: "
    end = ". Something that is not in the configuration differed. Their mean counts as one seed."
    assert results.warnings[:3] == [
        start.format("b") + "test_loss 1 and 1.5" + end,
        f"{tmp_path}/c has the configuration and seed of {tmp_path}/b and is not counted again.",
        start.format("d") + "status completed and diverged, val_accuracy 0.5 and 0.6" + end,
    ]


def test_a_choice_whose_target_was_given_is_shown_as_what_ran(tmp_path: Path) -> None:
    cases = {
        "resnet50": ["model=resnet50"],
        "mymodel.SmallCNN": ["model=resnet50", "model._target_=mymodel.SmallCNN"],
        "mymodel.Other": ["++model._target_=mymodel.Other"],
    }
    for number, (target, words) in enumerate(cases.items()):
        config = {"lr": 0.1, "seed": 0, "model": {"_target_": target}}
        write_run(tmp_path / str(number), 0.1, 0, number, config=config, config_hash=target, point=target,
                  overrides=words, choices={"model": "resnet50"}, val_accuracy=0.1 + 0.1 * number)  # fmt: skip
    results = read_results([tmp_path])
    assert [point.values["model"] for point in results.points] == ["mymodel.Other", "mymodel.SmallCNN", "resnet50"]
    assert [point.values["model._target_"] for point in results.points] == [*cases][::-1]


@pytest.mark.parametrize(
    ("starts", "keys"),
    [
        ({"resnet50": ["a.pt"], "vgg16": ["b.pt"]}, ["model"]),
        ({"resnet50": ["a.pt"], "vgg16": ["a.pt", "b.pt"]}, ["model", "init_from"]),
        ({"resnet50": ["a.pt", "b.pt"]}, ["init_from"]),
        ({"resnet50": ["a.pt"], "vgg16": ["null"]}, ["model", "init_from"]),
    ],
)
def test_a_checkpoint_for_each_model_is_no_column_of_its_own(
    tmp_path: Path, starts: dict[str, list[str]], keys: list[str]
) -> None:
    runs = [(model, start) for model, places in starts.items() for start in places]
    for number, (model, start) in enumerate(runs):
        config = {"lr": 0.1, "seed": 0, "init_from": None if start == "null" else start}
        write_run(tmp_path / str(number), 0.1, 0, number, config=config, config_hash=model + start, val_accuracy=0.5,
                  point=model + start, overrides=[f"model={model}", f"init_from={start}"],
                  choices={"model": model})  # fmt: skip
    results = read_results([tmp_path])
    assert results.keys == keys
    assert len(results.points) == len(runs)
    assert (results.constants.get("init_from") == "one for each model") == (keys == ["model"])


def test_swept_targets_to_come_have_their_names(tmp_path: Path) -> None:
    write_plan(tmp_path, make_plan(["model=resnet50", "model._target_=a.A,b.B"], 0))
    write_run(tmp_path / "0", 0.1, 0, 0, config={"model": {"_target_": "a.A"}, "seed": 0}, point="a",
              overrides=["model=resnet50", "model._target_=a.A"], val_accuracy=0.5)  # fmt: skip
    results = read_results([tmp_path])
    assert labels(results) == ["model=a.A model._target_=a.A", "model=b.B model._target_=b.B"]


@pytest.mark.parametrize(
    "word", ["lr=0.1,0.2,0.4", "lr=choice(0.1,0.2,0.4)", "lr=shuffle(0.1,0.2,0.4)", "lr=tag(a,choice(0.1,0.2,0.4))"]
)
def test_keys_are_swept_however_they_were_asked_for(tmp_path: Path, word: str) -> None:
    plan = make_plan([word, "seed=range(0,2)"], 0)
    write_plan(tmp_path, plan)
    for number, job in enumerate(plan.jobs[:2]):
        lr, seed = (float(override.partition("=")[2]) for override in job)
        write_run(tmp_path / str(number), lr, int(seed), number, val_accuracy=lr)
    results = read_results([tmp_path])
    assert results.keys == ["lr"]
    assert sorted(point.values["lr"] for point in results.points if point.values["lr"]) == [0.1, 0.2, 0.4]
    assert sum(point.count("pending") for point in results.points) == 4


def count_calls(folder: Path) -> int:
    """Return how many functions are called to read the folder and make the table."""
    profile = cProfile.Profile()
    profile.enable()
    results = read_results([folder])
    columns(results)
    verdict(results)
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def test_twice_the_jobs_take_twice_the_work(tmp_path: Path) -> None:
    calls = []
    for num_rates in (100, 200, 400):
        folder = tmp_path / str(num_rates)
        write_sweep(folder, {0.001 * number: [0.5, 0.6] if number < 20 else [] for number in range(1, num_rates + 1)})
        for number in range(5):  # their numbers have to be found out
            (folder / str(number) / "summary.json").write_text("")
        calls.append(count_calls(folder))
    assert calls[2] - calls[1] < 2.1 * (calls[1] - calls[0])


def test_commands_have_flags_and_are_quoted(tmp_path: Path) -> None:
    words = ["lr=0.1", "tag='a b'", "x=$HOME;ls"]
    write_run(tmp_path / "0", 0.1, 0, 0, overrides=words, flags=["--config-dir", "/my conf"])
    (run,) = read_results([tmp_path]).runs
    assert run.command == """cifar run --config-dir '/my conf' lr=0.1 'tag='"'"'a b'"'"'' 'x=$HOME;ls'"""
    assert shlex.split(run.command) == ["cifar", "run", "--config-dir", "/my conf", *words]
