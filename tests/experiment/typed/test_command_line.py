"""Printed commands make the run again: with where the configuration is, what was changed since, and every quote."""

import csv
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cifar.experiment.typed.command_line import continued, named_choices, path_value
from cifar.reports.report import report
from cifar.reports.runs.results import Run
from tests.conftest import QUIET, ROOT, Command, read_summary

OWN = ["--config-dir", str(ROOT / "tests" / "conf")]


def reported(folder: Path) -> str:
    """Return the command that the report on the run in a folder shows."""
    report([folder], folder)
    with (folder / "runs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return row["command"]


def test_the_command_of_the_report_makes_the_run_again(tmp_path: Path, command: Command) -> None:
    """One of an own --config-dir that was made longer, and one of a sweep there with a value full of quotes."""
    words = [word for word in QUIET if not word.startswith("model")]
    first = command(*OWN, "model=tiny", *words, "hydra.run.dir=run")
    assert first.returncode == 0, first.stderr
    longer = command(*OWN, "resume=run", "epochs=2", "checkpoint.keep=3")
    assert longer.returncode == 0, longer.stderr
    summary = read_summary(tmp_path / "run")
    assert [word for word in summary["overrides"] if "epochs" in word] == ["epochs=2"]
    swept = command(*OWN, "-m", "model=tiny", *words, "data.root='a b, [$x] \\'c\\''", "hydra.sweep.dir=sweep")
    assert swept.returncode == 0, swept.stderr
    for folder in (tmp_path / "run", tmp_path / "sweep" / "0"):
        summary, printed = read_summary(folder), shlex.split(reported(folder))
        assert printed[:4] == ["cifar", "run", *OWN]
        again = command(*printed[2:], f"hydra.run.dir=again-{folder.name}")
        assert again.returncode == 0, again.stderr
        other = read_summary(tmp_path / f"again-{folder.name}")
        for key in ("config_hash", "point", "test_loss", "flags", "choices"):
            assert other[key] == summary[key], key
        settings = [
            {key: value for key, value in each["config"].items() if key != "resume"} for each in (other, summary)
        ]
        assert settings[0] == settings[1]


def test_what_is_given_beside_resume_replaces_what_was_given_before() -> None:
    before = ["lr=0.1", "+model.seconds=1", "epochs=30", "tracker=wandb", "tracker.mode=offline"]
    stored = {"job": 3, "overrides": before, "choices": {"tracker": "wandb", "model": "vgg16"}}
    words = ["epochs=5", "tracker=none", "model._target_=a.b"]
    choices = {"tracker": "none", "model": "resnet50"}
    given = {"job": None, "overrides": words, "flags": ["--config-dir", "x"], "choices": choices}
    assert continued(stored, given) == {
        "job": 3,
        "overrides": ["lr=0.1", "+model.seconds=1", "epochs=5", "tracker=none", "model._target_=a.b"],
        "flags": ["--config-dir", "x"],
        "choices": {"tracker": "none", "model": "vgg16"},
    }
    again = continued(continued(stored, given), {"overrides": ["epochs=7"], "flags": [], "choices": {}})
    assert (again["flags"], again["overrides"][-1]) == (["--config-dir", "x"], "epochs=7")


def test_a_run_is_named_after_what_ran() -> None:
    choices = {"model": "resnet50", "data": "cifar10", "optimizer": "adam"}
    words = ["model._target_=mymodel.SmallCNN", "data.source._target_=mine.Images", "lr=0.1"]
    assert named_choices(choices, words) == {"model": "SmallCNN", "data": "Images", "optimizer": "adam"}


@pytest.mark.parametrize("path", ["outputs/a b", "it's", "2026", "1e3", "a,b", "${x}", "größe", "null", "..", "../run"])
def test_a_path_is_quoted_for_hydra_and_for_a_shell(path: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"resume={path_value(path)}"])
    assert str(override.value()).replace("\\${", "${") == path
    command = Run(
        Path("x"), "completed", overrides=[f"init_from={path_value(path)}"], summary={"flags": ["-cn", path]}
    ).command
    assert shlex.split(command) == ["cifar", "run", "-cn", path, f"init_from={path_value(path)}"]
