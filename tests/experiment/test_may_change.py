"""Which values may change beside resume, when a run is finished, and what a checkpoint of ours is."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from cifar.base.errors import DivergedError, UserError
from cifar.base.run_folder import write_json
from cifar.base.sealed import sealed
from cifar.experiment.config import resolve
from cifar.experiment.restore import LengthError, finished, is_sealed, refuse_other_numbers, result_of
from cifar.experiment.stored.ancestry import content_hash
from tests.conftest import QUIET, Compose


def saved_after(cfg: DictConfig, num_steps: int, **facts: Any) -> dict[str, Any]:
    """Return what is asked of a checkpoint of `cfg` with six steps an epoch."""
    return {
        "config": resolve(cfg),
        "steps_per_epoch": 6,
        "counters": {"step": num_steps},
        "num_skipped": 0,
        "init_hash": None,
    } | facts


@pytest.mark.parametrize(
    ("schedule", "was", "num_steps", "now", "reason"),
    [
        (["schedule=constant"], 3, 12, 2, ""),  # exactly what is done
        (["schedule=constant"], 3, 13, 2, "13 steps are done"),
        (["schedule=constant"], 3, 12, 5, ""),
        (["schedule=step"], 3, 12, 2, ""),
        (["schedule=cosine"], 3, 0, 5, ""),  # no step is done
        (["schedule=cosine"], 3, 1, 5, ""),  # the first has factor 1 either way
        (["schedule=cosine"], 3, 2, 5, "the schedule would have given other learning rates so far"),
        (["schedule=cosine", "schedule.warmup_epochs=1"], 3, 7, 5, ""),
        (["schedule=cosine", "schedule.warmup_epochs=1"], 3, 8, 5, "the schedule would have given other"),
    ],
)
def test_epochs_may_change_while_no_step_would_have_been_another(
    schedule: list[str], was: int, num_steps: int, now: int, reason: str, compose: Compose
) -> None:
    checkpoint = saved_after(compose(*QUIET, *schedule, f"epochs={was}"), num_steps)
    cfg = compose(*QUIET, *schedule, f"epochs={now}", "resume=auto")
    if reason:
        with pytest.raises(
            LengthError, match=f"epochs={now} is not possible .* resumed: {reason}.* It has epochs={was}"
        ):
            refuse_other_numbers(cfg, checkpoint)
    else:
        refuse_other_numbers(cfg, checkpoint)


def test_skipping_may_begin_but_not_end_once_steps_were_skipped(compose: Compose) -> None:
    stop, skip = (compose(*QUIET, f"on_nonfinite={word}", "resume=auto") for word in ("stop", "skip"))
    refuse_other_numbers(skip, saved_after(stop, 6))
    refuse_other_numbers(stop, saved_after(skip, 6))
    with pytest.raises(UserError, match="on_nonfinite=stop is not possible"):
        refuse_other_numbers(stop, saved_after(skip, 6, num_skipped=1))


def test_the_first_weights_may_move_but_not_change(tmp_path: Path, compose: Compose) -> None:
    for name, text in (("here.pt", "same"), ("there.pt", "same"), ("other.pt", "other")):
        (tmp_path / name).write_text(text)
    here, there, other = (
        compose(*QUIET, f"init_from={tmp_path}/{name}.pt", "resume=auto") for name in ("here", "there", "other")
    )
    content = content_hash(str(tmp_path / "here.pt"))
    checkpoint = saved_after(here, 6, init_hash=content)
    refuse_other_numbers(here, checkpoint)
    refuse_other_numbers(there, checkpoint)
    refuse_other_numbers(here, saved_after(here, 6))  # of a time before hashes
    for cfg in (other, compose(*QUIET, "resume=auto")):
        with pytest.raises(UserError, match=r"init_from=.* is not possible"):
            refuse_other_numbers(cfg, checkpoint)
    (tmp_path / "here.pt").write_text("replaced")
    with pytest.raises(UserError, match="the file has another content"):
        refuse_other_numbers(here, checkpoint)
    here.resume = str(tmp_path)  # the run's own folder goes on from the checkpoint, whatever became of the file
    refuse_other_numbers(here, checkpoint)


@pytest.mark.parametrize("word", ["accumulate=2", "batch_size=20", "label_smoothing=0.1", "lr=0.5", "seed=1"])
def test_what_may_change_does_not_let_other_values_pass(tmp_path: Path, compose: Compose, word: str) -> None:
    """More epochs at a constant rate and a file that moved are fine; each of the others is refused beside them."""
    for name in ("here.pt", "there.pt"):
        (tmp_path / name).write_text("same")
    fixed = [*QUIET, "schedule=constant", "resume=auto"]
    content = content_hash(str(tmp_path / "here.pt"))
    checkpoint = saved_after(compose(*fixed, "epochs=3", f"init_from={tmp_path}/here.pt"), 6, init_hash=content)
    for words in ([], ["epochs=5"], ["epochs=5", f"init_from={tmp_path}/there.pt"]):
        changed = [*fixed, "epochs=3", f"init_from={tmp_path}/here.pt", *words]
        refuse_other_numbers(compose(*changed), checkpoint)
        with pytest.raises(
            UserError, match=f"{word} is not possible .*: it would have given other numbers so far"
        ) as error:
            refuse_other_numbers(compose(*changed, word), checkpoint)
        assert not isinstance(error.value, LengthError)


@pytest.mark.parametrize("digit", ["0", "f"])
def test_another_file_of_first_weights_is_refused(tmp_path: Path, compose: Compose, digit: str) -> None:
    (tmp_path / "other.pt").write_text("other")
    checkpoint = saved_after(compose(*QUIET, "init_from=gone.pt"), 6, init_hash=digit * 64)
    cfg = compose(*QUIET, f"init_from={tmp_path}/other.pt", f"resume={tmp_path}")
    with pytest.raises(UserError, match=r"init_from=.* is not possible .* It has init_from=gone\.pt"):
        refuse_other_numbers(cfg, checkpoint)


@pytest.mark.parametrize("status", ["completed", "diverged", "failed", "interrupted", "running"])
@pytest.mark.parametrize("is_tested", [True, False])
@pytest.mark.parametrize("number_hash", ["abc", "xyz"])
def test_a_run_is_finished_that_ended_was_tested_and_is_the_same(
    tmp_path: Path, status: str, is_tested: bool, number_hash: str
) -> None:
    summary = {"status": status, "config_hash": number_hash, **({"test_accuracy": 0.5} if is_tested else {})}
    write_json(tmp_path / "summary.json", summary)
    is_over = status in ("completed", "diverged") and is_tested and number_hash == "abc"
    assert finished(tmp_path, "abc") == (summary if is_over else None)


def test_a_finished_runs_result_is_given_again() -> None:
    assert result_of({"status": "completed", "val_accuracy": 0.25, "test_accuracy": 0.5}) == 0.25
    assert result_of({"status": "completed", "test_accuracy": 0.5}) == 0.5
    with pytest.raises(DivergedError, match="gone") as error:
        result_of({"status": "diverged", "error": "gone", "diverged_step": 3, "test_accuracy": 0.5})
    assert error.value.facts == {"diverged_step": 3, "diverged_lr": None, "last_finite_loss": None}


def test_seals_are_found_at_the_end_of_files_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, expected in ((b"", False), (b"short", False), (bytes(1000), False), (bytes(sealed({"a": 1})), True)):
        path.write_bytes(content)
        assert is_sealed(path) is expected
    path.write_bytes(path.read_bytes() + b"x")
    assert not is_sealed(path)
