"""run.py as a user meets it: messages, exit codes, sweeps with a failed job."""

import time
from pathlib import Path

import pytest

from cifar.commands.app.cli import flags_first
from tests import in_process
from tests.conftest import MODELS, QUIET, TINY, Command, read_metrics, read_summary


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["lrr=0.1"], ["There is no key 'lrr'. Did you mean 'lr'?", "batch_size"]),
        (["optimizer.momentun=0.9", "optimizer=sgd"], ["'optimizer.momentun'. Did you mean 'momentum'?"]),
        (["+data.lmit=3"], ["'data.lmit'. Did you mean 'limit'?"]),
        (["model=resnet51"], [f"model=resnet51 is not possible: there is {MODELS}."]),
        (["experiment=nope"], ["experiment=nope is not possible: there is", "report_resnet50"]),
        (["lr=abc"], ["lr: Value 'abc'", "It takes a positive number"]),
        (["lr=null"], ["lr: ", "It takes a positive number"]),
        (["lr=-1"], ["lr=-1.0 is not possible: it takes a positive number"]),
        (["batch_size=0"], ["batch_size=0 is not possible: it takes 1 to 1,000,000,000."]),
        (["epochs=-1"], ["epochs=-1 is not possible: it takes a whole number of epochs"]),
        (["data.shuffle=maybe"], ["data.shuffle: Value 'maybe' is not a valid bool"]),
        (["device=cuda"], ["device=cuda is not possible", "There is: auto, cpu"]),
        (["-m", "lr=0.1,abc"], ["lr: Value 'abc'"]),
        (["lr"], ["'lr' is not possible: a word is KEY=VALUE, such as lr=0.01"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else None,
)
def test_a_mistake_ends_in_one_message(
    tmp_path: Path, cold_command: Command, arguments: list[str], messages: list[str]
) -> None:
    start = time.perf_counter()
    result = cold_command(*arguments, CUDA_VISIBLE_DEVICES="")
    seconds = time.perf_counter() - start
    assert result.returncode == 1
    assert all(message in result.stderr for message in messages), result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert len(result.stderr.splitlines()) <= 3
    assert "Error executing job" not in result.stderr
    assert not result.stdout or result.stdout.startswith("2 jobs over lr in ")  # before the first is looked at
    assert seconds < 20  # about one second, four where torch must be imported; never the time to read data
    assert not [*tmp_path.rglob("checkpoint.pt")]


def test_a_file_with_an_expression_that_cant_be_read_ends_in_one_message(tmp_path: Path, command: Command) -> None:
    (tmp_path / "more" / "experiment").mkdir(parents=True)
    (tmp_path / "more" / "experiment" / "mine.yaml").write_text("data:\n  root: ${oc.env:HOME,~/data}\n")
    result = command(f"hydra.searchpath=[{tmp_path / 'more'}]", "experiment=mine", *QUIET)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "data.root: token recognition error at: '~'" in result.stderr


def test_hydra_full_error_shows_the_traceback(cold_command: Command) -> None:
    result = cold_command("lr=-1", HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "UserError: lr=-1.0" in result.stderr


def test_help_shows_groups_values_and_examples(cold_command: Command) -> None:
    result = cold_command("--help")
    assert result.returncode == 0
    for word in (f"model: {MODELS}\n", "optimizer: adam, adamw, muon, sam, sgd",
                 "cifar run -m lr=", "data.val_size=0", "label_smoothing", "init_from"):  # fmt: skip
        assert word in result.stdout
    lists = ("augment: ", "experiment: ", "model: ")
    assert max(len(line) for line in result.stdout.splitlines() if not line.startswith(lists)) <= 100
    assert "schema" not in result.stdout


def test_a_piped_run_prints_the_reports_lines_and_nothing_else(tmp_path: Path, cold_command: Command) -> None:
    result = cold_command(*TINY, "tracker=none", "log_every=4", "epochs=2")
    assert result.returncode == 0
    assert result.stderr == ""
    (folder,) = tmp_path.glob("outputs/*/*")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("tiny with 330 parameters on cpu (")
    kilobytes = round((folder / "checkpoint-1.pt").stat().st_size / 1e3)
    assert lines.pop(3) == f"A checkpoint takes {kilobytes} kB; the last 2 are kept"
    assert [line.rpartition(" ")[0] for line in lines[1:5]] == [
        "Epoch [1/2], Step [4/8] Loss:",
        "Epoch [1/2], Step [8/8] Loss:",
        "Epoch [2/2], Step [4/8] Loss:",
        "Epoch [2/2], Step [8/8] Loss:",
    ]
    accuracy = read_summary(folder)["test_accuracy"]
    assert lines[5:] == [
        f"Accuracy of the model on the test images: {100 * accuracy:.2f} %",
        f"Results: {folder.relative_to(tmp_path)}",
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        ".hydra", ".lock", "checkpoint-1.pt", "checkpoint.pt", "metrics.jsonl", "predictions.npz", "run.log",
        "summary.json",
    ]  # fmt: skip
    log = (folder / "run.log").read_text()
    assert "[cifar.training.trainer][INFO] Epoch [1/2], Step [4/8] Loss: " in log
    assert f"Accuracy of the model on the test images: {100 * accuracy:.2f} %" in log


def test_the_same_command_twice_gives_bit_identical_losses(tmp_path: Path, command: Command) -> None:
    results = []
    for number in range(2):
        folder = tmp_path / f"run{number}"
        assert command(*QUIET, "data.val_size=20", "epochs=2", f"hydra.run.dir={folder}").returncode == 0
        lines = read_metrics(folder)
        for line in lines:
            del line["time_seconds"]
            line.pop("train/images_per_second", None)
        results.append(lines)
    assert results[0] == results[1]


def test_a_failed_job_is_reported_at_once_and_the_others_go_on(tmp_path: Path, command: Command) -> None:
    result = command("-m", *QUIET, "+model.dropout=0.1,-1,0.2")
    assert result.returncode == 1
    (sweep,) = tmp_path.glob("multirun/*/*")
    assert [read_summary(sweep / str(number))["status"] for number in range(3)] == ["completed", "failed", "completed"]
    assert "dropout probability has to be between 0 and 1" in read_summary(sweep / "1")["error"]
    report = result.stdout.index("Job 1 failed: ")
    assert result.stdout.index("Job 1 starts: model.dropout=-1") < report
    assert report < result.stdout.index("Job 2 starts: model.dropout=0.2")
    assert "\n2 of 3 jobs done, 1 failed\n" in result.stdout
    assert (sweep / "report.md").is_file()
    assert len(result.stderr.splitlines()) <= 2
    assert "dropout probability has to be between 0 and 1" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert (sweep / "multirun.yaml").is_file()


def test_a_sweep_of_good_jobs_ends_well(tmp_path: Path, command: Command) -> None:
    result = command("-m", *QUIET, "seed=range(0,2)")
    assert result.returncode == 0, result.stderr
    (sweep,) = tmp_path.glob("multirun/*/*")
    assert [read_summary(sweep / str(number))["seed"] for number in range(2)] == [0, 1]


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below the folder with their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path, command: Command) -> None:
    arguments = [*QUIET, f"hydra.run.dir={tmp_path / 'used'}"]
    assert command(*arguments).returncode == 0
    before = contents(tmp_path / "used")
    assert ".hydra/config.yaml" in before
    for again in (arguments, [*arguments, "lr=-1"]):
        result = command(*again)
        assert result.returncode == 1
        assert "used already holds a run" in result.stderr
        assert "Traceback" not in result.stderr
    assert contents(tmp_path / "used") == before


def test_a_folder_in_which_a_run_could_not_begin_is_free(tmp_path: Path, command: Command) -> None:
    for overrides in (["lr=-1"], ["init_from=absent.pt"]):
        assert command(*QUIET, *overrides, "hydra.run.dir=run").returncode == 1
        assert read_summary(tmp_path / "run")["status"] == "failed"
    assert command(*QUIET, "hydra.run.dir=run").returncode == 0
    assert read_summary(tmp_path / "run")["status"] == "completed"
    assert "init_from: null" in (tmp_path / "run" / ".hydra" / "config.yaml").read_text()


def test_a_folder_that_cant_be_written_is_one_message(tmp_path: Path, command: Command) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    result = command(*QUIET)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "outputs" in result.stderr


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("lr=1 --config-dir conf model=x -m seed=0,1", "--config-dir conf -m lr=1 model=x seed=0,1"),
        ("lr=1 -cd a=b x=1 --cfg job", "-cd a=b --cfg job lr=1 x=1"),
        ("lr=1 --config-dir=conf ~model", "--config-dir=conf lr=1 ~model"),
        ("lr=1 --info defaults x=1", "--info defaults lr=1 x=1"),
        ("lr=1 --info x=1", "--info lr=1 x=1"),
        ("lr=1 --unknown x=1", "--unknown lr=1 x=1"),
        ("-m lr=1,2", "-m lr=1,2"),
        ("lr=1 --cfg", "--cfg lr=1"),
        ("", ""),
    ],
)
def test_flags_may_stand_anywhere_among_the_words(typed: str, expected: str) -> None:
    assert flags_first(typed.split()) == expected.split()


def test_a_flag_behind_words_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    (tmp_path / "own" / "optimizer" / "mine.yaml").write_text("# @package _global_\nlr: 0.123\n")
    outcome = in_process.call("optimizer=mine", "--config-dir", "own", "epochs=3", "--cfg", "job", "seed=4")
    assert (outcome.code, outcome.errors) == (0, "")
    assert all(line in outcome.output for line in ("lr: 0.123\n", "epochs: 3\n", "seed: 4\n"))
