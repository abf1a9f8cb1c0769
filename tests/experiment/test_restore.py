"""Exact resume: a run that was cut anywhere, any number of times, equals the one that never was, to the last bit."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from cifar.base import signals
from cifar.base.errors import DivergedError, UserError
from cifar.base.run_folder import put_aside
from cifar.base.sealed import read_checkpoint
from cifar.experiment.config import config_hash, resolve
from cifar.experiment.keeper import Keeper
from cifar.experiment.restore import (
    LengthError,
    finished,
    place,
    restore,
    restore_or_begin_anew,
    result_of,
    set_newer_aside,
    with_overrides,
)
from cifar.experiment.run import run
from cifar.experiment.typed.command_line import quote
from cifar.training.checkpoint import find_checkpoints
from cifar.training.measures.divergence import Watch
from cifar.training.trainer import Trainer
from tests.conftest import QUIET, ROOT, Compose, read_metrics, read_summary

OPTIMIZERS, SCHEDULES, AUGMENTS, MIXES = (
    sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    for group in ("optimizer", "schedule", "augment", "mix")
)
FOLDERS = [ROOT / "conf", ROOT / "tests" / "conf"]  # what they name may be built
TIMES = ("time_seconds", "train/images_per_second")
LONG = [*QUIET, "epochs=3", "data.val_size=20", "log_every=4", "checkpoint.every_minutes=null"]


@pytest.fixture(autouse=True)
def _forget_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", None)


look = Keeper.between_batches


def cut_after(monkeypatch: pytest.MonkeyPatch, num_batches: int | None) -> None:
    """Let a signal have come when the run looks for the `num_batches`-th time from now; None: never."""
    remaining = [num_batches]
    signals._received = None

    def between_batches(keeper: Keeper, trainer: Trainer) -> None:
        if remaining[0] is not None:
            remaining[0] -= 1
            if remaining[0] == 0:
                signals._received = signal.SIGTERM
        look(keeper, trainer)

    monkeypatch.setattr(Keeper, "between_batches", between_batches)


def resumed(cfg: DictConfig, folder: Path) -> float:
    """Continue the run in `folder` with `cfg`, or start it."""
    cfg = OmegaConf.merge(cfg, {"resume": "auto"})  # type: ignore[assignment]
    cfg, checkpoint = restore(cfg, folder, [])
    return run(cfg, folder, "name", "group", checkpoint)


def run_with_cuts(monkeypatch: pytest.MonkeyPatch, cfg: DictConfig, folder: Path, cuts: Iterator[int]) -> int:
    """Run `cfg` to its end, cut after each of `cuts` numbers of batches; return how many cuts there were."""
    folder.mkdir()
    num_cuts = 0
    while True:
        cut_after(monkeypatch, next(cuts, None))
        try:
            resumed(cfg, folder)
        except signals.Interrupted:
            num_cuts += 1
            assert read_summary(folder)["status"] == "interrupted"
            continue
        return num_cuts


def results(folder: Path) -> dict[str, Any]:
    """Return all that must be the same: metrics but for times, final state, summary's results."""
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(folder)]
    summary = read_summary(folder)
    kept = ("status", "config_hash", "steps", "epochs", "test_loss", "test_accuracy", "val_loss", "val_accuracy",
            "best_val_accuracy", "best_val_epoch")  # fmt: skip
    state = read_checkpoint(folder / "checkpoint.pt")
    counters = {name: value for name, value in state["counters"].items() if not name.endswith("_seconds")}
    parts = ("model", "optimizer", "rng", "num_skipped", "last_loss")
    return {
        "metrics": lines,
        "summary": {key: summary.get(key) for key in kept},
        "state": {part: state[part] for part in parts} | counters,
    }


