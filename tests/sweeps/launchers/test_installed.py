"""The engines as the installed command has them, and what it says where their packages are missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import QUIET, ROOT

ENGINES = ("joblib", "submitit", "ray", "psycopg", "hydra_plugins", "cifar", "__editable__")  # ours is found in ROOT
SWEEP = ["run", "-m", *QUIET, "seed=0,1"]
TUNE = ["tune", *QUIET, "lr=0.1,0.2", "data.val_size=20", "trials=1", "folder=mine"]


@pytest.fixture(name="packages", scope="module")
def _packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that is installed, the engines left out."""
    folder = tmp_path_factory.mktemp("packages")
    for place in [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]:
        for entry in place.iterdir():
            if not entry.name.startswith(ENGINES) and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [*SWEEP, "hydra/launcher=joblib"],
            "hydra/launcher=joblib needs hydra-joblib-launcher, which is not installed: "
            "pip install 'cifar-framework[parallel]'",
        ),
        (
            [*SWEEP, "hydra/launcher=slurm"],
            "hydra/launcher=slurm needs submitit, which is not installed: pip install 'cifar-framework[slurm]'",
        ),
        (
            [*SWEEP, "hydra/launcher=ray"],
            "hydra/launcher=ray needs ray, which is not installed: pip install 'cifar-framework[ray]'",
        ),
        (
            [*TUNE, "storage=postgresql://me@localhost/runs"],
            "A search in PostgreSQL needs psycopg, which is not installed: pip install 'cifar-framework[postgres]'",
        ),
    ],
    ids=["parallel", "slurm", "ray", "postgres"],
)
def test_an_engine_that_is_not_installed_is_one_line_with_the_way_to_install_it(
    tmp_path: Path, packages: Path, words: list[str], message: str
) -> None:
    without_site = [sys.executable, "-S", "-m", "cifar", *words]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{packages}"}
    done = subprocess.run(without_site, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{message}\n")


@pytest.mark.parametrize("word", ["slurm hydra.launcher.cpus_per_task=0", "ray hydra.launcher.num_cpus=0"])
def test_the_installed_command_knows_its_launchers_wherever_it_is_given(tmp_path: Path, word: str) -> None:
    command = [str(Path(sys.executable).with_name("cifar")), *SWEEP, *f"hydra/launcher={word}".split()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{word.split()[1]} is not possible: it takes "), done
