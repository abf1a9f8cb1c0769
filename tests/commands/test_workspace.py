"""The view for Weights & Biases, and the file for its sweep agent."""

import builtins
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cifar.base.errors import UserError
from cifar.base.paths import python
from cifar.commands import workspace
from cifar.commands.app.new_folder import NewFolder
from cifar.commands.workspace import LAYOUT, PICTURES, make_workspace
from cifar.experiment.config import check
from tests.conftest import QUIET, ROOT, Command, Compose, read_metrics

# wandb-workspaces defines its classes in pydantic's older way
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


def test_the_view_shows_every_metric_that_a_run_logs(tmp_path: Path, command: Command) -> None:
    assert command(*QUIET, "data.val_size=20", "hydra.run.dir=run").returncode == 0
    logged = {key for line in read_metrics(tmp_path / "run") for key in line}
    shown = {key for rows in LAYOUT.values() for keys in rows for key in keys}
    assert shown <= logged
    assert logged - shown == {"step", "epoch", "time_seconds", "train/epoch_loss", "train/epoch_accuracy"}


def test_the_view_has_a_panel_for_each() -> None:
    view = make_workspace("me", "cifar", "A view")
    assert (view.entity, view.project, view.name) == ("me", "cifar", "A view")
    assert [section.name for section in view.sections] == [*LAYOUT, "Test images"]
    for section, rows in zip(view.sections, LAYOUT.values(), strict=False):
        assert [panel.y for panel in section.panels] == rows
    assert [panel.table_name for panel in view.sections[-1].panels] == PICTURES
    assert view._to_model() is not None  # what would be sent to the server


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WANDB_ENTITY": "me"}, f"There is no API key; {python()} -m wandb login stores one."),
        ({}, "Whose project is it? Give --entity TEAM, or set WANDB_ENTITY."),
        (
            {"WANDB_ENTITY": "me", "WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://127.0.0.1:1"},
            "There is no answer from http://127.0.0.1:1.",
        ),
    ],
)
def test_without_a_login_or_a_server_there_is_one_message(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["workspace"])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as end:
        workspace.main()
    assert str(end.value) == message


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name.startswith("wandb_workspaces"):
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'cifar-framework\[workspaces\]'"):
        make_workspace("me", "cifar", "A view")


def test_what_the_sweep_agent_calls_is_a_command_of_ours(compose: Compose) -> None:
    sweep = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text())
    assert (ROOT / sweep["program"]).is_file()
    chosen = {name: parameter["values"][0] for name, parameter in sweep["parameters"].items()}
    words: list[str] = []
    for part in sweep["command"]:
        words += [f"{name}={value}" for name, value in chosen.items()] if part == "${args_no_hyphens}" else [part]
    assert words[:3] == ["${env}", "${interpreter}", "${program}"]
    cfg = compose(*words[3:])
    check(cfg)
    assert (cfg.lr, cfg.seed, cfg.data.val_size) == (0.0003, 0, 5000)


def test_agents_that_start_a_run_in_the_same_second_each_get_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text())
    words = [word for word in sweep["command"] if "=" in word]
    assert not [word for word in words if word.startswith("hydra.")]  # the folder is named by the time
    words.append("hydra.run.dir=outputs/${now:%Y}")  # … here by one that is equal for both
    folders = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for lr in (0.1, 0.2):
            config = compose("config", overrides=[f"lr={lr}", *words], return_hydra_config=True)
            OmegaConf.set_readonly(config.hydra, False)
            NewFolder().on_run_start(config)
            folders.append(config.hydra.run.dir)
    year = f"outputs/{datetime.now().year}"
    assert folders == [year, f"{year}-1"]
    assert all(Path(folder).is_dir() for folder in folders)
