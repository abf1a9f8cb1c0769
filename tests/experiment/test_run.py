"""Whole runs from composed configurations: what they leave behind, and that nothing leaks from one to the next."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar.base.errors import DivergedError, UserError
from cifar.base.sealed import read_checkpoint
from cifar.experiment.building import build_parts
from cifar.experiment.config import config_hash, point_hash, resolve
from cifar.experiment.loaders import build_loaders
from cifar.experiment.run import run
from cifar.models.resnet import resnet50
from cifar.tracking.tracking import RunInfo
from cifar.training.devices.device import DEFAULT_THREADS
from tests.conftest import QUIET, ROOT, Compose, read_metrics, read_summary

INFO = RunInfo("run", None, {})


def losses(folder: Path) -> list[float]:
    return [line["train/loss"] for line in read_metrics(folder) if "train/loss" in line]


def test_a_run_leaves_metrics_checkpoint_and_summary(tmp_path: Path, compose: Compose) -> None:
    cfg = compose(*QUIET, "epochs=2", "data.val_size=10")
    accuracy = run(cfg, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-1.pt", "checkpoint.pt", "metrics.jsonl", "predictions.npz", "summary.json",
    ]  # fmt: skip

    lines = read_metrics(tmp_path)
    assert all({"step", "epoch", "time_seconds"} <= set(line) for line in lines)
    times = [line["time_seconds"] for line in lines]
    assert times == sorted(times)
    steps = [(line["step"], line["epoch"]) for line in lines if "train/loss" in line]
    assert steps == [(2, 1), (4, 1), (6, 1), (7, 1), (9, 2), (11, 2), (13, 2), (14, 2)]
    assert all(line["lr"] == 0.001 for line in lines if "train/loss" in line)
    assert [line["epoch"] for line in lines if "val/accuracy" in line] == [1, 2]
    assert [(line["step"], line["epoch"]) for line in lines if "test/accuracy" in line] == [(14, 2)]

    summary = read_summary(tmp_path)
    assert summary["status"] == "completed"
    assert accuracy == summary["val_accuracy"] == lines[-2]["val/accuracy"]
    assert (summary["test_accuracy"], summary["test_loss"]) == (lines[-1]["test/accuracy"], lines[-1]["test/loss"])
    assert (summary["epochs"], summary["steps"], summary["seed"], summary["num_parameters"]) == (2, 14, 0, 330)
    assert summary["config_hash"] == config_hash(resolve(cfg))
    assert summary["images_per_second"] == pytest.approx(140 / summary["train_seconds"])
    assert min(summary[f"{part}_seconds"] for part in ("setup", "train", "eval")) > 0
    assert summary["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"git_commit", "device", "precision", "val_loss"} <= set(summary)
    assert summary["train_loss"] == [line["train/epoch_loss"] for line in lines if "train/epoch_loss" in line][-1]
    assert summary["config"] == resolve(cfg)

    checkpoint = read_checkpoint(tmp_path / "checkpoint.pt")
    assert (checkpoint["counters"]["step"], checkpoint["counters"]["epoch"]) == (14, 2)
    assert checkpoint["config"] == resolve(cfg)
    assert {"model", "optimizer", "rng", "config_hash"} <= set(checkpoint)


def test_zero_epochs_test_a_checkpoint(tmp_path: Path, compose: Compose) -> None:
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    trained = run(compose(*QUIET, "epochs=3", "optimizer=sgd"), tmp_path / "first")
    init_from = f"init_from={tmp_path / 'first' / 'checkpoint.pt'}"
    assert run(compose(*QUIET, "epochs=0", init_from, "seed=5"), tmp_path / "second") == trained
    first, second = read_summary(tmp_path / "first"), read_summary(tmp_path / "second")
    assert second["test_loss"] == first["test_loss"]
    assert (second["epochs"], second["steps"]) == (0, 0)
    assert "images_per_second" not in second
    assert (tmp_path / "second" / "checkpoint.pt").is_file()
    with_split = compose(*QUIET, "epochs=0", init_from, "data.val_size=20")
    assert run(with_split, tmp_path / "third") == read_summary(tmp_path / "third")["val_accuracy"]


def test_without_a_split_the_test_accuracy_is_returned(tmp_path: Path, compose: Compose) -> None:
    assert run(compose(*QUIET), tmp_path) == read_summary(tmp_path)["test_accuracy"]
    assert "val_accuracy" not in read_summary(tmp_path)


def test_init_from_the_courses_file_is_where_training_starts(tmp_path: Path, compose: Compose) -> None:
    model = resnet50()
    nn.init.constant_(model.fc.bias, 3.0)
    state = {key.replace(".shortcut.", ".make_equal_channel."): value for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "course.ckpt")
    cfg = compose("experiment=report_resnet50", "data=random", f"init_from={tmp_path / 'course.ckpt'}", "tracker=none")
    loaded = build_parts(cfg, INFO).model
    assert isinstance(loaded.fc, nn.Linear)
    assert (loaded.fc.bias == 3).all()


def test_what_is_trained_on_mixtures_is_evaluated_on_images(tmp_path: Path, compose: Compose) -> None:
    for name in ("mixed", "again", "plain"):
        (tmp_path / name).mkdir()
    words = [*QUIET, "data.val_size=20", "accumulate=2", "label_smoothing=0.1"]
    run(compose(*words, "mix=both"), tmp_path / "mixed")
    run(compose(*words), tmp_path / "plain")
    assert losses(tmp_path / "mixed") != losses(tmp_path / "plain")
    same = [*words, "data.split_seed=0", "epochs=0", f"init_from={tmp_path / 'mixed' / 'checkpoint.pt'}"]
    run(compose(*same), tmp_path / "again")
    mixed, again = (read_summary(tmp_path / name) for name in ("mixed", "again"))
    for key in ("test_loss", "test_accuracy", "val_loss", "val_accuracy"):
        assert mixed[key] == again[key]


@pytest.mark.parametrize(
    "override", ["device.precision=bf16", "device.channels_last=true", "device.threads=1", "label_smoothing=0.1"]
)
def test_options_that_change_the_arithmetic_take_effect(tmp_path: Path, compose: Compose, override: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "changed").mkdir()
    run(compose(*QUIET), tmp_path / "plain")
    run(compose(*QUIET, override), tmp_path / "changed")
    plain, changed = losses(tmp_path / "plain"), losses(tmp_path / "changed")
    tolerance = {"device.precision=bf16": 0.05, "label_smoothing=0.1": 1.0}.get(override, 1e-4)
    assert changed == pytest.approx(plain, abs=tolerance)
    if tolerance > 1e-4:
        assert changed != plain
    if override == "device.threads=1":
        assert torch.get_num_threads() == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_compile_gives_the_same_losses_up_to_rounding(tmp_path: Path, compose: Compose) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "compiled").mkdir()
    run(compose(*QUIET, "optimizer=sgd", "lr=0.01"), tmp_path / "plain")
    run(compose(*QUIET, "optimizer=sgd", "lr=0.01", "device.compile=true"), tmp_path / "compiled")
    # dropout draws other numbers in compiled code, which a small rate keeps small
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=0.05)
    plain, compiled = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("plain", "compiled"))
    assert plain["model"].keys() == compiled["model"].keys()


def test_jobs_of_one_process_equal_separate_runs(tmp_path: Path, compose: Compose) -> None:
    jobs = {
        "first": [*QUIET, "epochs=2", "lr=0.01"],
        "other": [*QUIET, "device.threads=1", "seed=3", "optimizer=sgd", "schedule=cosine", "augment=none"],
        "again": [*QUIET, "epochs=2", "lr=0.01"],
    }
    for name, overrides in jobs.items():
        (tmp_path / name).mkdir()
        run(compose(*overrides), tmp_path / name)
    assert losses(tmp_path / "first") == losses(tmp_path / "again")
    weights = [read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("first", "again")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    build_parts(compose(*QUIET), INFO)
    assert torch.get_num_threads() == DEFAULT_THREADS


def test_the_seed_decides_weights_and_split_at_every_learning_rate(compose: Compose) -> None:
    def built(*overrides: str) -> tuple[torch.Tensor, torch.Tensor]:
        cfg = compose(*QUIET, "data.val_size=20", *overrides)
        parts = build_parts(cfg, INFO)
        val = build_loaders(cfg, parts).val
        assert val is not None
        return torch.cat([parameter.flatten() for parameter in parts.model.parameters()]), val.images

    weights, images = built("seed=1", "lr=0.1")
    for same in (built("seed=1", "lr=0.001"), built("seed=1", "optimizer=sgd", "schedule=cosine")):
        assert torch.equal(weights, same[0])
        assert torch.equal(images, same[1])
    other = built("seed=2")
    assert not torch.equal(weights, other[0])
    assert not torch.equal(images, other[1])


def test_split_seed_fixes_what_is_held_out_for_all_seeds(compose: Compose) -> None:
    def held_out(*overrides: str) -> torch.Tensor:
        cfg = compose(*QUIET, "data.val_size=20", *overrides)
        loader = build_loaders(cfg, build_parts(cfg, INFO)).val
        assert loader is not None
        return loader.images

    assert torch.equal(held_out("seed=1", "data.split_seed=7"), held_out("seed=2", "data.split_seed=7"))
    assert not torch.equal(held_out("seed=1"), held_out("seed=2"))
    assert torch.equal(held_out("seed=1"), held_out("seed=2", "data.split_seed=1"))


def test_the_test_limit_takes_the_first_images_and_leaves_the_training_alone(tmp_path: Path, compose: Compose) -> None:
    for name, overrides in {"all": (), "some": ("data.test_limit=7",)}.items():
        cfg = compose(*QUIET, *overrides)
        (tmp_path / name).mkdir()
        run(cfg, tmp_path / name)
    assert losses(tmp_path / "some") == losses(tmp_path / "all")
    every, some = (compose(*QUIET, *overrides) for overrides in ((), ("data.test_limit=7",)))
    images, first = (build_loaders(cfg, build_parts(cfg, INFO)).test.images for cfg in (every, some))
    assert torch.equal(first, images[:7])
    assert read_summary(tmp_path / "some")["test_accuracy"] * 7 in range(8)
    with pytest.raises(UserError, match=r"data\.test_limit=31 is not possible: there are 30 test images"):
        run(compose(*QUIET, "data.test_limit=31"), tmp_path)


@pytest.mark.parametrize(
    ("trained", "continued", "is_warned"),
    [
        (["data.val_size=20"], ["data.val_size=20"], False),
        (["data.val_size=20"], ["data.val_size=20", "seed=1"], True),
        (["data.val_size=20"], ["data.val_size=20", "seed=1", "data.split_seed=0"], False),
        ([], ["data.val_size=20"], True),
        ([], [], False),
    ],
)
def test_weights_that_have_seen_the_validation_images_are_warned_of(
    tmp_path: Path,
    compose: Compose,
    caplog: pytest.LogCaptureFixture,
    trained: list[str],
    continued: list[str],
    is_warned: bool,
) -> None:
    run(compose(*QUIET, *trained), tmp_path)
    build_parts(compose(*QUIET, *continued, f"init_from={tmp_path / 'checkpoint.pt'}"), INFO)
    assert ("may have seen the validation images" in caplog.text) == is_warned


def test_weights_of_unknown_origin_are_warned_of(
    tmp_path: Path, compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(build_parts(compose(*QUIET), INFO).model.state_dict(), tmp_path / "bare.pt")
    build_parts(compose(*QUIET, f"init_from={tmp_path / 'bare.pt'}"), INFO)
    assert "may have seen" not in caplog.text
    build_parts(compose(*QUIET, f"init_from={tmp_path / 'bare.pt'}", "data.val_size=10"), INFO)
    assert "may have seen" in caplog.text


def test_the_seeds_of_a_point_share_its_hash_and_nothing_else_does(compose: Compose) -> None:
    first, *others = [point_hash(compose(*QUIET, *more)) for more in (
        ("seed=0",), ("seed=5",), ("seed=5", "data.split_seed=0"), ("lr=0.5",),
    )]  # fmt: skip
    assert first == others[0]
    assert len({first, *others[1:]}) == 3


def test_the_question_starts_from_the_plateau_that_its_own_command_leaves(compose: Compose) -> None:
    question = compose("experiment=lr_question", "model=vgg16")
    assert question.init_from == "outputs/plateau/vgg16/checkpoint.pt"
    plateau = compose("experiment=plateau", "model=vgg16")
    assert (plateau.data.val_size, plateau.data.split_seed) == (question.data.val_size, question.data.split_seed)
    text = (ROOT / "conf" / "experiment" / "plateau.yaml").read_text()
    assert "    dir: outputs/plateau/${constructor:${model._target_}}\n" in text


def test_limit_and_split_take_different_images_and_the_limit_leaves_the_split_alone(compose: Compose) -> None:
    def loaders(*overrides: str) -> tuple[torch.Tensor, torch.Tensor]:
        cfg = compose(*QUIET, "data.val_size=20", "data.shuffle=false", *overrides)
        built = build_loaders(cfg, build_parts(cfg, INFO))
        assert built.val is not None
        return built.train.images, built.val.images

    train, val = loaders()
    limited, same_val = loaders("data.limit=30")
    assert (len(train), len(val)) == (60, 20)
    assert torch.equal(limited, train[:30])
    assert torch.equal(val, same_val)
    pixels = {bytes(image.flatten().tolist()) for image in torch.cat([train, val])}
    assert len(pixels) == 80


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.val_size=80", "data.val_size=80 is not possible: there are 80 training images"),
        ("data.limit=81", "data.limit=81 is not possible: there are 80"),
        ("data.limit=21", "batch_size=10 with accumulate=1 is not possible for 21 training images"),
        ("batch_size=1", "batch_size=1 with accumulate=1 is not possible for 80 training images"),
        ("accumulate=6", "batch_size=10 with accumulate=6 is not possible for 80 training images"),
        ("accumulate=2 data.limit=73", "batch_size=10 with accumulate=2 is not possible for 73 training images"),
        ("accumulate=11", "accumulate=11 is not possible: a batch has 10 images"),
        ("model.num_classes=9", "model.num_classes=9 is too few: the data has 10 classes"),
        ("schedule=cosine schedule.warmup_epochs=2", "there are only 8"),
        ("optimizer.betas=[2,2]", "optimizer.betas=[2, 2] is not possible"),
        ("model._target_=cifar.models.absent.net", "cifar.models.absent"),
        ("+optimizer.momentun=0.9", "momentun"),
        ("init_from=absent.pt", "absent.pt': there is no such file"),
    ],
)
def test_a_mistake_is_a_user_error_and_in_the_summary(
    tmp_path: Path, compose: Compose, override: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        run(compose(*QUIET, *override.split()), tmp_path)
    assert message in str(error.value)
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["error"]) == ("failed", str(error.value))


def test_a_run_that_diverges_is_tested_and_says_so_in_its_summary(tmp_path: Path, compose: Compose) -> None:
    with pytest.raises(DivergedError) as error:
        run(compose(*QUIET, "optimizer=sgd", "lr=1e30", "epochs=2", "data.val_size=20"), tmp_path)
    summary = read_summary(tmp_path)
    assert summary["status"] == "diverged"
    assert summary["error"] == str(error.value)
    assert (summary["diverged_step"], summary["diverged_lr"], summary["epochs"]) == (2, 1e30, 0)
    first = read_metrics(tmp_path)[0]
    assert f"the last finite loss was {summary['last_finite_loss']:.4f}" in summary["error"]
    assert 2 < summary["last_finite_loss"] < 3
    assert [metrics for metrics in read_metrics(tmp_path) if "train/loss" in metrics] == []
    assert first["val/accuracy"] == summary["val_accuracy"] == 0.1  # of a network that says nothing but NaN
    assert read_metrics(tmp_path)[-1]["test/accuracy"] == summary["test_accuracy"] == 0.1
    assert summary["test_loss"] is None
    assert not (tmp_path / "checkpoint.pt").exists()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_bug_is_no_user_error_but_in_the_summary_too(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar.training.trainer.Trainer.take_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(compose(*QUIET), tmp_path)
    assert read_summary(tmp_path)["error"] == "ZeroDivisionError: division by zero"


def test_the_demo_is_what_make_demo_promises(compose: Compose) -> None:
    cfg = compose("experiment=demo")
    assert cfg.data.source._target_ == "cifar.data.sources.digits.Digits"
    assert cfg.data.val_size > 0
