"""`cifar VERB …`: the overview, its verbs, and how soon it answers."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from cifar.commands.main import HELP, VERBS, main
from tests.conftest import ROOT, Command


def test_alone_it_lists_its_verbs_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"], ["help"]):
        main(words)
        assert capsys.readouterr().out == f"{HELP}\n"
    for verb, line in VERBS.items():
        assert f"  {verb:<10} {line}\n" in f"{HELP}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "There is no verb 'rnu'. Did you mean 'run'? There is run, resume"),
        (["lr=0.1"], "There is no verb 'lr=0.1'. Did you mean cifar run?"),
        (["-m", "lr=0.1"], "There is no verb '-m'. There is run"),
    ],
)
def test_what_is_no_verb_is_one_message(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert str(ended.value.code).startswith(message)


def test_the_overview_imports_nothing_that_takes_time() -> None:
    code = "import sys; from cifar.commands.main import main; main([]); print(len(sys.modules), *sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    imported = result.stdout.splitlines()[-1].split()
    assert not {"torch", "hydra", "omegaconf", "numpy", "wandb", "optuna", "matplotlib", "scipy", "yaml"} & {*imported}


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_wait_briefly_unless_the_user_says_how(given: dict[str, str], expected: str | None) -> None:
    with mock.patch.dict(os.environ, given):
        for name in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} - given.keys():
            os.environ.pop(name, None)
        with pytest.raises(SystemExit, match="0"):
            main(["speedrun", "--help"])
        assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_what_builds_a_run_does_not_import_the_compiler() -> None:
    code = "import sys, cifar.experiment.run; print('torch._dynamo' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "False\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps_with_examples_first(command: Command, verb: str) -> None:
    shown = command(verb, "--help", program=("-m", "cifar"))
    assert shown.returncode == 0, shown
    lines = [line.strip() for line in shown.stdout.splitlines()]
    examples = [number for number, line in enumerate(lines) if line.startswith((f"cifar {verb} ", f"cifar {verb}"))]
    assert examples
    assert examples[0] < 8, shown.stdout


def test_a_module_in_the_working_directory_is_found(tmp_path: Path, command: Command) -> None:
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n\n\n"
        "def small(num_classes: int) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))\n"
    )
    words = ["model._target_=mynets.small", "data=random", "data.source.num_train=40", "tracker=none", "device=cpu"]
    done = command("run", *words, "hydra.run.dir=r", program=("-m", "cifar"))
    assert done.returncode == 0, done
    assert "small with 30,730 parameters" in done.stdout
    assert os.path.exists(tmp_path / "r" / "summary.json")
