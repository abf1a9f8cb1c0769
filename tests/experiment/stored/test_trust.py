"""A stranger's checkpoint can't have code called, nor read the environment."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cifar.base.errors import UserError
from cifar.base.paths import CONF
from cifar.base.sealed import read_checkpoint, sealed
from cifar.experiment.config import resolve
from cifar.experiment.restore import restore
from cifar.experiment.run import run
from cifar.experiment.stored.trust import (
    as_data,
    own_targets,
    refuse_foreign,
    refuse_foreign_words,
    refuse_resolvers,
    targets_in,
    targets_in_words,
)
from tests.conftest import QUIET, ROOT, Command, Compose, Start

FOLDERS = [CONF, ROOT / "tests" / "conf"]

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(name="finished_run", scope="module")
def _finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run(compose("config", overrides=QUIET), folder)
    return folder


@pytest.fixture(name="craft")
def _craft(tmp_path: Path, finished_run: Path) -> Callable[[Change], Path]:
    """Return a function that changes the checkpoint of a finished run, and seals it again as anybody could."""

    def craft(change: Change) -> Path:
        folder = tmp_path / "stranger"
        shutil.copytree(finished_run, folder)
        content = read_checkpoint(folder / "checkpoint.pt")
        change(content)
        (folder / "checkpoint.pt").write_bytes(sealed(content))
        return folder

    return craft


def exploits(left: Path) -> dict[str, dict[str, Any]]:
    """Return calls that leave a file, or would run code, which Hydra's own list does not block."""
    return {
        "torch.utils.cpp_extension.load_inline": {"name": "evil", "cpp_sources": "", "build_directory": str(left)},
        "pathlib.Path.write_text": {
            "_args_": [{"_target_": "pathlib.Path", "_args_": [str(left)]}, "written"],
        },
        "sympy.sympify": {"a": f"open({str(left)!r}, 'w')"},
        "torch.hub.load": {"repo_or_dir": str(left.parent), "model": "evil", "source": "local"},
        "torch.load": {"f": str(left.parent / "evil.pt"), "weights_only": False},
    }


@pytest.mark.parametrize(
    ("target", "place"),
    [
        *[(target, "data.source") for target in exploits(Path())],
        *[("torch.load", place) for place in ("augment", "model", "tracker", "a list")],
    ],
)
def test_what_is_not_ones_own_is_refused_by_name_and_never_called(
    tmp_path: Path,
    compose: Compose,
    craft: Callable[[Change], Path],
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    place: str,
) -> None:
    node = {"_target_": target, **exploits(tmp_path / "left")[target]}

    def change(content: dict[str, Any]) -> None:
        config = content["config"]
        if place == "a list":
            config["augment"]["others"] = [1, {"inner": [node]}]
        elif place == "data.source":
            config["data"]["source"] = node
        else:
            config[place] = node

    folder = craft(change)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("cifar.experiment.building.instantiate", lambda *_, **__: pytest.fail("something was called"))
    with pytest.raises(UserError) as error:
        restore(compose(f"resume={folder}"), folder, [], FOLDERS)
    key = "augment.others[1].inner[0]" if place == "a list" else place
    assert f"{key}._target_={target}. Nothing was called." in str(error.value)
    assert ("repeat " in str(error.value)) == (place != "a list")
    assert not (tmp_path / "left").exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_word_typed_again_or_a_file_of_ones_own_allows_it(
    compose: Compose, craft: Callable[[Change], Path]
) -> None:
    folder = craft(lambda content: None)
    with pytest.raises(UserError, match=r"repeat model\._target_=tests\.tiny_model\.tiny, or give --config-dir DIR"):
        restore(compose(f"resume={folder}"), folder, [], [CONF])
    assert restore(compose(f"resume={folder}"), folder, [], FOLDERS)[1] is not None
    given = ["model._target_=tests.tiny_model.tiny"]
    assert restore(compose(*given, f"resume={folder}"), folder, given, [CONF])[1] is not None
    other = ["model._target_=tests.tiny_model.Slow"]
    with pytest.raises(UserError, match="would have given other numbers"):
        restore(compose(*other, f"resume={folder}"), folder, other, [CONF])


