"""Weights in the forms in which others save them."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.experiment.stored.weights import load_weights

State = dict[str, Tensor]


def small(num_classes: int = 3) -> nn.Module:
    """Return a model with batch norm, some of whose own keys begin as a wrapper's do."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    return nn.ModuleDict({"body": body, "module": nn.Linear(4, num_classes)})


def weights() -> State:
    """Return weights of that model, none of which is its first value."""
    return {key: torch.full_like(value, number + 2) for number, (key, value) in enumerate(small().state_dict().items())}


def behind(prefix: str) -> State:
    """Return the weights with a prefix before every key."""
    return {prefix + key: value for key, value in weights().items()}


def compiled_inside() -> State:
    """Return the weights of a model whose body alone was compiled, as torch names them."""
    return {key.replace("body.", "body._orig_mod."): value for key, value in weights().items()}


WRAPPED: dict[str, tuple[Any, str]] = {
    "bare": (weights(), ""),
    "module": (behind("module."), "'module.' taken off its keys"),
    "compiled": (behind("_orig_mod."), "'_orig_mod.' taken off its keys"),
    "compiled inside": (compiled_inside(), "'_orig_mod.' taken off its keys"),
    "both": (behind("module._orig_mod."), "'_orig_mod.' taken off its keys, 'module.' taken off its keys"),
    "both ways": (behind("_orig_mod.module."), "'_orig_mod.' taken off its keys, 'module.' taken off its keys"),
    "net": ({"net": behind("module."), "acc": 90.0, "epoch": 3}, "taken out of 'net', 'module.' taken off its keys"),
    "lightning": ({"state_dict": behind("model."), "loops": {"a": {}}},
                  "taken out of 'state_dict', 'model.' taken off its keys"),
    "lightning net": ({"state_dict": behind("model.net."), "epoch": 1},
                      "taken out of 'state_dict', 'model.' taken off its keys, 'net.' taken off its keys"),
    "model_state_dict": ({"model_state_dict": weights(), "step": torch.tensor(3)}, "taken out of 'model_state_dict'"),
    "model": ({"model": weights(), "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, "taken out of 'model'"),
    "params": ({"params": weights()}, "taken out of 'params'"),
    "nested": ({"checkpoint": {"model": behind("module.")}},
               "taken out of 'checkpoint.model', 'module.' taken off its keys"),
    "ema alone": ({"ema": weights(), "model": None}, "taken out of 'ema'"),
    "twice the same": ({"model": weights(), "state_dict": weights()}, "taken out of 'model'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_what_was_wrapped_around_weights_is_taken_off_and_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    content, expected = WRAPPED[name]
    caplog.set_level("INFO")
    path = tmp_path / "file.pt"
    torch.save(content, path)
    model = small()
    assert load_weights(model, path) is None
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights().items())
    assert caplog.messages == ([f"init_from={str(path)!r}: {expected}"] if expected else [])


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    caplog.set_level("INFO")
    path = tmp_path / f"weights{suffix}"
    save_file(behind("module."), path, metadata={"format": "pt"})
    model = small()
    load_weights(model, path)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights().items())
    assert caplog.messages == [f"init_from={str(path)!r}: 'module.' taken off its keys"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"init_from=.*can't be read, it may be cut or damaged"):
        load_weights(model, path)


def test_weights_of_old_versions_lack_batch_norms_counters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "old.pt"
    state = {key: value for key, value in weights().items() if "num_batches" not in key}
    torch.save({"state_dict": state}, path)
    model = small()
    load_weights(model, path)
    assert int(model.state_dict()["body.1.num_batches_tracked"]) == 0
    expected = f"init_from={str(path)!r}: taken out of 'state_dict'; num_batches_tracked is missing and begins at 0"
    assert caplog.messages == [expected]


@pytest.mark.parametrize("average", ["ema", "model_ema", "state_dict_ema", "params_ema"])
def test_averaged_weights_are_never_chosen_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: str
) -> None:
    """The command of the message saves the weights that it names so that they can be loaded."""
    path = tmp_path / "it's.pt"
    torch.save({"state_dict": behind("module."), average: {key: value + 1 for key, value in weights().items()}}, path)
    with pytest.raises(UserError, match=f"holds several weights that fit: 'state_dict', '{average}'") as error:
        load_weights(small(), path)
    words = shlex.split(str(error.value).partition("alone: ")[2])
    assert words[:2] == ["python", "-c"]
    monkeypatch.chdir(tmp_path)
    exec(words[2], {})
    model = small()
    load_weights(model, tmp_path / "weights.pt")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights().items())


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"net": state, "ema": state, "epoch": 3}])
def test_weights_of_another_model_are_refused_as_ever(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "other.pt"
    torch.save(wrap({f"module.{key}": value for key, value in small(7).state_dict().items()}), path)
    with pytest.raises(UserError, match=r"module\.weight is \(7, 4\) instead of \(3, 4\)(?s:.*)another model") as error:
        load_weights(small(), path)
    assert "'module.' taken off its keys) does not fit the ModuleDict" in str(error.value)
    torch.save(wrap({"module.features.weight": torch.ones(2)}), path)
    with pytest.raises(UserError, match=r"it lacks body\.0\.weight, .*it has features\.weight too many"):
        load_weights(small(), path)


def test_a_file_without_weights_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "none.pt"
    torch.save({"epoch": 3, "best": {"accuracy": 0.9}}, path)
    with pytest.raises(UserError, match=r"holds no weights: there is 'epoch', 'best'\."):
        load_weights(small(), path)
