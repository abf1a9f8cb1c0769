"""A sweep's jobs, their names, and how far it is."""

import json
from pathlib import Path

import pytest

from cifar.sweeps.plan import find_runs, make_plan, num_over, progress, read_plan, statuses, time_text, write_plan


def test_the_jobs_are_hydras_and_named_by_what_differs() -> None:
    plan = make_plan(["model=resnet50,vgg16", "epochs=2", "lr=0.1,0.01", "seed=range(0,2)"], 0)
    assert plan.swept == ["model", "lr", "seed"]
    assert len(plan.jobs) == 8
    assert plan.jobs[3] == ["model=resnet50", "epochs=2", "lr=0.01", "seed=1"]
    assert plan.label(3) == "model=resnet50 lr=0.01 seed=1"


def test_a_later_word_replaces_an_earlier_one() -> None:
    plan = make_plan(["lr=0.1,0.01", "seed=range(0,3)", "lr=0.5"], 0)
    assert plan.swept == ["seed"]
    assert [plan.label(number) for number in range(3)] == ["seed=0", "seed=1", "seed=2"]
    assert plan.jobs[0] == ["lr=0.5", "seed=0"]


def test_added_keys_and_a_sweep_of_one_job() -> None:
    assert make_plan(["+model.width=1,2"], 0).label(1) == "model.width=2"
    assert make_plan(["lr=0.1"], 0).label(0) == "job 0"


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = make_plan(["lr=0.1,0.01"], 1)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    (tmp_path / "sweep.json").write_text('{"swept": [')
    assert read_plan(tmp_path) is None
    (tmp_path / "sweep.json").write_text('{"other": 1}')
    assert read_plan(tmp_path) is None


def test_progress_extrapolates_from_this_start() -> None:
    ended = ["completed"] * 3 + ["diverged", "failed", "running"]
    assert progress(8, ended, 120, 2) == "4 of 8 jobs done, 1 failed, about 2 min 0 s to go"
    assert progress(8, ["completed"] * 2, 120, 2) == "2 of 8 jobs done"
    assert progress(8, ["completed"] * 8, 120, 2, "trials") == "8 of 8 trials done"


def test_runs_are_found_in_a_natural_order_without_what_was_put_aside(tmp_path: Path) -> None:
    for name in ("10", "9", "a/1", "2/replaced-1", "replaced-3", ".hidden", "wandb"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "summary.json").write_text(json.dumps({"status": "completed"}))
    (tmp_path / "2" / "metrics.jsonl").write_text("")
    assert [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)] == ["2", "9", "10", "a/1"]
    assert find_runs(tmp_path / "9") == [tmp_path / "9"]
    assert find_runs(tmp_path / "absent") == []
    assert statuses(tmp_path) == ["interrupted", "completed", "completed", "completed"]
    assert num_over(tmp_path) == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (1938, "32 min"), (3700, "1 h 1 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
