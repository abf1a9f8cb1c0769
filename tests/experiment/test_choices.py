"""Every choice of every group builds, takes two steps, and goes on after the first as if nothing had been between."""

import copy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from cifar.base.errors import UserError
from cifar.experiment.building import build_parts
from cifar.experiment.loaders import build_loaders
from cifar.experiment.run import fit_to_images, go_on_from, new_trainer, run
from cifar.tracking.tracking import RunInfo
from cifar.training.state import state_of
from tests.conftest import QUIET, Compose, read_summary
from tests.experiment.test_config import CHOICES, small_data
from tests.experiment.test_restore import assert_identical

ELSEWHERE = [("device", "cuda"), ("device", "mps")]  # devices that this machine may lack
# Each is built and trained twice; those that read CIFAR's files take their steps on made ones, cifar10 in
# test_real_data.py. What a tracker records is in the tests of tracking/, what more test sets tell in those of beside/.
HERE = [
    (group, choice)
    for group, choice in CHOICES
    if (group, choice) not in [*ELSEWHERE, ("data", "cifar10")] and group != "test_on"
]


def words(group: str, choice: str) -> list[str]:
    """Return a command's words for two steps of two images, with all that the choice decides left to it."""
    given = [word for word in QUIET if not word.startswith(group)]
    if choice.startswith(("speedrun", "ablation")):  # its groups of weights are those of its own model
        given = [*(word for word in given if not word.startswith("model.")), "model.widths=[4,4,4]"]
    if choice.startswith(("wrn", "resnet18")):  # the same code in a tenth of the time
        given = [*(word for word in given if not word.startswith("model.")), "model.width=2"]
    if group == "model":  # keeps less than Adam of the large ones
        given += ["optimizer=sgd", "lr=0.01"]
    sizes = ["batch_size=2", "data.limit=4", "data.val_size=10", "data.test_limit=2", "epochs=1", "init_from=null"]
    return [*given, *sizes, f"{group}={choice}"]


def trained(cfg: DictConfig, state: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's states after the first step that it takes and at its end; it goes on from a `state`."""
    parts = build_parts(cfg, RunInfo("run", None, {}, is_resumed=state is not None))
    loaders = build_loaders(cfg, parts)
    trainer, states = new_trainer(cfg, parts, loaders), list[dict[str, Any]]()
    if state is None:
        fit_to_images(parts.model, loaders.train)
    else:
        go_on_from(state, trainer, "The state")
    trainer.between_batches = lambda: None if states else states.append(copy.deepcopy(state_of(trainer)))
    trainer.fit()
    return states[0], timeless(state_of(trainer))


def timeless(node: Any) -> Any:
    """Return nested dicts without what a clock gave."""
    if isinstance(node, dict):
        return {key: timeless(value) for key, value in node.items() if "seconds" not in str(key)}
    return node


@pytest.mark.parametrize(("group", "choice"), HERE)
def test_every_choice_takes_two_steps_and_resumes_to_the_last_bit(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, group: str, choice: str
) -> None:
    data = small_data(choice, tmp_path / "data", monkeypatch) if group == "data" else []
    cfg = compose(*words(group, choice), *data)
    first, last = trained(cfg)
    assert (first["counters"]["step"], last["counters"]["step"]) == (1, 2)
    _, resumed = trained(cfg, first)
    assert_identical(last, resumed)


@pytest.mark.parametrize(("group", "choice"), ELSEWHERE)
def test_a_device_that_is_not_there_is_one_message(compose: Compose, tmp_path: Path, group: str, choice: str) -> None:
    with pytest.raises(UserError, match=f"device={choice} is not possible"):
        run(compose(*words(group, choice)), tmp_path)


@pytest.mark.parametrize("choice", [choice for group, choice in CHOICES if group == "tracker"])
def test_every_tracker_follows_a_run(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run(compose(*words("tracker", choice)), tmp_path)
    assert read_summary(tmp_path)["steps"] == 2
    assert bool([*tmp_path.glob("wandb/offline-run-*")]) == (choice == "wandb")
    assert bool([*tmp_path.rglob("events.out.tfevents*")]) == (choice == "tensorboard")
