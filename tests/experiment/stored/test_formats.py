"""Checkpoints of earlier versions are resumed for ever; one that lacks a part is one message."""

import hashlib
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cifar.base.errors import UserError
from cifar.base.nested import flatten
from cifar.base.paths import CONF
from cifar.base.run_folder import library_versions
from cifar.base.sealed import read_checkpoint, sealed
from cifar.experiment.config import Checkpoint, Config, Data, Device, config_hash, point_hash, resolve
from cifar.experiment.restore import restore, restore_or_begin_anew
from cifar.experiment.run import run
from cifar.experiment.stored.formats import (
    ADDED_KEYS,
    ADDED_PARAMETERS,
    ADDED_PARTS,
    COUNTERS,
    EARLIER,
    FORMAT_VERSION,
    PARTS,
    called,
    read_run,
    with_counters,
    with_defaults,
    without_defaults,
)
from cifar.training.devices.device import set_up_device
from tests.conftest import ROOT, Compose, read_summary

FIRST = ROOT / "tests" / "formats" / "1"  # a run of the first format, cut in the second of two epochs
UNCUT = json.loads((FIRST / "uncut.json").read_text())  # what it would have come to
FOLDERS = [CONF, ROOT / "tests" / "conf"]


@pytest.fixture(name="cut")
def _cut(tmp_path: Path) -> Path:
    folder = tmp_path / "cut"
    shutil.copytree(FIRST, folder)
    return folder


def weights_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for key, value in read_checkpoint(folder / "checkpoint.pt")["model"].items():
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def change(folder: Path, **parts: Any) -> None:
    """Give the folder's checkpoint other parts; None takes one away."""
    content = {**read_checkpoint(folder / "checkpoint.pt"), **parts}
    content = {key: value for key, value in content.items() if value is not None or key not in parts}
    (folder / "checkpoint.pt").write_bytes(sealed(content))


@pytest.mark.parametrize(
    "missing",
    [[], ["tta"], [key for key, (since, _) in ADDED_KEYS.items() if since == 1 and key != "device.fast_conv"]],
)
def test_a_checkpoint_of_the_first_format_is_resumed_to_the_last_bit(
    cut: Path, compose: Compose, missing: list[str]
) -> None:
    config = read_checkpoint(cut / "checkpoint.pt")["config"]
    for key in missing:
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node.pop(name, None)  # it may have come after the first format
    change(cut, config=config)
    cfg, checkpoint = restore(compose(f"resume={cut}"), cut, [], FOLDERS)
    assert checkpoint is not None
    run(cfg, cut, checkpoint=checkpoint)
    summary = read_summary(cut)
    assert (summary["status"], summary["steps"], summary["times_resumed"]) == ("completed", UNCUT["steps"], 1)
    for key in ("test_loss", "val_loss"):
        assert summary[key] == pytest.approx(UNCUT[key], rel=1e-5)
    device = set_up_device(**compose("device=cpu").device)
    if library_versions()["torch"] == UNCUT["versions"]["torch"] and device.hardware_name() == UNCUT["device"]:
        assert weights_hash(cut) == UNCUT["weights_sha256"]
        assert (summary["test_loss"], summary["val_loss"]) == (UNCUT["test_loss"], UNCUT["val_loss"])
    assert (summary["config_hash"], summary["point"]) == (UNCUT["config_hash"], UNCUT["point"])


def test_the_hash_of_a_run_of_the_first_format_is_still_the_same(cut: Path, compose: Compose) -> None:
    """So that resume=auto knows it, and a report pools it with others."""
    words = read_summary(cut)["overrides"]
    cfg = compose(*words, "resume=auto")
    assert (config_hash(resolve(cfg)), point_hash(cfg)) == (UNCUT["config_hash"], UNCUT["point"])
    assert restore(cfg, cut, [])[1] is not None


def test_a_run_from_before_there_were_mixes_mixes_nothing_and_may_not_begin_to(cut: Path, compose: Compose) -> None:
    assert "mix" not in read_checkpoint(cut / "checkpoint.pt")["config"]
    cfg, _ = restore(compose(f"resume={cut}"), cut, [], FOLDERS)
    assert cfg.mix == {"_target_": "cifar.data.mix.Unmixed"}
    with pytest.raises(UserError, match=r"mix\._target_=cifar\.data\.mix\.Mixup is not possible for the run"):
        restore(compose("mix=mixup", f"resume={cut}"), cut, ["mix=mixup"], FOLDERS)


def test_every_key_that_is_new_since_the_first_format_says_what_runs_before_it_did(compose: Compose) -> None:
    known = {*flatten(read_checkpoint(FIRST / "checkpoint.pt")["config"])}
    schemas = (("", Config), ("data.", Data), ("device.", Device), ("checkpoint.", Checkpoint))
    keys = [prefix + entry.name for prefix, schema in schemas for entry in fields(schema)]
    groups = {key for key in keys if any(other.startswith(f"{key}.") for other in known)}
    new = {*keys} - known - groups
    since_then = {key for key, (version, _) in ADDED_KEYS.items() if version > 1}
    assert new == since_then, "a new key needs a line in ADDED_KEYS: cifar/experiment/stored/formats.py"
    parameters = json.loads((FIRST / "parameters.json").read_text())
    for path in [path for path in CONF.rglob("*.yaml") if path.parent.name != "tracker"]:  # which enters no hash
        for node in called(yaml.safe_load(path.read_text())):
            target = node["_target_"]
            if (then := EARLIER.get(target, target)) in parameters:
                added = {name for name in node if not name.startswith("_")} - {*parameters[then]}
                assert added <= {*ADDED_PARAMETERS.get(target, {})}, f"{target} needs a line in ADDED_PARAMETERS"