def assert_identical(one: Any, other: Any, path: str = "") -> None:
    """Compare nested values; tensors bit by bit."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_identical(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_identical(left, right, f"{path}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, path
        assert one.stride() == other.stride(), path
        assert one.numpy().tobytes() == other.numpy().tobytes(), path
    else:
        assert one == other, path


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_cut_many_times_equals_the_uncut_one_with_every_optimizer_and_schedule(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, optimizer: str, schedule: str
) -> None:
    cfg = compose(*LONG, f"optimizer={optimizer}", f"schedule={schedule}")
    assert run_with_cuts(monkeypatch, cfg, tmp_path / "uncut", iter([])) == 0
    numbers = random.Random(f"{optimizer} {schedule}")
    cuts = (numbers.randint(1, 5) for _ in range(12))
    assert run_with_cuts(monkeypatch, cfg, tmp_path / "cut", cuts) >= 4  # 25 places, at most 5 apart
    assert_identical(results(tmp_path / "uncut"), results(tmp_path / "cut"))


@pytest.mark.parametrize(
    "overrides",
    [
        *[[f"augment={augment}"] for augment in AUGMENTS],
        *[[f"mix={mix}", "accumulate=2"] for mix in MIXES],
        ["label_smoothing=0.2", "accumulate=3"],
        ["log_every=1"],
        ["log_every=100"],
        ["data.limit=45", "data.val_size=0"],  # a last batch of five
        ["checkpoint.every_epochs=null"],
        ["checkpoint.every_minutes=1e-9", "checkpoint.keep=1"],  # saved after every step
        ["on_nonfinite=skip"],
        ["device.channels_last=true", "device.precision=bf16"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_whatever_is_set(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    cfg = compose(*LONG, *overrides)
    run_with_cuts(monkeypatch, cfg, tmp_path / "uncut", iter([]))
    assert run_with_cuts(monkeypatch, cfg, tmp_path / "cut", iter([3, 5, 1, 4, 2])) == 5
    assert_identical(results(tmp_path / "uncut"), results(tmp_path / "cut"))


@pytest.mark.parametrize("num_batches", range(1, 26))
def test_a_cut_at_every_single_place(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, num_batches: int, uncut: dict[str, Any]
) -> None:
    """Six steps an epoch and a batch of validation, three times; then two batches of test images."""
    cfg = compose(*LONG)
    cuts = run_with_cuts(monkeypatch, cfg, tmp_path / "cut", iter([num_batches]))
    assert cuts == (1 if num_batches <= 23 else 0)
    assert_identical(uncut, results(tmp_path / "cut"))
    assert read_summary(tmp_path / "cut")["times_resumed"] == cuts


@pytest.fixture(name="uncut", scope="module")
def _uncut(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    folder = tmp_path_factory.mktemp("uncut")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        run(compose("config", overrides=LONG), folder)
    return results(folder)


def test_times_go_on_where_they_were(tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with_cuts(monkeypatch, compose(*LONG), tmp_path / "cut", iter([3, 5, 4]))
    times = [line["time_seconds"] for line in read_metrics(tmp_path / "cut")]
    assert times == sorted(times)
    assert 0 < read_summary(tmp_path / "cut")["train_seconds"] <= times[-1]


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_more_epochs_give_what_as_many_from_the_start_would(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    options = [*LONG, f"schedule={schedule}"]
    run_with_cuts(monkeypatch, compose(*options, "epochs=5"), tmp_path / "long", iter([]))
    run_with_cuts(monkeypatch, compose(*options), tmp_path / "short", iter([]))
    resumed(compose(*options, "epochs=5"), tmp_path / "short")
    assert_identical(results(tmp_path / "long"), results(tmp_path / "short"))


@pytest.fixture(name="cut_run")
def _cut_run(tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run that was cut in the second of three epochs."""
    folder = tmp_path / "run"
    folder.mkdir()
    cut_after(monkeypatch, 10)
    with pytest.raises(signals.Interrupted):
        run(compose(*LONG, "schedule=cosine"), folder, "name", "group")
    monkeypatch.undo()
    assert read_summary(folder)["steps"] == 9
    return folder


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        (["log_every=1"], "log_every", 1),
        (["checkpoint.keep=5"], "checkpoint.keep", 5),
        (["checkpoint.every_minutes=null"], "checkpoint.every_minutes", None),
        (["tracker.mode=offline", "tracker=wandb"], "tracker.mode", "offline"),
        (["data.root=/elsewhere"], "data.root", "/elsewhere"),
        (["on_nonfinite=skip"], "on_nonfinite", "skip"),
        (["lr=0.001"], "lr", 0.001),  # as it was
        (["model._target_=tests.tiny_model.tiny"], "epochs", 3),
    ],
)
def test_what_may_be_given_beside_resume_is_taken(
    cut_run: Path, compose: Compose, given: list[str], key: str, value: Any
) -> None:
    before = read_checkpoint(cut_run / "checkpoint.pt")
    cfg, checkpoint = restore(compose(*given, f"resume={cut_run}"), cut_run, given, FOLDERS)
    assert OmegaConf.select(cfg, key) == value
    assert checkpoint is not None
    assert checkpoint["counters"]["step"] == 9
    others = {name: node for name, node in before["config"].items() if name not in ("resume", key.partition(".")[0])}
    assert {name: node for name, node in resolve(cfg).items() if name in others} == others


