"""Paths as they are typed: below home or without one, links that lead nowhere, after hydra.job.chdir."""

import pwd
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from cifar.base.errors import UserError
from cifar.base.paths import absolute, shown, why_no_file
from tests.conftest import QUIET, ROOT, TINY, Command, read_summary


@pytest.fixture(name="no_home")
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user without HOME and without an account, as in many containers."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture(name="typed_in")
def _typed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a job of Hydra's that has left the folder in which the command was typed."""
    typed_in, elsewhere = tmp_path / "here", tmp_path / "here" / "outputs" / "run"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"runtime": {"cwd": str(typed_in)}}}))
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"runtime": {"cwd": str(typed_in)}}))
    return typed_in


def test_relative_paths_mean_the_folder_where_the_command_was_typed(typed_in: Path) -> None:
    assert absolute("data") == typed_in / "data"
    assert absolute("../data") == typed_in.parent / "data"
    assert absolute("/data") == Path("/data")
    assert absolute("~/data") == Path.home() / "data"
    assert shown(Path.cwd()) == "outputs/run"


def test_without_hydra_that_is_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("é ü/$x") == tmp_path / "é ü" / "$x"
    assert shown(tmp_path / "a") == "a"


@pytest.mark.usefixtures("no_home")
def test_without_a_home_a_path_below_it_is_refused_and_others_are_not() -> None:
    with pytest.raises(UserError, match=r"^~/data: there is no home folder that ~ could stand for\.$"):
        absolute("~/data")
    assert absolute("/data") == Path("/data")


def test_why_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", str(tmp_path))
    link, folder = tmp_path / "link", tmp_path / "folder"
    link.symlink_to("gone")
    for path in ("link", f"{link}/below"):
        assert why_no_file(path) == f"{link} is a link to gone, which does not exist"
    for path in ("x", "$HERE/x", "~nobody/x"):
        assert why_no_file(path) == "there is no such file"
    folder.mkdir()
    assert why_no_file("folder") == "it is a folder"
    (folder / "checkpoint.pt").touch()
    assert why_no_file("folder") == "it is a folder: give its file folder/checkpoint.pt"
    assert why_no_file("$HERE/folder") == "there is no such file, because quotes keep the shell from replacing the $"


def test_a_run_that_changes_into_its_folder_finds_and_leaves_all_where_the_command_was_typed(
    tmp_path: Path, command: Command
) -> None:
    assert command(*QUIET, "hydra.run.dir=old").returncode == 0
    (tmp_path / "old" / "checkpoint.pt").rename(tmp_path / "w ä.pt")
    words = [*TINY, "tracker=wandb", "tracker.dir=dash", "init_from='w ä.pt'", "epochs=0", "hydra.run.dir=new"]
    result = command(*words, "hydra.job.chdir=true", WANDB_MODE="offline")
    assert result.returncode == 0, result.stderr
    assert " -m wandb leet dash/wandb/offline-run-" in result.stdout
    assert result.stdout.endswith("Results: new\n")
    assert len([*tmp_path.glob("dash/wandb/offline-run-*")]) == 1
    assert read_summary(tmp_path / "new")["test_loss"] == read_summary(tmp_path / "old")["test_loss"]
    again = command("resume=new", TINY[0], "hydra.job.chdir=true")
    assert again.stdout.startswith("new is done already")


def test_a_user_without_home_and_account_has_a_run_like_others(tmp_path: Path, command: Command) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "nobody.py").write_text(
        "import os, pwd, runpy, sys\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "for name in ('HOME', 'USER', 'LOGNAME', 'LNAME', 'USERNAME'): os.environ.pop(name, None)\n"
        f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
    )
    words = [*TINY, "tracker=wandb", "hydra.run.dir=run", "hydra.sweep.dir=sweep"]
    result = command("-m", *words, "seed=1,2", program=[str(site / "nobody.py")], WANDB_MODE="offline")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "home" not in result.stdout
    assert "Matplotlib" not in result.stdout
    assert "dashboard failed" not in result.stdout