def test_a_key_that_comes_later_takes_the_value_of_before_and_changes_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"lr": 0.1, "seed": 3, "data": {"val_size": 5}, "model": {"_target_": "net", "parts": [{"_target_": "a"}]}}
    hash_before = config_hash(before)
    monkeypatch.setitem(ADDED_KEYS, "ema", (2, 0.0))
    monkeypatch.setitem(ADDED_PARAMETERS, "a", {"width": (2, 7)})
    after = with_defaults(before)
    assert after["ema"] == 0.0
    assert after["model"]["parts"][0]["width"] == 7
    assert (after["tta"], after["data"]["split_seed"]) == ("none", 3)
    assert "width" not in before["model"]["parts"][0]  # type: ignore[index]
    same = {**before, "ema": 0.0, "model": {"_target_": "net", "parts": [{"_target_": "a", "width": 7}]}}
    assert config_hash(same) == hash_before
    assert without_defaults(same) == before
    assert config_hash({**same, "ema": 0.9}) != hash_before
    assert config_hash({**before, "tta": "none"}) != hash_before  # the hashes of the first format stay


@pytest.mark.parametrize("name", COUNTERS)
def test_a_counter_that_an_earlier_format_lacks_is_named_too(cut: Path, name: str) -> None:
    content = read_checkpoint(cut / "checkpoint.pt")
    assert with_counters(content)["counters"].keys() == {*COUNTERS}
    del content[name]
    with pytest.raises(UserError, match=rf"^FILE is intact, but lacks its part 'counters\.{name}' \(format 1\)"):
        read_run(content, "FILE")


@pytest.mark.parametrize("part", [*PARTS])
def test_an_intact_checkpoint_that_lacks_a_part_is_one_message(cut: Path, compose: Compose, part: str) -> None:
    added: dict[str, Any] = {**ADDED_PARTS, "ancestry": []}
    content = with_counters(read_checkpoint(cut / "checkpoint.pt") | added) | {"format_version": FORMAT_VERSION}
    *parents, name = part.split(".")
    node = content[parents[0]] if parents else content
    for problem in ("lacks its part", "has a part"):
        if problem == "has a part":
            node[name] = torch.zeros(1)
        else:
            node.pop(name, None)  # it may have come after the first format
        if part in added and problem == "lacks its part":
            continue  # those of before
        with pytest.raises(UserError) as error:
            read_run(content, "FILE")
        assert str(error.value).startswith(f"FILE is intact, but {problem} {part!r}")
        if part != "config":
            (cut / "checkpoint.pt").write_bytes(sealed(content))
            with pytest.raises(UserError, match=f"{problem} '{part}'"):
                restore(compose(f"resume={cut}"), cut, [], FOLDERS)


def test_a_part_of_a_part_that_is_missing_is_one_message_and_changes_nothing(cut: Path, compose: Compose) -> None:
    change(cut, window={"rows": torch.zeros(0, 3)})
    before = {path.name: path.read_bytes() for path in cut.iterdir()}
    with pytest.raises(UserError, match=r"holds a state that this program can't read \(KeyError: 'seconds'\)"):
        restore(compose(f"resume={cut}"), cut, [], FOLDERS)
    assert {path.name: path.read_bytes() for path in cut.iterdir()} == before


def test_a_job_of_a_sweep_whose_checkpoint_lacks_a_part_is_begun_anew(
    cut: Path, compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    change(cut, window=None)
    cfg = compose(*read_summary(cut)["overrides"], "resume=auto")
    assert restore_or_begin_anew(cfg, cut, "Job 3") == (cfg, None)
    assert "Job 3 is begun anew" in caplog.text
    assert "lacks its part 'window' (format 1)" in caplog.text


def test_a_later_format_is_not_guessed_at(cut: Path, compose: Compose) -> None:
    change(cut, format_version=FORMAT_VERSION + 1)
    with pytest.raises(UserError, match=f"later version of this program, in format {FORMAT_VERSION + 1}: update it"):
        restore(compose(f"resume={cut}"), cut, [], FOLDERS)


def test_runs_say_which_format_they_have(tmp_path: Path, compose: Compose, cut: Path) -> None:
    cfg, checkpoint = restore(compose(f"resume={cut}"), cut, [], FOLDERS)
    run(cfg, cut, checkpoint=checkpoint)
    content = read_checkpoint(cut / "checkpoint.pt")
    assert content["format_version"] == read_summary(cut)["format_version"] == FORMAT_VERSION
    assert "config_source" not in content
    assert "${" not in str(content["config"])
    assert content["references"]["optimizer.lr"] == "lr"
