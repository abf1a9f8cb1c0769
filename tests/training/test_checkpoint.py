"""Loading weights from this project's files and the course's, and refusing the rest; atomic saving."""

import errno
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.base.sealed import read_checkpoint, sealed
from cifar.experiment.stored.weights import load_weights
from cifar.models.resnet import resnet50
from cifar.models.vgg import vgg16
from cifar.training import checkpoint
from cifar.training.checkpoint import Checkpoints, find_checkpoints, load_state, read_newest


def filled(model: nn.Module) -> nn.Module:
    """Give every tensor of the model values that no other has."""
    for index, tensor in enumerate(model.state_dict().values()):
        tensor.copy_(torch.full(tensor.shape, index + 1.0))
    return model


def course_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a resnet50 under the names that the course's checkpoints use."""
    halving = ("layer2.2.", "layer3.3.")
    return {
        key.replace("shortcut", "downsize" if key.startswith(halving) else "make_equal_channel"): value
        for key, value in model.state_dict().items()
    }


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    for key, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_loads_the_courses_resnet50(tmp_path: Path) -> None:
    source = filled(resnet50())
    state = course_state(source)
    the_courses_names = {
        "layer1.0.weight", "layer2.0.layer.1.0.weight", "layer2.0.layer.1.1.running_mean",
        "layer2.0.make_equal_channel.0.weight", "layer2.2.downsize.0.weight", "fc.weight",
    }  # fmt: skip
    assert the_courses_names <= set(state)
    torch.save(state, tmp_path / "resnet50_epoch285.ckpt")
    model = resnet50()
    load_weights(model, tmp_path / "resnet50_epoch285.ckpt")
    assert_same_weights(model, source)


def test_loads_the_courses_vgg16(tmp_path: Path) -> None:
    source = filled(vgg16())
    assert {"features.0.weight", "classifier.1.weight"} <= set(source.state_dict())
    torch.save(source.state_dict(), tmp_path / "vgg16_epoch250.ckpt")
    model = vgg16()
    load_weights(model, tmp_path / "vgg16_epoch250.ckpt")
    assert_same_weights(model, source)


def test_loads_our_own_checkpoint(tmp_path: Path) -> None:
    source = filled(vgg16())
    make_checkpoints(tmp_path).save({"model": source.state_dict(), "step": 3, "config": {"lr": 0.1}})
    model = vgg16()
    load_weights(model, tmp_path / "checkpoint.pt")
    assert_same_weights(model, source)


def test_another_models_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    torch.save(vgg16().state_dict(), tmp_path / "vgg.ckpt")
    with pytest.raises(UserError) as error:
        load_weights(resnet50(), tmp_path / "vgg.ckpt")
    message = str(error.value)
    assert "does not fit the ResNet" in message
    assert "it lacks layer1.0.weight, layer1.0.bias, layer1.1.weight and " in message
    assert "it has features.0.weight, features.0.bias, features.2.weight and " in message
    assert "another model" in message
    assert len(message) < 500


def test_another_number_of_classes_names_the_shapes(tmp_path: Path) -> None:
    torch.save(resnet50(num_classes=7).state_dict(), tmp_path / "seven.ckpt")
    with pytest.raises(UserError, match=r"fc.weight is \(7, 1024\) instead of \(10, 1024\)"):
        load_weights(resnet50(), tmp_path / "seven.ckpt")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    state = resnet50().state_dict()
    del state["fc.bias"]
    torch.save(state, tmp_path / "missing.ckpt")
    with pytest.raises(UserError, match=r"it lacks fc\.bias\.") as error:
        load_weights(resnet50(), tmp_path / "missing.ckpt")
    assert "too many" not in str(error.value)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_file_that_needs_code_is_refused_and_does_nothing(tmp_path: Path, plain_pickle: bool) -> None:
    content = {"fc.weight": torch.zeros(2), "evil": Payload(tmp_path / "executed")}
    if plain_pickle:
        (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="refused"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"refused.*model\.state_dict\(\)"):
        read_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("length", [0, 1, 100, 1000, -1000, -1])
