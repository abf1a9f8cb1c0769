"""The package as others install it: a wheel in a folder of its own, used from an empty directory with one's own parts.

The files of the user's are those of docs/extending.md, as written there.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, read_summary, write_own_parts

TINY = ["augment=none", "model.width=4", "batch_size=50", "tracker=none", "device=cpu", "device.threads=1"]
Cifar = Callable[..., list[str]]


def call(words: list[str], cwd: Path, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which is to be a good one."""
    result = subprocess.run(
        words, cwd=cwd, env={**os.environ, **environment}, input=given, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed wheel."""
    place = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "multirun", "outputs", "wandb", ".*cache", "__pycache__", "build", "*.egg-info"
    )
    shutil.copytree(ROOT, place / "source", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    call([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", ".", "./source"], place)
    shutil.rmtree(place / "source")
    (wheel,) = place.glob("*.whl")
    call([*pip, "install", "--no-deps", "--target", "site", str(wheel)], place)
    return place / "site"


PROGRAM = """
import json, sys
from cifar.commands.main import main

sys.argv = ["cifar"]
for words in json.loads(sys.stdin.read()):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
    print("\\0", end="", flush=True)
"""


@pytest.fixture(name="cifar")
def _cifar(site: Path, tmp_path: Path) -> Cifar:
    """Return a function that calls the installed `cifar` with each of the words, where the user's own parts lie.

    One process makes all the calls, as torch is what takes the time; what each printed is returned.
    """
    write_own_parts(tmp_path)

    def cifar(*commands: list[str]) -> list[str]:
        done = call([sys.executable, "-P", "-c", PROGRAM], tmp_path, json.dumps(commands), PYTHONPATH=str(site))
        return done.stdout.split("\0")[:-1]

    return cifar


def test_the_wheel_holds_the_configuration_and_the_page(site: Path) -> None:
    shipped = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(site / "cifar" / "conf") for path in (site / "cifar" / "conf").rglob("*.yaml")} == shipped
    assert (site / "cifar" / "reports" / "files" / "page.html").exists()
    assert (site / "bin" / "cifar").exists()
    assert not (site / "tests").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P came with 3.11")
def test_parts_of_ones_own_are_run_swept_resumed_reported_and_searched(tmp_path: Path, cifar: Cifar) -> None:
    conf = ["--config-dir", "conf"]
    own = [*conf, "data=flowers", "model=mine", "augment=strong", *TINY[1:]]
    search = ["model=mine", "data=digits", "data.limit=100", "data.val_size=50", *TINY]
    done, some, _, searched = cifar(
        ["run", *own, "hydra.run.dir=run"],
        ["run", *own, "data.classes=[rose,tulip]", "hydra.run.dir=two"],
        ["run", "-m", *own, "seed=0,1", "data.val_size=50", "hydra.sweep.dir=multirun/s"],
        ["tune", *search, "lr=interval(0.001,0.1)", "trials=1", "folder=t", *conf],
    )
    assert "small_cnn with" in done
    config = read_summary(tmp_path / "run")["config"]
    assert config["model"]["_target_"] == "mynets.small_cnn"
    assert [part["_target_"].rpartition(".")[2] for part in config["augment"]["parts"]] == [
        "CropFlip", "TrivialAugment", "Grey",
    ]  # fmt: skip
    assert "200 training, 0 validation and 40 test images" in some
    assert (tmp_path / "multirun" / "s" / "report.html").exists()
    assert "All 1 trials of t are done" in searched
    assert f"cifar run --config-dir {tmp_path}/conf -m model=mine data=digits" in searched
    assert (tmp_path / "t" / "report.md").exists()

    shutil.rmtree(tmp_path / "multirun" / "s" / "1")
    resumed, reported, experiment, longer = cifar(
        ["resume", "multirun/s", *conf],
        ["report", "multirun/s"],
        ["run", *conf, "data=flowers", "experiment=mine", *TINY, "epochs=1"],
        ["tune", "folder=t", "trials=2", *conf],
    )
    assert "All 2 jobs" in resumed
    assert "cifar run --config-dir" in reported + (tmp_path / "multirun" / "s" / "runs.csv").read_text()
    assert "small_cnn with" in experiment
    assert len([*(tmp_path / "outputs").glob("*/*/summary.json")]) == 1
    assert "All 2 trials of t are done (1 were before)." in longer
    summary = read_summary(tmp_path / "t" / "1")
    assert summary["config"]["model"]["_target_"] == "mynets.small_cnn"
    assert summary["flags"] == ["--config-dir", f"{tmp_path}/conf"]
    assert not [word for word in summary["overrides"] if word.startswith("hydra")]
