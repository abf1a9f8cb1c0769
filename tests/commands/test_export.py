"""`cifar export`: a file and the lines that use it, or one message."""

import sys
from pathlib import Path

import pytest

import cifar
from cifar.commands import export
from cifar.experiment.exports.export import FORMATS
from tests.conftest import QUIET
from tests.in_process import exit_of

OWN = "model._target_=tests.tiny_model.tiny"


def call(*words: str) -> int | str | None:
    """Call the verb in this process; return what it exits with."""
    return exit_of(export.command, "export", *words)


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run of the user's own model."""
    folder = tmp_path_factory.mktemp("exporting") / "run"
    cifar.train(cifar.compose(QUIET), folder)
    return folder


def test_it_prints_what_it_compared_and_three_lines(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (str(folder), "--format", "safetensors", "--output", "new/it's.st", OWN)
    assert call(*words) == 0
    output = capsys.readouterr().out
    assert "On 30 test images" in output
    first, second, third = output.partition("\n\n")[2].splitlines()
    assert (tmp_path / "new" / "it's.st").is_file()
    space: dict[str, object] = {}
    exec("\n".join((first, second, third)), space)
    assert "model" in space
    size = (tmp_path / "new" / "it's.st").stat().st_size
    assert call(*words) == "new/it's.st exists: name another file with --output, or write over it with --force."
    assert (tmp_path / "new" / "it's.st").stat().st_size == size
    assert call(*words, "--force") == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--format", "safetensors"], "Nothing was called"),
        (["--format", "safetensors", OWN, "--int8"], "--int8 is not possible for --format safetensors"),
        (["--format", "safetensors", OWN, "more"], "'more' is too much"),
        (["--format", "safetensors", OWN, "lr=0.1"], "lr=0.1 can't be given"),
        (["--format", "safetensors", OWN, "--output", "."], "Is a directory"),
        (["--format", "safetensors", OWN, "--output", "/proc/none/model"], "can't be written"),
    ],
)
def test_what_is_not_possible_is_one_message(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call(str(folder), *words)
    assert isinstance(answer, str)
    assert problem in answer
    assert not [*tmp_path.iterdir()]
    assert not [*folder.glob("model*")]


def test_an_unknown_format_is_answered_with_those_that_there_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(str(folder), "--format", "tflite") == 2
    assert all(kind in capsys.readouterr().err for kind in export.KINDS[:1])
    assert (*FORMATS,) == export.KINDS


def test_a_missing_package_is_named_with_the_way_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    answer = call(str(folder), "--format", "onnx", OWN)
    assert isinstance(answer, str)
    assert "onnxscript" in answer
    assert "pip install 'cifar-framework[onnx]'" in answer
