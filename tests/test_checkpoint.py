"""Loading weights from this project's files and the course's, and refusing the rest; atomic saving."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cifar.checkpoint import load_weights, read_checkpoint, save_checkpoint
from cifar.errors import UserError
from cifar.models.resnet import resnet50
from cifar.models.vgg import vgg16


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
    save_checkpoint(tmp_path / "checkpoint.pt", {"model": source.state_dict(), "step": 3, "config": {"lr": 0.1}})
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
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    with pytest.raises(UserError, match="holds a Tensor"):
        read_checkpoint(tmp_path / "tensor.ckpt")
    torch.save({"epoch": 3}, tmp_path / "epoch.ckpt")
    with pytest.raises(UserError, match=r"it has epoch too many"):
        load_weights(resnet50(), tmp_path / "epoch.ckpt")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(path, {"step": 2, "unpicklable": lambda: None})
    assert read_checkpoint(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
