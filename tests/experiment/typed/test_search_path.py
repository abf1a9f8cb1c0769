"""The search path among a command's words: what is typed, one word inside, and what is typed again."""

import shlex
from pathlib import Path

import pytest

from cifar.base.errors import UserError
from cifar.experiment.python import compose
from cifar.experiment.typed.search_path import as_flags, as_word, folders_of, others_of, without_flags

NAMES = ["conf", "it's mine", "größe {c} [1],~x", "a\\b", "end\\", "${seed}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_comes_back_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / name).mkdir()
    words = without_flags(["lr=0.1", "--config-dir", name, "epochs=2"])
    assert folders_of(words) == [folder]
    assert others_of(words) == ["lr=0.1", "epochs=2"]
    assert as_flags(words) == ["--config-dir", str(folder)]
    assert without_flags([*as_flags(words), "lr=0.1", "epochs=2"]) == words


@pytest.mark.parametrize("name", NAMES)
def test_hydra_reads_the_folder(tmp_path: Path, name: str) -> None:
    (folder := tmp_path / name / "optimizer").mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nlr: 0.123\noptimizer: {_target_: torch.optim.SGD}\n")
    assert compose(["optimizer=mine"], tmp_path / name).lr == 0.123


def test_several_places_stay_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
    words = without_flags(["hydra.searchpath=[file://b,pkg://theirs.conf]", "-cd", "a"])
    expected = as_word([f"{tmp_path}/b", "pkg://theirs.conf", f"{tmp_path}/a"])
    assert (words, as_flags(words)) == ([expected], [expected])
    assert without_flags(shlex.split(shlex.join(as_flags(words)))) == words
    assert folders_of(words) == [tmp_path / "b", tmp_path / "a"]
    assert (without_flags(["lr=1"]), as_flags(["lr=1"])) == (["lr=1"], [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir"], "--config-dir takes a folder"),
        (["--config-dir", "absent"], "absent: there is no such folder"),
        (["hydra.searchpath=conf"], "it takes a list, such as hydra.searchpath=['file://conf']"),
    ],
)
def test_what_is_no_folder_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        without_flags(words)
    assert message in str(error.value)