def test_a_cut_file_is_one_clear_error(tmp_path: Path, length: int) -> None:
    torch.save(nn.Linear(100, 100).state_dict(), tmp_path / "whole.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "whole.ckpt").read_bytes()[:length])
    with pytest.raises(UserError, match=r"cut\.ckpt"):
        read_checkpoint(tmp_path / "cut.ckpt")


def test_what_is_not_a_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "absent.ckpt")
    with pytest.raises(UserError, match="it is a folder"):
        read_checkpoint(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    with pytest.raises(UserError, match="holds a Tensor"):
        read_checkpoint(tmp_path / "tensor.ckpt")
    torch.save({"epoch": 3}, tmp_path / "epoch.ckpt")
    with pytest.raises(UserError, match="holds no weights: there is 'epoch'"):
        load_weights(resnet50(), tmp_path / "epoch.ckpt")


def make_checkpoints(folder: Path, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, every_epochs=1, every_minutes=None, keep=keep)


def steps(folder: Path) -> dict[str, int]:
    """Return the step of every checkpoint in the folder by its name."""
    return {path.name: read_checkpoint(path, must_be_sealed=True)["step"] for path in find_checkpoints(folder)}


def test_a_failed_save_leaves_the_old_files(tmp_path: Path) -> None:
    checkpoints = make_checkpoints(tmp_path)
    checkpoints.save({"step": 1})
    checkpoints.save({"step": 2})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoints.save({"step": 3, "unpicklable": lambda: None})
    assert steps(tmp_path) == {"checkpoint.pt": 2, "checkpoint-1.pt": 1}
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1.pt", "checkpoint.pt"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_ones_are_kept_newest_first(tmp_path: Path, keep: int) -> None:
    for step in range(1, 6):
        make_checkpoints(tmp_path, keep).save({"step": step})
        expected = [*range(step, max(0, step - keep), -1)]
        assert [*steps(tmp_path).values()] == expected
    make_checkpoints(tmp_path, keep=1).save({"step": 6})
    assert steps(tmp_path) == {"checkpoint.pt": 6}


def test_more_than_nine_are_in_order(tmp_path: Path) -> None:
    for step in range(12):
        make_checkpoints(tmp_path, 12).save({"step": step})
    assert [*steps(tmp_path).values()] == [*range(11, -1, -1)]


def test_when_a_checkpoint_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("cifar.training.checkpoint.monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path, every_epochs=3, every_minutes=0.5, keep=1)
    assert [epoch for epoch in range(1, 10) if checkpoints.due_after_epoch(epoch)] == [3, 6, 9]
    now = 129.9
    assert not checkpoints.due_by_time()
    now = 130.0
    assert checkpoints.due_by_time()
    now = 131.0
    assert checkpoints.due_by_time()
    checkpoints.save({})
    assert not checkpoints.due_by_time()
    never = Checkpoints(tmp_path, every_epochs=None, every_minutes=None, keep=1)
    now = 1e9
    assert not never.due_by_time()
    assert not never.due_after_epoch(1)


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    """Also those in the zip archive's padding, which no reader looks at."""
    whole = bytes(sealed({"model": nn.Linear(3, 2).state_dict(), "step": 7}))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(whole)
    assert read_checkpoint(path, must_be_sealed=True)["step"] == 7
    for offset in range(0, len(whole), 3):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x10]) + whole[offset + 1 :])
        with pytest.raises(UserError, match=r"checkpoint\.pt is cut or damaged"):
            read_checkpoint(path, must_be_sealed=True)
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"checkpoint\.pt is cut or damaged"):
            read_checkpoint(path, must_be_sealed=True)
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match=r"checkpoint\.pt is cut or damaged"):
        read_checkpoint(path, must_be_sealed=True)


