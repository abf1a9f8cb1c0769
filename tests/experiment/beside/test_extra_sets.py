"""More test sets beside a run's own: in its summary, on its page, in a sweep's report; nothing is chosen by them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import MissingConfigException
from numpy.typing import NDArray

import cifar
from cifar.base.errors import UserError
from cifar.base.run_folder import write_json
from cifar.base.sealed import read_checkpoint
from cifar.commands import evaluate
from cifar.commands.messages.explain import explain
from cifar.data.extra_sets.extra_set import Part
from cifar.experiment.config import config_hash, resolve
from cifar.experiment.restore import restore
from cifar.experiment.run import run
from cifar.experiment.trained import TrainedRun
from cifar.reports.findings.table import columns
from cifar.reports.report import report
from cifar.reports.run_report import page_at_end
from cifar.reports.runs.reading import read_sweep
from tests.archives import small_cifar10
from tests.conftest import QUIET, Compose, read_metrics, read_summary
from tests.extra_files import write_cifar10_1, write_cifar10_c
from tests.in_process import exit_of

OWN = ["model._target_=tests.tiny_model.tiny"]


@pytest.fixture(name="words")
def _words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words of a run on a small CIFAR-10, beside which more test sets lie."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(small_cifar10(monkeypatch).content)
    write_cifar10_1(root / "CIFAR-10.1")
    write_cifar10_c(root / "CIFAR-10-C", ["fog", "snow"])
    quiet = [word for word in QUIET if not word.startswith("data")]
    return [*quiet, f"data.root={root}", "data.source.cache=null", "augment=none"]


BESIDE = ["test_on=[cifar10_1,cifar10_c]", "test_on.cifar10_c.corruptions=[fog,snow]"]


def accuracy(trained: TrainedRun, images: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the accuracy by the interface for pictures, which knows nothing of sets."""
    return float((trained.predict(images).probabilities.argmax(axis=1) == labels).mean())


