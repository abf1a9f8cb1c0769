"""Recipes timed over many seeds: what counts, what is printed, and that nothing leaks from run to run."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import MissingConfigException

from cifar.commands.measuring import speedrun
from cifar.commands.measuring.speedrun import line, table
from cifar.experiment.run import run
from cifar.experiment.typed.compose import compose_words
from tests.conftest import QUIET, read_summary

WORDS = [word for word in QUIET if not word.startswith(("device", "tracker", "batch_size", "model"))]
TINY = ["device.precision=fp32", "model.widths=[4,4,4]", "batch_size=10", "eval_batch_size=20", "epochs=1"]


def test_every_seed_is_run_as_run_py_runs_it_and_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    words = [*WORDS, *TINY]
    arguments = ["--recipes", "speedrun94", "--seeds", "2", "--device", "plain", "--json", str(path), "--set", *words]
    speedrun.main(arguments)
    (result,) = json.loads(path.read_text())["results"]
    assert [entry["seed"] for entry in result["runs"]] == [0, 1]
    for entry in result["runs"]:
        assert entry["train_seconds"] + entry["eval_seconds"] < entry["seconds"]
    assert result["first"]["tta_accuracy"] == result["runs"][0]["tta_accuracy"]
    (tmp_path / "run").mkdir()
    cfg, _ = compose_words(["experiment=speedrun94", "device=plain", *words, "tracker=none", "seed=1"])
    run(cfg, tmp_path / "run")
    summary = read_summary(tmp_path / "run")
    assert result["runs"][1]["accuracy"] == summary["test_accuracy"]
    assert result["runs"][1]["tta_accuracy"] == summary["test_tta_accuracy"]
    lines = [f"speedrun94 {line(entry)}" for entry in result["runs"]]
    assert capsys.readouterr().out.endswith("\n".join([*lines, table([result])]) + "\n")


def test_the_table_to_the_digit() -> None:
    def entry(accuracy: float, tta_accuracy: float | None, seconds: float) -> dict[str, Any]:
        return {"device": "cuda (X, bf16)", "accuracy": accuracy, "tta_accuracy": tta_accuracy, "seconds": seconds}

    first = {"seconds": 3.0, "warmup_seconds": 40.0}
    recipes = [
        {"words": ["experiment=speedrun94"], "first": first,
         "runs": [entry(0.93, 0.94, 2.0), entry(0.932, 0.942, 2.2)]},
        {"words": ["experiment=demo"], "first": first, "runs": [entry(0.5, None, 1.0)]},
    ]  # fmt: skip
    assert table(recipes).splitlines() == [
        "cuda (X, bf16); 95 % intervals, Student's t on the logit scale",
        "recipe       seeds                    test                with TTA  std of it   seconds     std  first run",
        "speedrun94       2          93.00, 93.20 %          94.00, 94.20 %     0.14 %     2.100   0.141     43.0 s",
        "demo             1                 50.00 %                       –          –     1.000       –     43.0 s",
    ]


def test_what_was_measured_is_kept_when_a_later_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed_run(words: list[str]) -> dict[str, Any]:
        if words[-1] == "seed=2":
            raise KeyboardInterrupt
        return {"seed": words[-1], "accuracy": 0.5, "tta_accuracy": None, "seconds": 1.0}

    monkeypatch.setattr(speedrun, "timed_run", timed_run)
    with pytest.raises(KeyboardInterrupt):
        speedrun.main(["--seeds", "5", "--json", str(tmp_path / "out.json")])
    (result,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [run["seed"] for run in result["runs"]] == ["seed=0", "seed=1"]


def test_a_run_in_words() -> None:
    run = {"seed": 3, "accuracy": 0.93, "tta_accuracy": 0.94, "seconds": 2.0}
    assert line(run) == "seed 3: 93.00 %, 94.00 % with TTA, 2.000 s"
    assert line(run | {"tta_accuracy": None}) == "seed 3: 93.00 %, 2.000 s"


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(SystemExit):
        speedrun.main(["--seeds", "0"])


def test_a_wrong_recipe_is_refused_before_an_earlier_one_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speedrun, "timed_run", lambda words: pytest.fail(f"{words} ran"))
    with pytest.raises(MissingConfigException, match="speedrun68"):
        speedrun.main(["--recipes", "speedrun86", "speedrun68", "--json", str(tmp_path / "out.json")])
    assert capsys.readouterr().err == ""
    assert not [*tmp_path.iterdir()]