def test_weights_that_are_damaged_are_not_taken(tmp_path: Path) -> None:
    source = filled(vgg16())
    data = bytearray(sealed({"model": source.state_dict()}))
    data[len(data) // 2] ^= 1  # in the midst of the weights, where nothing else would notice
    (tmp_path / "checkpoint.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"init_from=.*cut or damaged"):
        load_weights(vgg16(), tmp_path / "checkpoint.pt")


def test_torch_and_zip_read_the_file_as_it_is(tmp_path: Path) -> None:
    model = filled(vgg16())
    make_checkpoints(tmp_path).save({"model": model.state_dict(), "rng": torch.get_rng_state(), "none": None})
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(content["model"][key], value) for key, value in model.state_dict().items())
    with zipfile.ZipFile(tmp_path / "checkpoint.pt") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


def test_the_newest_intact_one_is_taken_and_the_damaged_are_kept_under_another_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(3):
        make_checkpoints(tmp_path, 3).save({"step": step})
    for name in ("checkpoint.pt", "checkpoint-1.pt"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    content = read_newest(find_checkpoints(tmp_path))
    assert content == {"step": 0}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "checkpoint.pt is cut or damaged" in caplog.messages[0]
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1.pt.damaged", "checkpoint-2.pt", "checkpoint.pt.damaged"]
    make_checkpoints(tmp_path, 3).save({"step": 3})
    assert steps(tmp_path) == {"checkpoint.pt": 3, "checkpoint-2.pt": 0}
    assert read_newest([]) is None


def test_what_is_intact_but_not_sealed_is_not_gone_on_from(tmp_path: Path) -> None:
    """Such a file is not one of the run's own, or lost its end just so."""
    make_checkpoints(tmp_path).save({"step": 1})
    make_checkpoints(tmp_path).save({"step": 2})
    torch.save({"step": 3}, tmp_path / "checkpoint.pt")
    assert read_newest(find_checkpoints(tmp_path)) == {"step": 1}
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1.pt", "checkpoint.pt.damaged"]


def test_only_files_with_a_number_are_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-2.pt", "checkpoint-best.pt", "checkpoint-.pt", "checkpoint-1.pt.damaged", "weights.pt"):
        (tmp_path / name).touch()
    (tmp_path / "checkpoint-1.pt").mkdir()
    assert find_checkpoints(tmp_path) == [tmp_path / "checkpoint-2.pt"]


@pytest.mark.parametrize("num_before", [0, 2])
def test_a_save_without_room_says_what_is_left_and_the_next_is_due_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_before: int
) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoint, "monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path, None, every_minutes=1, keep=2, way_on="cifar resume X")
    for step in range(num_before):
        checkpoints.save({"step": step})
    before = steps(tmp_path)
    now = 60.0

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", fail)
    left = "The checkpoints before it are intact. When that is mended: cifar resume X"
    with pytest.raises(UserError) as error:
        checkpoints.save({"step": 9})
    assert str(error.value) == (
        f"{tmp_path}/checkpoint.pt can't be written: No space left on device. "
        f"{left if num_before else 'No checkpoint was written before.'}"
    )
    assert steps(tmp_path) == before
    assert checkpoints.due_by_time()


@pytest.mark.parametrize(("num_keys", "words"), [(3, "a, b, c"), (4, "a, b, c and 1 more"), (5, "a, b, c and 2 more")])
def test_missing_keys_are_named_and_counted(num_keys: int, words: str) -> None:
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in "abcde"[:num_keys]})
    with pytest.raises(UserError, match=f"^X does not fit the ParameterDict: it lacks {words}; it has z too many"):
        load_state(model, {"z": torch.zeros(2)}, "X")
    state = {name: torch.zeros(2 if name == "b" else 3) for name in "abc"} | {"z": torch.zeros(1)}
    with pytest.raises(UserError, match=r"its shapes differ: a is \(3,\) instead of \(2,\), c is \(3,\) instead of"):
        load_state(nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in "abc"}), state, "X")


def test_what_a_checkpoint_takes_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    checkpoints = make_checkpoints(tmp_path, keep=3)
    for size in (300_000, 1, 1):
        checkpoints.save({"weights": torch.zeros(size)})
    assert caplog.messages == ["A checkpoint takes 1 MB; the last 3 are kept"]
    caplog.clear()
    (tmp_path / "small").mkdir()
    make_checkpoints(tmp_path / "small").save({"weights": torch.zeros(75_000)})
    size = (tmp_path / "small" / "checkpoint.pt").stat().st_size
    assert caplog.messages == [f"A checkpoint takes {round(size / 1000)} kB; the last 2 are kept"]
