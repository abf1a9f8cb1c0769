"""Fine-tuning for other classes: init_from=… init_head=new, for every model."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar.base.errors import UserError
from cifar.base.paths import CONF
from cifar.base.sealed import read_checkpoint
from cifar.experiment.building import build_parts, create, head_of
from cifar.experiment.run import run
from cifar.tracking.tracking import RunInfo
from tests.conftest import QUIET, Compose

INFO = RunInfo("run", None, {})
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
NUM_CLASSES = 37  # which no model has as another of its sizes


def words_for(model: str, num_classes: int) -> list[str]:
    """Return the words for a model, small where it can be, of noise with so many classes."""
    words = [word for word in QUIET if not word.startswith("model")]
    small = {"wrn16_8": ["model.width=1"], "wrn28_10": ["model.width=1"], "speednet": ["model.widths=[4,4,4]"]}
    return [*words, f"model={model}", *small.get(model, []), f"data.source.num_classes={num_classes}"]


def built(cfg: object) -> nn.Module:
    model = build_parts(cfg, INFO).model  # type: ignore[arg-type]
    assert isinstance(model, nn.Module)
    return model


@pytest.mark.parametrize("model", MODELS)
def test_all_but_the_head_of_every_model_is_taken(
    tmp_path: Path, compose: Compose, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    caplog.set_level(logging.INFO)
    before = compose(*words_for(model, 5), "seed=1", "device.fast_conv=false")
    trained = built(before).state_dict()
    torch.save(trained, tmp_path / "five.pt")
    cfg = compose(*words_for(model, NUM_CLASSES), "device.fast_conv=false")
    fresh, random_state = built(cfg).state_dict(), torch.get_rng_state()
    cfg.init_from, cfg.init_head = str(tmp_path / "five.pt"), "new"
    caplog.clear()
    tuned = built(cfg).state_dict()
    head = [key for key, value in tuned.items() if NUM_CLASSES in value.shape]
    assert 1 <= len(head) <= 2
    for key, value in tuned.items():
        assert torch.equal(value, fresh[key] if key in head else trained[key]), key
    assert torch.equal(torch.get_rng_state(), random_state)
    (line,) = [text for text in caplog.messages if "head" in text]
    assert line.endswith("the head, which is new: " + ", ".join(f"{key} {tuple(tuned[key].shape)}" for key in head))
    cfg.init_head = "keep"
    with pytest.raises(UserError, match=rf"shapes differ: {head[0]} is \(5") as error:
        built(cfg)
    assert str(error.value).endswith("For other classes than it was trained on: init_head=new")


def test_a_run_is_tuned_for_other_classes_and_also_for_as_many(tmp_path: Path, compose: Compose) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    run(compose(*QUIET, "optimizer=sgd"), tmp_path / "first")
    init = [f"init_from={tmp_path / 'first' / 'checkpoint.pt'}", "init_head=new", "epochs=0"]
    run(compose(*QUIET, *init), tmp_path / "second")
    first, second = (read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("first", "second"))
    fresh = create(compose(*QUIET).model).state_dict()
    assert {key for key in first if not torch.equal(first[key], second[key])} == {"6.weight", "6.bias"}
    assert fresh.keys() == second.keys()


def test_another_model_is_refused_without_a_word_of_heads(tmp_path: Path, compose: Compose) -> None:
    torch.save({"features.weight": torch.ones(2)}, tmp_path / "other.pt")
    for words in ([], ["init_head=new"]):
        with pytest.raises(UserError, match="does not fit the Sequential: it lacks") as error:
            build_parts(compose(*QUIET, f"init_from={tmp_path / 'other.pt'}", *words), INFO)
        assert "init_head=new" not in str(error.value)


class Fixed(nn.Module):
    """A model that no number of classes changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 10)


def test_a_model_whose_head_is_not_known_is_named(compose: Compose) -> None:
    cfg = compose(*QUIET)
    cfg.model = {"_target_": "tests.experiment.test_heads.Fixed"}
    with pytest.raises(UserError, match=r"init_head=new is not possible for model\._target_=tests\S+Fixed"):
        head_of(cfg, Fixed())