@pytest.mark.parametrize("where", ["config", "config_source", "references"])
def test_no_stored_interpolation_reads_the_environment(
    compose: Compose, craft: Callable[[Change], Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("SECRET", "a-secret")
    mirror = "http://127.0.0.1:9/${oc.env:SECRET}"

    def change(content: dict[str, Any]) -> None:
        content["config"]["data"]["source"] = {
            "_target_": "cifar.data.sources.CIFAR10", "root": "absent", "mirrors": [mirror], "cache": None,
        }  # fmt: skip
        if where == "config_source":  # as the first format had it
            del content["references"]
            content["config_source"] = {"data": {"source": {"mirrors": [mirror], "root": mirror}}}
        elif where == "references":
            content["references"] = {"data.source.root": "oc.env:SECRET", "data.source.mirrors": "data.source.mirrors",
                                     "seed": "epochs", "epochs": "seed", "lr": "lr"}  # fmt: skip

    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    folder = craft(change)
    cfg, _ = restore(compose(f"resume={folder}"), folder, [], FOLDERS)
    assert "a-secret" not in str(resolve(cfg))
    assert resolve(cfg)["data"]["source"]["mirrors"] == [mirror]
    assert cfg.data.source.root == ("data" if where == "config_source" else "absent")  # of one's own configuration
    assert (cfg.seed, cfg.epochs, cfg.lr) == (0, 1, 0.001)


def test_a_target_can_not_come_in_through_a_reference(compose: Compose, craft: Callable[[Change], Path]) -> None:
    """The typed data.root would become the model's target."""

    def change(content: dict[str, Any]) -> None:
        content["references"]["model._target_"] = "data.root"
        content["config"]["data"]["root"] = content["config"]["model"]["_target_"]

    folder = craft(change)
    given = ["data.root=os.getcwd"]
    with pytest.raises(UserError, match=r"model\._target_=os\.getcwd"):
        restore(compose(*given, f"resume={folder}"), folder, given, FOLDERS)


def test_strings_are_data_whatever_they_hold() -> None:
    for text in ("${seed}", "\\${seed}", "\\\\${x}", "a${oc.env:HOME}b\\", "$", "{}", "\\", "$${a}", "${a${b}}"):
        node = {"key": [text, {"inner": text}], "number": 1.5}
        assert OmegaConf.to_container(OmegaConf.create(as_data(node)), resolve=True) == node


def test_ones_own_targets(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mine.net\nblocks:\n  - _target_: mine.block\n")
    (tmp_path / "model" / "env.yaml").write_text("_target_: ${oc.env:NET}\n")
    (tmp_path / "broken.yaml").write_text("_target_: [\n")
    for name in ("multirun/0", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("_target_: os.system\n")
    (tmp_path / "multirun" / "multirun.yaml").touch()  # what a run has left is not the user's configuration
    (tmp_path / "multirun" / "0" / ".hydra").mkdir()
    words = ["model._target_=typed.one,typed.two", "+x={a: [{_target_: typed.three}]}", "lr=0.1", "seed=range(0,3)"]
    found = own_targets([tmp_path], {"optimizer": {"_target_": "composed.one"}}, words)
    assert found == {"mine.net", "mine.block", "typed.one", "typed.two", "typed.three", "composed.one"}
    assert "cifar.models.resnet.resnet50" in own_targets([CONF])


def test_targets_are_found_in_every_spelling() -> None:
    words = ["+hydra.callbacks.x._target_=a", "augment={_target_: b, inner: [{_target_: c}]}", "m._target_=d,e",
             "++m._target_='f g'", "n._target_=choice(h,i)", "epochs=1", "~tracker", "x=interval(0,1)"]  # fmt: skip
    assert [target for _, target in targets_in_words(words)] == ["a", "b", "c", "d", "e", "f g", "h", "i"]
    assert dict(targets_in({"a": [{"_target_": 3}], "_target_": None})) == {"a[0]._target_": 3, "_target_": None}
    for stored in ({"_target_": None}, {"a": ({"_target_": ["b"]},)}, {"_target_": "${b}"}):
        with pytest.raises(UserError, match="FILE names code that your own configuration does not name"):
            refuse_foreign(stored, frozenset({"b"}), "FILE")
    refuse_foreign_words(words, frozenset({*"abcdehi", "f g"}), "FILE")
    with pytest.raises(UserError, match=r"m\._target_=e"):
        refuse_foreign_words(words, frozenset({*"abcdhi", "f g"}), "FILE")


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "x=${lr} ${times:1,2}", "${${a}}", "a${ oc.env:HOME}"])
def test_a_stored_interpolation_that_asks_more_than_another_keys_value_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="FILE has an interpolation that is not taken from a stored file"):
        refuse_resolvers({"a": ["${lr}", text]}, "FILE")
    refuse_resolvers(["label_smoothing=${lr}", 3, {"a": None}], "FILE")


def test_the_command_that_continues_a_run_has_all_that_was_typed(
    tmp_path: Path, start: Start, command: Command
) -> None:
    """Also where the configuration is; without it the run is refused."""
    arguments = [word for word in QUIET if not word.startswith("model")]
    own = ["--config-dir", str(ROOT / "tests" / "conf"), "model=slow"]
    run = start(*own, *arguments, "model.seconds=0.05", "log_every=1", "epochs=2", "hydra.run.dir=a run")
    run.wait_for(r"Epoch \[1/2\], Step \[3/8\]")
    run.send(15)
    assert run.end() == 143
    refused = command("resume=a run")
    assert refused.returncode == 1
    assert "names code that your own configuration does not name: model._target_=tests.tiny" in refused.stderr
    printed = run.errors.partition("Continue with: ")[2]
    assert shlex.split(printed)[:2] == ["cifar", "resume"]
    again = command(*shlex.split(printed)[1:], program=("-m", "cifar"))
    assert again.returncode == 0, again.stderr
    assert "Resumed at step" in again.stdout