def test_a_run_is_tested_on_them_afterwards_and_all_else_stays(
    tmp_path: Path, compose: Compose, words: list[str]
) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    returned = run(compose(*words, *BESIDE, "page=true"), tmp_path / "with", make_page=page_at_end)
    assert run(compose(*words), tmp_path / "without") == returned
    summaries = [read_summary(tmp_path / name) for name in ("with", "without")]
    for key in ("test_accuracy", "test_loss", "config_hash", "point"):
        assert summaries[0][key] == summaries[1][key], key
    states = [read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("with", "without")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    found = summaries[0]["test_on"]
    assert "test_on" not in summaries[1]
    trained, files = cifar.load_run(tmp_path / "with", OWN), tmp_path / "data"
    pixels, labels = (np.load(files / "CIFAR-10.1" / f"cifar10.1_v6_{what}.npy") for what in ("data", "labels"))
    assert found["cifar10_1"] == {"accuracy": accuracy(trained, pixels, labels), "num_images": 40}
    labels = np.load(files / "CIFAR-10-C" / "labels.npy")[:20]
    for kind in ("fog", "snow"):
        parts = np.load(files / "CIFAR-10-C" / f"{kind}.npy").reshape(5, 20, 32, 32, 3)
        assert found["cifar10_c"]["kinds"][kind] == [accuracy(trained, part, labels) for part in parts]
    assert found["cifar10_c"]["levels"] == [1, 2, 3, 4, 5]
    assert found["cifar10_c"]["accuracy"] == pytest.approx(np.mean([*found["cifar10_c"]["kinds"].values()]))
    assert read_metrics(tmp_path / "with")[-1]["test_on/cifar10_1"] == found["cifar10_1"]["accuracy"]
    assert json.loads((tmp_path / "with" / "evaluation.json").read_text())["test_on"] == found
    page = (tmp_path / "with" / "run.html").read_text()
    assert "On other test sets" in page
    fog = re.search(r"<tr><td>fog</td>(.*?)</tr>", page)
    assert fog is not None
    assert len(re.findall("<td", fog[1])) == 6  # five severities and their mean


def test_a_trained_run_is_evaluated_on_them(
    tmp_path: Path, compose: Compose, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    run(compose(*words, *BESIDE), tmp_path / "run")
    found = read_summary(tmp_path / "run")["test_on"]
    (tmp_path / "run" / "summary.json").unlink()
    given = [*OWN, *BESIDE, f"data.root={tmp_path / 'data'}"]
    assert exit_of(evaluate.command, "evaluate", str(tmp_path / "run"), *given) == 0
    output = capsys.readouterr().out
    assert f"Accuracy of the model on cifar10_1: {100 * found['cifar10_1']['accuracy']:.2f} %\n" in output
    assert "on cifar10_c: " in output
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["test_on"] == found


def test_a_sweeps_report_shows_them_in_columns_beside_and_ranks_by_validation(
    tmp_path: Path, compose: Compose, words: list[str]
) -> None:
    sweep = tmp_path / "sweep"
    for number, beside in enumerate(([0.1, 0.9], [0.2, 0.8], [0.3, 0.7])):
        folder = sweep / str(number)
        folder.mkdir(parents=True)
        cfg = resolve(compose(*words, f"lr=0.{number + 1}"))
        results = {name: {"accuracy": value, "num_images": 40} for name, value in zip(("a", "b"), beside, strict=True)}
        facts = {
            "status": "completed",
            "config": cfg,
            "config_hash": config_hash(cfg),
            "job": number,
            "test_on": results,
        }
        facts |= {"overrides": [f"lr=0.{number + 1}"], "val_accuracy": 0.5 - 0.1 * number, "test_accuracy": 0.4}
        write_json(folder / "summary.json", facts)
    swept = read_sweep(sweep)
    assert swept.score_key == "val_accuracy"
    table = {column.title: column.values for column in columns(swept)}
    assert table["lr"] == [0.1, 0.2, 0.3]
    assert (table["on a"], table["on b"]) == ([0.1, 0.2, 0.3], [0.9, 0.8, 0.7])
    report([sweep], sweep)
    assert "| on a | on b |" in (sweep / "report.md").read_text()
    header, first, *_ = (sweep / "runs.csv").read_text().splitlines()
    assert dict(zip(header.split(","), first.split(","), strict=False))["test_on.a"] == "0.1"


def test_a_summary_with_results_that_are_none_is_read_without_them(tmp_path: Path, compose: Compose) -> None:
    kinds = {"accuracy": 0.5, "num_images": 3, "levels": [1], "kinds": {"fog": []}}
    for number, strange in enumerate((3, {"a": 3}, {"a": {"accuracy": 2, "num_images": 3}}, {"a": kinds})):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_json(folder / "summary.json", {"status": "completed", "test_accuracy": 0.5, "test_on": strange})
        results = read_sweep(folder)
        assert any("no run writes such test_on" in text for text in results.warnings)
        assert [*results.accuracies] == ["test_accuracy"]


def test_they_may_be_added_when_a_run_goes_on(tmp_path: Path, compose: Compose, words: list[str]) -> None:
    (tmp_path / "run").mkdir()
    run(compose(*words), tmp_path / "run")
    cfg, checkpoint = restore(compose(*words, *BESIDE, "epochs=2", "resume=auto"), tmp_path / "run", [])
    run(cfg, tmp_path / "run", checkpoint=checkpoint)
    assert {*read_summary(tmp_path / "run")["test_on"]} == {"cifar10_1", "cifar10_c"}


def test_a_run_on_some_classes_is_tested_on_these(tmp_path: Path, compose: Compose, words: list[str]) -> None:
    run(compose(*words, "test_on=[cifar10_1]", "data.classes=[dog,cat]", "batch_size=5"), tmp_path)
    assert read_summary(tmp_path)["test_on"]["cifar10_1"]["num_images"] == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data=random"], "test_on.cifar10_1 has images of airplane.* and can't tell of a run that knows 0, 1, 2"),
        (["test_on.cifar10_1.root=absent"], "cifar10.1_v6_data.npy, .* can't be found in"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_trained(
    tmp_path: Path, compose: Compose, words: list[str], changes: list[str], message: str
) -> None:
    words = [word for word in words if not (changes == ["data=random"] and word.startswith("data.source"))]
    with pytest.raises(UserError, match=message):
        run(compose(*words, "test_on=[cifar10_1]", *changes), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


class Mine:
    """A set of one's own: three black images, of a class that depends on the run."""

    class_names = ("cat", "dog")

    def refuse_missing(self) -> None:
        """Miss nothing."""

    def parts(self) -> Iterator[Part]:
        """Yield the images."""
        yield Part(torch.zeros((3, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 1]))


def test_a_set_of_ones_own_is_a_class_and_a_file(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "conf" / "test_on").mkdir(parents=True)
    target = f"{Mine.__module__}.{Mine.__qualname__}"
    (tmp_path / "conf" / "test_on" / "mine.yaml").write_text(f"mine: {{_target_: {target}}}\n")
    chosen = ["test_on=[cifar10_1,mine]", "data.classes=[dog,cat]", "batch_size=5"]
    summary = cifar.train(cifar.compose([*words, *chosen], tmp_path / "conf"), tmp_path / "run")
    assert summary["test_on"]["mine"]["num_images"] == 3
    assert summary["test_on"]["mine"]["accuracy"] in (1 / 3, 2 / 3)  # all black images are of one class
    assert [*summary["test_on"]] == ["cifar10_1", "mine"]


def test_a_set_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(MissingConfigException) as error:
        cifar.compose(["test_on=[nope]"])
    assert explain(error.value) == "test_on=nope is not possible: there is cifar10_1, cifar10_c."
    assert cifar.compose(["test_on=null"]).test_on == {}