def test_the_data_moved(cut_run: Path, compose: Compose) -> None:
    """A value that another one is made of takes effect there too."""
    given = ["data.root=/moved"]
    cfg = with_overrides(compose("data=cifar10", "tracker=none"), compose(*given), given)
    assert (cfg.data.root, cfg.data.source.root) == ("/moved", "/moved")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["lr=0.01"], "lr=0.01 is not possible for the run that is resumed: it would have given other numbers so far. "
                      "It has lr=0.001."),
        (["seed=1"], "seed=1 is not possible"),
        (["batch_size=20"], "batch_size=20 is not possible"),
        (["optimizer=sgd"], "optimizer._target_=torch.optim.SGD is not possible"),
        (["model=vgg16"], "model._target_=cifar.models.vgg.vgg16 is not possible"),
        (["augment=none"], "augment._target_=cifar.data.augment.pipeline.Unchanged is not possible"),
        (["device.threads=1"], "device.threads=1 is not possible"),
        (["data.limit=30"], "data.limit=30 is not possible"),
        (["epochs=5"], "epochs=5 is not possible for the run that is resumed: the schedule would have given other "
                       "learning rates so far. It has epochs=3."),
        (["epochs=1"], "epochs=1 is not possible for the run that is resumed: 9 steps are done."),
        (["experiment=demo"], "experiment=demo can't be given beside resume"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_would_have_given_other_numbers_is_refused_by_name_and_nothing_changes(
    cut_run: Path, compose: Compose, given: list[str], message: str
) -> None:
    before = {path.name: path.read_bytes() for path in cut_run.iterdir()}
    with pytest.raises(UserError) as error:
        restore(compose(*given, f"resume={cut_run}"), cut_run, given, FOLDERS)
    assert str(error.value).startswith(message)
    assert {path.name: path.read_bytes() for path in cut_run.iterdir()} == before


def test_auto_compares_the_whole_command(cut_run: Path, compose: Compose) -> None:
    same = [*LONG, "schedule=cosine", "resume=auto"]
    assert restore(compose(*same, "tracker=wandb"), cut_run, [])[1] is not None
    with pytest.raises(UserError, match=r"schedule\._target_=cifar\.training\.schedules\.Constant is not possible"):
        restore(compose(*LONG, "resume=auto"), cut_run, [])


def test_the_stored_configuration_counts_not_todays_files(cut_run: Path, compose: Compose) -> None:
    cfg, checkpoint = restore(compose("batch_size=64", f"resume={cut_run}"), cut_run, [], FOLDERS)
    assert checkpoint is not None
    assert resolve(cfg) == checkpoint["config"] | {"resume": str(cut_run)}
    assert config_hash(resolve(cfg)) == checkpoint["config_hash"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, cut_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = compose(*LONG, "schedule=cosine")
    run_with_cuts(monkeypatch, cfg, tmp_path / "uncut", iter([]))
    data = bytearray((cut_run / "checkpoint.pt").read_bytes())
    data[1234] ^= 4
    (cut_run / "checkpoint.pt").write_bytes(data)
    resumed(cfg, cut_run)
    assert "checkpoint.pt is cut or damaged" in caplog.text
    assert (cut_run / "checkpoint.pt.damaged").read_bytes() == bytes(data)
    assert_identical(results(tmp_path / "uncut"), results(cut_run))


def test_an_older_checkpoint_can_be_chosen(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, cut_run: Path
) -> None:
    run_with_cuts(monkeypatch, compose(*LONG, "schedule=cosine"), tmp_path / "uncut", iter([]))
    older = cut_run / "checkpoint-1.pt"
    cfg, checkpoint = restore(compose(f"resume={older}"), cut_run, [], FOLDERS)
    assert checkpoint is not None
    assert checkpoint["counters"]["step"] == 6
    assert len(find_checkpoints(cut_run)) == 2  # nothing has changed before it is sure that the run goes on
    (cut_run / "checkpoint.pt.newer").touch()
    set_newer_aside(str(older), cut_run)
    assert [path.name for path in find_checkpoints(cut_run)] == ["checkpoint-1.pt"]
    assert (cut_run / "checkpoint.pt.newer-1").stat().st_size > 0
    run(cfg, cut_run, checkpoint=checkpoint)
    assert_identical(results(tmp_path / "uncut"), results(cut_run))


def test_without_an_intact_checkpoint_auto_starts_and_a_path_is_refused(cut_run: Path, compose: Compose) -> None:
    for path in find_checkpoints(cut_run):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="no intact checkpoint"):
        restore(compose(f"resume={cut_run}"), cut_run, [], FOLDERS)
    cfg = compose(*LONG, "schedule=cosine", "resume=auto")
    assert restore(cfg, cut_run, []) == (cfg, None)
    run(cfg, cut_run)  # over the lines of the run that was cut
    assert [line["step"] for line in read_metrics(cut_run) if "lr" in line] == [4, 6, 10, 12, 16, 18]


def test_weights_alone_cannot_be_resumed(cut_run: Path, compose: Compose) -> None:
    model = read_checkpoint(cut_run / "checkpoint.pt")["model"]
    torch.save(model, cut_run / "weights.pt")
    with pytest.raises(UserError, match="holds weights but no run: start a new one with init_from="):
        restore(compose(f"resume={cut_run}/weights.pt"), cut_run, [])
    assert (cut_run / "weights.pt").exists()


def test_a_checkpoint_of_another_model_leaves_metrics_and_summary_alone(cut_run: Path, compose: Compose) -> None:
    cfg, checkpoint = restore(compose(f"resume={cut_run}"), cut_run, [], FOLDERS)
    assert checkpoint is not None
    checkpoint["model"] = {"weight": torch.zeros(3)}
    before = {path.name: path.read_bytes() for path in cut_run.iterdir()}
    with pytest.raises(UserError, match=r"does not fit the Sequential: it lacks 0\.weight"):
        run(cfg, cut_run, checkpoint=checkpoint)
    assert {path.name: path.read_bytes() for path in cut_run.iterdir()} == before


def test_lost_lines_of_metrics_are_warned_of(cut_run: Path, compose: Compose, caplog: pytest.LogCaptureFixture) -> None:
    lines = (cut_run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (cut_run / "metrics.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:10])
    resumed(compose(*LONG, "schedule=cosine"), cut_run)
    assert "metrics.jsonl is shorter than when the checkpoint was saved" in caplog.text
    assert [line["step"] for line in read_metrics(cut_run)][:3] == [4, 6, 10]


def test_other_software_is_warned_of(
    cut_run: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cifar.experiment.run.library_versions", lambda: {"torch": "9.9"})
    monkeypatch.setattr("cifar.experiment.run.git_commit", lambda: "abc")
    resumed(compose(*LONG, "schedule=cosine"), cut_run)
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "the last bits may differ" in message
    assert "git_commit " in message
    assert "→ 9.9" in message


def test_a_diverged_run_can_go_on_if_steps_are_skipped(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step = Trainer.take_step

    def overflow(trainer: Trainer, inputs: torch.Tensor, labels: torch.Tensor) -> float:
        return take_step(trainer, inputs * torch.inf if trainer.counters.step == 8 else inputs, labels)

    monkeypatch.setattr(Trainer, "take_step", overflow)
    with pytest.raises(DivergedError, match="at step 9"):
        run(compose(*LONG), tmp_path)
    summary = finished(tmp_path, config_hash(resolve(compose(*LONG))))
    assert summary is not None
    with pytest.raises(DivergedError, match="at step 9"):
        result_of(summary)
    assert resumed(compose(*LONG, "on_nonfinite=skip"), tmp_path) == read_summary(tmp_path)["val_accuracy"]
    assert (read_summary(tmp_path)["skipped_steps"], read_summary(tmp_path)["status"]) == (1, "completed")
    with pytest.raises(UserError, match="on_nonfinite=stop is not possible for the run that is resumed"):
        restore(compose(*LONG, "resume=auto"), tmp_path, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=absent"], "resume=absent: there is no such folder or checkpoint"),
        (["resume=run", "hydra.run.dir=elsewhere"], "leave hydra.run.dir out"),
        (["resume=sweep"], "resume=sweep is a sweep. To continue it: cifar resume sweep"),
        (["resume="], "resume= is not possible: it takes one run's folder, a checkpoint, or auto"),
        (["resume=a,b"], "resume=a,b is not possible: it takes one run's folder"),
        (["resume=empty"], "resume=empty: no run has begun to train in this folder"),
        (["resume=run/notes.txt"], "resume=run/notes.txt is not a run's checkpoint. .* init_from=run/notes.txt"),
        (["-m", "resume=run"], "resume=run is for one run. To continue a sweep: cifar resume"),
    ],
)
def test_a_resume_that_cant_be_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    (tmp_path / "run" / "notes.txt").write_text("the weights of a friend")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    with pytest.raises(UserError, match=message):
        place(arguments)


def test_where_a_resumed_run_is_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / "beside")
    for name in ("it's a run, really = 1", "größe [1] {c} ~x", "2026_01", "1e3", "a\\b", "${seed}", "end\\"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").touch()
        (folder / "checkpoint.pt").touch()
        for text in (str(folder), str(folder / "checkpoint.pt"), f"../{name}", f"../{name}/"):
            for word in (f"resume={text}", f"resume={quote(text)}"):
                arguments = place([word, "epochs=2"])
                assert arguments == ["epochs=2", f"resume={quote(text)}", f"hydra.run.dir={quote(str(folder))}"]
            parsed = OverridesParser.create().parse_overrides(arguments)
            values = OmegaConf.create([override.value() for override in parsed])
            assert [*values] == [2, text, str(folder)]
    for arguments in (["lr=0.1"], ["resume=null"], ["resume=auto"], ["-m", "resume=auto", "lr=1,2"]):
        assert place(arguments) == arguments


def test_putting_aside_keeps_everything(cut_run: Path) -> None:
    names = {path.name for path in cut_run.iterdir()}
    assert put_aside(cut_run) == cut_run / "replaced-1"
    assert {path.name for path in (cut_run / "replaced-1").iterdir()} == names
    assert {path.name for path in cut_run.iterdir()} == {"replaced-1"}
    assert put_aside(cut_run) == cut_run / "replaced-2"


def test_a_signal_while_the_diverged_state_is_evaluated_leaves_the_checkpoint_before(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(*QUIET, "optimizer=sgd", "lr=1e36", "epochs=2", "log_every=100", "checkpoint.every_minutes=1e-9")
    for name in ("uncut", "cut"):
        (tmp_path / name).mkdir()
    with pytest.raises(DivergedError):
        run(cfg, tmp_path / "uncut")
    raise_diverged = Watch.raise_diverged

    def diverge_and_be_stopped(watch: Watch, *args: Any) -> None:
        monkeypatch.setattr(signals, "_received", signal.SIGTERM)
        raise_diverged(watch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "raise_diverged", diverge_and_be_stopped)
        with pytest.raises(signals.Interrupted):
            run(cfg, tmp_path / "cut")
    monkeypatch.setattr(signals, "_received", None)
    assert read_summary(tmp_path / "cut")["status"] == "interrupted"
    with pytest.raises(DivergedError):
        resumed(cfg, tmp_path / "cut")
    one, other = read_summary(tmp_path / "uncut"), read_summary(tmp_path / "cut")
    for key in ("status", "steps", "diverged_step", "diverged_lr", "last_finite_loss", "test_accuracy"):
        assert one[key] == other[key], key
    lines = [[{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(tmp_path / name)]
             for name in ("uncut", "cut")]  # fmt: skip
    assert lines[0] == lines[1]


def test_epochs_after_an_evaluation_without_training_count_their_best_from_one(
    tmp_path: Path, compose: Compose
) -> None:
    for name in ("longer", "uncut"):
        (tmp_path / name).mkdir()
    run(compose(*QUIET, "epochs=0", "data.val_size=20"), tmp_path / "longer")
    cfg, checkpoint = restore(compose(*QUIET, "epochs=1", "data.val_size=20", "resume=auto"), tmp_path / "longer", [])
    run(cfg, tmp_path / "longer", checkpoint=checkpoint)
    run(compose(*QUIET, "epochs=1", "data.val_size=20"), tmp_path / "uncut")
    assert (
        read_summary(tmp_path / "longer")["best_val_epoch"] == read_summary(tmp_path / "uncut")["best_val_epoch"] == 1
    )


def test_what_auto_can_not_continue_is_put_aside_but_not_for_its_length(
    cut_run: Path, compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path.name: path.read_bytes() for path in cut_run.iterdir()}
    cfg = compose(*LONG, "schedule=cosine", "epochs=1", "resume=auto")
    with pytest.raises(LengthError, match="9 steps are done"):
        restore_or_begin_anew(cfg, cut_run, "The run")
    assert {path.name: path.read_bytes() for path in cut_run.iterdir()} == before
    same = compose(*LONG, "schedule=cosine", "resume=auto")
    assert restore_or_begin_anew(same, cut_run, "The run")[1] is not None
    other = compose(*LONG, "schedule=cosine", "lr=0.5", "resume=auto")
    assert restore_or_begin_anew(other, cut_run, "The run") == (other, None)
    assert {path.name: path.read_bytes() for path in (cut_run / "replaced-1").iterdir()} == before
    assert "The run is begun anew; what it had is now in " in caplog.text
