"""What a run starts from: the content of init_from is part of what it is, and its images are remembered."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from cifar.base.errors import UserError
from cifar.base.sealed import read_checkpoint
from cifar.experiment.config import config_hash, missing_files, point_hash, resolve
from cifar.experiment.restore import finished, restore
from cifar.experiment.run import run
from cifar.experiment.stored import ancestry
from cifar.experiment.stored.ancestry import content_hash, may_have_seen, seen_by
from tests.conftest import QUIET, ROOT, Compose, read_summary
from tests.tiny_model import tiny

FOLDERS = [ROOT / "conf", ROOT / "tests" / "conf"]


def write_weights(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(tiny().state_dict(), path)


def test_the_content_of_init_from_is_hashed_and_not_its_path(tmp_path: Path, compose: Compose) -> None:
    first, second, absent = (tmp_path / name for name in ("first.pt", "second.pt", "absent.pt"))
    write_weights(first, 0)
    shutil.copy(first, second)
    cfgs = {path: compose(*QUIET, f"init_from={path}") for path in (first, second, absent)}
    before = config_hash(resolve(cfgs[first])), point_hash(cfgs[first])
    assert (config_hash(resolve(cfgs[second])), point_hash(cfgs[second])) == before
    write_weights(first, 1)
    assert config_hash(resolve(cfgs[first])) != before[0]
    assert point_hash(cfgs[first]) != before[1]
    assert config_hash(resolve(cfgs[first]), content_hash(str(second))) == before[0]
    assert config_hash(resolve(cfgs[absent])) != config_hash(resolve(compose(*QUIET)))


def test_a_file_is_read_once_while_it_is_the_same(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.pt", 0)
    before = ancestry.hash_file.cache_info().misses
    hashes = {content_hash(str(tmp_path / "a.pt")) for _ in range(100)}
    assert (len(hashes), ancestry.hash_file.cache_info().misses) == (1, before + 1)


def test_what_is_missing_is_said_before_anything_runs(tmp_path: Path, compose: Compose) -> None:
    write_weights(tmp_path / "a.pt", 0)
    assert missing_files(compose(*QUIET)) == missing_files(compose(f"init_from={tmp_path}/a.pt")) == []
    assert missing_files(compose("init_from=absent.pt")) == ["init_from='absent.pt': there is no such file."]
    assert missing_files(compose("init_from='~nobody/a.pt'")) == ["init_from='~nobody/a.pt': there is no such file."]


def test_a_file_that_was_replaced_makes_another_run(tmp_path: Path, compose: Compose) -> None:
    """resume=auto does not take the finished run for it; resume=PATH goes on with what the run was begun with."""
    weights, folder = tmp_path / "weights.pt", tmp_path / "run"
    folder.mkdir()
    write_weights(weights, 0)
    words = [*QUIET, f"init_from={weights}"]
    run(compose(*words), folder)
    summary = read_summary(folder)
    assert summary["init_hash"] == content_hash(str(weights))
    cfg = compose(*words, "resume=auto")
    assert finished(folder, config_hash(resolve(cfg))) is not None
    write_weights(weights, 1)
    assert finished(folder, config_hash(resolve(cfg))) is None
    with pytest.raises(UserError, match="another content than when the run was begun"):
        restore(cfg, folder, [])
    cfg, checkpoint = restore(compose(f"resume={folder}", "epochs=2"), folder, ["epochs=2"], FOLDERS)
    run(cfg, folder, checkpoint=checkpoint)
    assert read_summary(folder)["init_hash"] == summary["init_hash"]
    write_weights(weights, 0)
    assert read_summary(folder)["config_hash"] == config_hash(resolve(compose(*words, "epochs=2")))
    moved = weights.rename(tmp_path / "moved.pt")  # nor is it needed any more
    assert restore(compose(*words, "epochs=2", "resume=auto"), folder, [])[1] is not None
    moved_words = [*QUIET, f"init_from={moved}", "epochs=2", "resume=auto"]
    assert finished(folder, config_hash(resolve(compose(*moved_words)))) is not None
    assert restore(compose(*moved_words), folder, [])[1] is not None


def test_the_images_that_weights_have_seen_are_remembered_over_runs(
    tmp_path: Path, compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    """The second run holds the same images out as the third, but the first held none."""
    caplog.set_level(logging.WARNING)
    warned = {}
    split = ["data.val_size=20", "data.split_seed=0"]
    runs = {"a": [], "b": [*split, "a"], "c": [*split, "b"], "d": split, "e": [*split, "d"], "f": ["epochs=0", "d"],
            "g": [*split, "f"]}  # fmt: skip
    for name, words in runs.items():
        caplog.clear()
        (tmp_path / name).mkdir()
        parents = [f"init_from={tmp_path}/{word}/checkpoint.pt" for word in words if word in runs]
        run(compose(*QUIET, *[word for word in words if word not in runs], *parents), tmp_path / name)
        warned[name] = "may have seen the validation images" in caplog.text
    assert warned == {"a": False, "b": True, "c": True, "d": False, "e": False, "f": False, "g": False}
    chain = [{"val_size": size, "split_seed": 0, "source": "RandomImages"} for size in (0, 20)]
    content = read_checkpoint(tmp_path / "c" / "checkpoint.pt")
    assert content["ancestry"] == read_summary(tmp_path / "c")["ancestry"] == chain
    assert seen_by(content) == [*chain, chain[1]]
    assert read_summary(tmp_path / "a")["ancestry"] == []
    cfg, checkpoint = restore(compose(f"resume={tmp_path}/c", "epochs=2"), tmp_path / "c", ["epochs=2"], FOLDERS)
    run(cfg, tmp_path / "c", checkpoint=checkpoint)
    assert read_summary(tmp_path / "c")["ancestry"] == chain


def test_what_is_not_known_may_have_been_seen() -> None:
    split = {"val_size": 5, "split_seed": 1}
    assert may_have_seen(None, split)
    assert not may_have_seen([], split)
    assert not may_have_seen([split], split)
    assert may_have_seen([{"val_size": 5, "split_seed": 2}, split], split)
    assert not may_have_seen(None, {"val_size": 0, "split_seed": 1})
    assert may_have_seen([split], {**split, "classes": ["a", "b"]})  # of which other images are held out
    other = {"val_size": 0, "split_seed": 1, "source": "CIFAR10"}
    assert may_have_seen([other], {**split, "source": "CIFAR10"})
    assert not may_have_seen([other], {**split, "source": "CIFAR100"})
    config = {"init_from": None, "data": split}
    assert seen_by({"config": config, "step": 3}) == [split]  # the first format
    assert seen_by({"config": {**config, "init_from": "a.pt"}, "step": 3}) is None
    for strange in ("x", [3], {"a": 1}):
        assert seen_by({"config": config, "ancestry": strange}) is None
    assert seen_by({"config": 3}) is seen_by({}) is seen_by({"config": {"data": 3}}) is None
