"""Searches with Optuna: ranges, trials as runs, pruning, several processes, and going on after a cut."""

import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hydra.errors import HydraException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from cifar.base.errors import UserError
from cifar.base.locks import is_locked
from cifar.commands.tune import new_search, same_search, split_own, tune
from cifar.experiment.typed.compose import compose_words
from cifar.experiment.typed.search_path import without_flags
from cifar.reports.figures.study import draw_study, importances
from cifar.sweeps.continuing import sweep_arguments
from cifar.sweeps.home import Home, storage_in
from cifar.sweeps.ranges import examples, label, split_ranges, to_words
from cifar.sweeps.search import make_judge, over, run_trial, train
from cifar.sweeps.study import (
    Search,
    best_trial,
    claim,
    found_study,
    latest_trials,
    make_pruner,
    open_study,
    read_search,
)
from tests.conftest import QUIET, SLOW, Command, Start, read_metrics, read_summary
from tests.processes import Run, small_disk
from tests.tiny_model import tiny

TUNE = ("-m", "cifar", "tune")
TINY_CODE, SLOW_CODE = QUIET[0], SLOW[0]  # what a stored search may only name if it is typed again
LR = "lr=tag(log, interval(1e-4, 1))"
FIXED = [*QUIET, "data.val_size=20", "device.threads=1"]
DIGITS = [
    "model._target_=tests.tiny_model.tiny", "data=digits", "augment=none", "data.limit=500", "data.val_size=500",
    "device=cpu", "device.threads=1", "tracker=none", "batch_size=50",
]  # fmt: skip


def results_of(folder: Path) -> dict[int, tuple[Any, ...]]:
    """Return every run's parameters and what came of it."""
    names = ("val_accuracy", "val_loss", "test_accuracy", "train_loss")
    found = {}
    for number, trial in latest_trials(open_study(Home(folder))).items():
        summary = read_summary(folder / str(number))
        found[number] = (trial.params, trial.state, trial.value, summary["status"], *map(summary.get, names))
    return found


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("lr=interval(1e-4, 1)", FloatDistribution(1e-4, 1)),
        (LR, FloatDistribution(1e-4, 1, log=True)),
        ("epochs=int(interval(1, 8))", IntDistribution(1, 8)),
        ("batch_size=int(tag(log, interval(8, 512)))", IntDistribution(8, 512, log=True)),
        ("batch_size=range(50, 201, 50)", IntDistribution(50, 200, step=50)),
        ("batch_size=range(200, 40, -50)", IntDistribution(50, 200, step=50)),
        ("batch_size=range(1, 100000000000)", IntDistribution(1, 99999999999)),
        ("lr=range(1, 0.1, -0.25)", FloatDistribution(0.25, 1, step=0.25)),
        ("label_smoothing=range(0, 0.3, 0.1)", FloatDistribution(0, 0.2, step=0.1)),
        ("optimizer=adam,sgd", CategoricalDistribution(["adam", "sgd"])),
        ("optimizer=choice(adam, sgd)", CategoricalDistribution(["adam", "sgd"])),
        ("lr=0.1,0.01", CategoricalDistribution(["0.1", "0.01"])),
        ("+data.mean=[0.0,0.5,1.0],'[1,1,1]'", CategoricalDistribution(["[0.0,0.5,1.0]", "'[1,1,1]'"])),
    ],
)
def test_ranges_have_hydras_syntax(word: str, expected: optuna.distributions.BaseDistribution) -> None:
    space, others = split_ranges(["epochs=3", word])
    assert space == {word.partition("=")[0]: expected}
    assert others == ["epochs=3"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lr=interval(1, 0.1)", "1.0 is not less than 0.1"),
        ("lr=tag(log, interval(0, 1))", "a logarithmic interval takes positive numbers"),
        ("lr=interval(0.1, inf)", "its ends must be finite numbers"),
        ("lr=range(0.1, 1, 0.0)", "step not 0"),
        ("lr=range(1, 2)", "it has fewer than two values"),
        ("lr=tag(log, range(1, 5))", "only an interval can be tagged"),
        ("model=glob(*)", "can't be searched: it takes interval"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(word: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        split_ranges([word])
    assert str(caught.value).startswith(word)


def test_parameters_become_words_and_every_end_and_choice_is_tried_out() -> None:
    space, _ = split_ranges([LR, "optimizer=adam,sgd,adamw", "epochs=int(interval(1, 3))"])
    assert [to_words(parameters) for parameters in examples(space)] == [
        ["lr=0.0001", "optimizer=adam", "epochs=1"],
        ["lr=1.0", "optimizer=sgd", "epochs=3"],
        ["lr=1.0", "optimizer=adamw", "epochs=3"],
    ]
    assert (
        label({"lr": 0.00123456789, "+model.width": 3, "optimizer": "sgd"}) == "lr=0.001235 model.width=3 optimizer=sgd"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trials=0"], "trials=0 is not possible: it takes a whole number from 1 to 1,000,000"),
        (["trials=true"], "trials=true is not possible"),
        (["jobs=1.5"], "jobs=1.5 is not possible"),
        (["trials=1e3"], "trials=1e3 is not possible: it takes a whole number from 1 to 1,000,000"),
        (["trials=99999999999999999999"], "is not possible: it takes a whole number from 1 to 1,000,000"),
        (["jobs=0"], "jobs=0 is not possible: it takes a whole number of processes from 1 to 1,000"),
        (["trails=5"], "There is no word 'trails'. Did you mean 'trials'?"),
        (["foldr=x"], "There is no word 'foldr'. Did you mean 'folder'?"),
        (["+jobs=2"], "There is no word '+jobs'. Did you mean 'jobs'?"),
        (["pruner=best"], "pruner=best is not possible: it takes one of median, hyperband, none"),
        (["sampler_seed=-1"], "sampler_seed=-1 is not possible"),
        (["folder="], "folder= is not possible"),
        (["resnet50"], "resnet50 is not possible: cifar tune takes key=value"),
        (["-m"], "-m is not possible"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib is not possible in a search"),
        (["resume=auto"], "resume=auto is not possible in a search"),
    ],
)
def test_own_words_are_checked(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        split_own(words)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["epochs=2"], UserError, "There is no range to search"),
        ([LR, "data.val_size=0"], UserError, "needs validation images"),
        (["lr=interval(-1, 1)"], UserError, "lr=-1.0 is not possible"),
        (["label_smoothing=interval(0, 2)"], UserError, "label_smoothing=2.0 is not possible"),
        (["lrr=interval(0, 1)"], HydraException, "lrr"),
        (["model=resnet50,vgg17"], HydraException, "vgg17"),
    ],
)
def test_an_impossible_search_is_refused_before_it_begins(words: list[str], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        new_search({}, words)


def test_a_search_holds_images_out_and_knows_its_longest_run(capsys: pytest.CaptureFixture[str]) -> None:
    search = new_search({"trials": 3}, [LR, "epochs=range(2, 9, 3)", "pruner=x"][:2])
    assert search == Search([LR, "epochs=range(2, 9, 3)", "data.val_size=5000"], 3, "median", 0, 8, os.getcwd())
    assert "data.val_size=5000: the search chooses by training images that are held out" in capsys.readouterr().out
    assert new_search({}, [LR, "data.val_size=100"]).words == [LR, "data.val_size=100"]
    assert not capsys.readouterr().out
    pruner = make_pruner(Search([], 1, "hyperband", 0, 8, "/"))
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    assert isinstance(make_pruner(search), optuna.pruners.MedianPruner)
    assert isinstance(make_pruner(Search([], 1, "none", 0, 1, "/")), optuna.pruners.NopPruner)


def test_only_the_same_search_goes_on_in_a_folder() -> None:
    stored = Search([LR, "epochs=3", "data.val_size=5000"], 20, "median", 0, 3, "/")
    assert same_search(stored, {"trials": 30, "jobs": 2}, []) == Search(stored.words, 30, "median", 0, 3, "/")
    assert same_search(stored, {"pruner": "median"}, ["epochs=3", LR]) == stored
    others: list[tuple[dict[str, Any], list[str], str]] = [
        ({"pruner": "none"}, [], "pruner=none"),
        ({"sampler_seed": 1}, [], "sampler_seed=1"),
        ({}, [LR, "epochs=4"], "epochs=4, no epochs=3"),
        ({}, ["epochs=3"], f"no {LR}"),
    ]
    for own, words, named in others:
        with pytest.raises(UserError, match=re.escape(f"another one: {named} would change it")):
            same_search(stored, own, words)


def test_trials_are_runs_the_best_is_named_and_more_can_be_asked_for(tmp_path: Path, command: Command) -> None:
    words = [*DIGITS, LR, "optimizer=adam,sgd", "epochs=2"]
    done = command(*words, "trials=5", "folder=one", program=TUNE)
    assert done.returncode == 0, done
    folder = tmp_path / "one"
    summaries = [read_summary(folder / str(number)) for number in range(5)]
    best = max(range(5), key=lambda number: summaries[number]["val_accuracy"])
    assert f"Best trial: {best} (lr=" in done.stdout
    assert "All 5 trials of one are done (0 were before)." in done.stdout
    assert "5 of 5 trials done" in done.stdout
    for number, (parameters, state, value, status, val_accuracy, *_) in results_of(folder).items():
        summary = summaries[number]
        assert (state, status, value) == (TrialState.COMPLETE, "completed", val_accuracy)
        assert 1e-4 <= parameters["lr"] <= 1
        assert summary["overrides"][-2:] == to_words(parameters)
        assert summary["config"]["lr"] == parameters["lr"]
        assert summary["choices"]["optimizer"] == parameters["optimizer"]
        assert summary["job"] == number
        assert "Accuracy of the model on the test images" in (folder / str(number) / "run.log").read_text()
        assert (folder / str(number) / ".hydra" / "overrides.yaml").exists()
    report = (folder / "report.md").read_text()
    assert report.count("1 completed") == 5
    assert "| rank | lr | optimizer |" in report
    for name in ("history", "importances", "accuracy_vs_lr"):
        assert f"({name}.png)" in report
        assert (folder / f"{name}.svg").exists()
    again = command("folder=one", TINY_CODE, program=TUNE)
    assert again.returncode == 0
    assert "All 5 trials of one are done (5 were before)." in again.stdout
    assert [read_summary(folder / str(number)) for number in range(5)] == summaries
    more = command(*words, "trials=6", "folder=one", program=TUNE)
    assert "All 6 trials of one are done (5 were before)." in more.stdout
    assert sorted(results_of(folder)) == [0, 1, 2, 3, 4, 5]
    other = command(*words, "lr=interval(0,1)", "folder=one", program=TUNE)
    assert other.returncode == 1
    assert "lr=interval(0,1) would change it" in other.stderr


def test_a_search_that_was_cut_twice_ends_as_if_it_had_not_been(tmp_path: Path, start: Start, command: Command) -> None:
    words = [*FIXED, *SLOW, "epochs=2", LR, "trials=4"]
    run = start(*words, "folder=cut", program=TUNE)
    run.wait_for("Trial 1 starts")
    run.wait_for(r"Epoch \[2/2\], Step \[1/6\]")
    run.send(signal.SIGTERM)
    assert run.end() == 143
    assert run.errors.endswith(f"Interrupted. Continue with: cifar tune folder=cut {SLOW_CODE}\n")
    assert read_summary(tmp_path / "cut" / "1")["status"] == "interrupted"
    run = start("folder=cut", SLOW_CODE, program=TUNE)
    run.wait_for("Resumed at step")
    run.wait_for("Trial 2 starts")
    run.wait_for(r"Epoch \[2/2\], Step \[3/6\]")
    run.send(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    again = command("folder=cut", SLOW_CODE, program=TUNE)
    assert again.returncode == 0, again
    assert "Resumed at step 6 of 12" in again.stdout
    assert "All 4 trials of cut are done (2 were before)." in again.stdout
    assert command(*words, "folder=whole", program=TUNE).returncode == 0
    assert results_of(tmp_path / "cut") == results_of(tmp_path / "whole")
    trials = open_study(Home(tmp_path / "cut")).get_trials()
    assert [trial.state for trial in trials].count(TrialState.FAIL) == 2
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    for number in (1, 2):
        steps = [entry["step"] for entry in read_metrics(tmp_path / "cut" / str(number)) if "train/loss" in entry]
        assert steps == [*range(1, 13)]


def worker_of(run: Run, folder: Path) -> int:
    """Return the process that works on the run in the folder."""
    owner = (folder / ".lock-owner").read_text()
    found = int(owner.split()[1])
    assert found != run.pid
    return found


def test_processes_side_by_side_make_exactly_the_trials_and_take_over_from_a_dead_one(
    tmp_path: Path, start: Start
) -> None:
    run = start(*FIXED, *SLOW, "epochs=2", LR, "trials=6", "jobs=2", "folder=two", program=TUNE)
    run.wait_for("Trial 1 starts")
    victim = worker_of(run, tmp_path / "two" / "0")
    os.kill(victim, signal.SIGKILL)
    assert run.end() == 0, run.text
    results = results_of(tmp_path / "two")
    assert sorted(results) == [*range(6)]
    assert {entry[3] for entry in results.values()} == {"completed"}
    assert len({entry[0]["lr"] for entry in results.values()}) == 6
    assert "Epoch [" not in run.output  # only how trials start and end
    assert "6 of 6 trials done" in run.output


def test_ctrl_c_stops_processes_side_by_side(tmp_path: Path, start: Start, command: Command) -> None:
    run = start(*FIXED, *SLOW, "epochs=4", LR, "trials=3", "jobs=2", "folder=two", program=TUNE)
    run.wait_for("Trial 1 starts")
    run.send(signal.SIGINT, to_group=True)
    assert run.end() == 130
    assert run.errors.endswith(f"Interrupted. Continue with: cifar tune folder=two {SLOW_CODE}\n")
    assert not any(is_locked(tmp_path / "two" / str(number)) for number in range(2))
    again = command("folder=two", SLOW_CODE, program=TUNE)
    assert again.returncode == 0, again
    assert {entry[3] for entry in results_of(tmp_path / "two").values()} == {"completed"}


def test_a_failed_trial_is_told_and_tried_again_by_the_next_call(tmp_path: Path, command: Command) -> None:
    words = [*FIXED, "model.num_classes=10,5", LR, "trials=6", "folder=one", "sampler_seed=2"]
    failed = command(*words, program=TUNE)
    states = {number: entry[3] for number, entry in results_of(tmp_path / "one").items()}
    num_failed = [*states.values()].count("failed")
    assert 0 < num_failed < 6
    assert failed.returncode == 1
    assert "failed: model.num_classes=5 is too few: the data has 10 classes." in failed.stdout
    assert f"{6 - num_failed} of 6 trials have a result. Try the others again: cifar tune" in failed.stderr
    again = command("folder=one", TINY_CODE, program=TUNE)
    assert again.stdout.count("is too few: the data has 10 classes") >= num_failed
    assert sorted(results_of(tmp_path / "one")) == [*range(6)]


def test_a_search_whose_first_trial_fails_stops_there(tmp_path: Path, command: Command) -> None:
    stopped = command(*QUIET, LR, "trials=6", "folder=one", program=TUNE)
    assert stopped.returncode == 1
    assert "data.val_size=5000 is not possible: there are 80 training images." in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert sorted(results_of(tmp_path / "one")) == [0]


def test_a_diverged_trial_is_a_result(tmp_path: Path, command: Command) -> None:
    done = command(*FIXED, "lr=interval(1e37, 1e38)", "optimizer=sgd", "trials=2", "folder=one", program=TUNE)
    assert done.returncode == 0, done
    for _, state, value, status, val_accuracy, *_ in results_of(tmp_path / "one").values():
        assert (state, status, value) == (TrialState.COMPLETE, "diverged", val_accuracy)


def begin(folder: Path, *words: str) -> tuple[optuna.Study, optuna.Trial, ExitStack]:
    """Return a study in the folder and its first trial, claimed."""
    folder.mkdir()
    found_study(Home(folder), Search([*FIXED, LR, *words], 3, "none", 0, 3, str(folder)))
    claimed = claim(study := open_study(Home(folder)), Home(folder), stack := ExitStack())
    assert claimed is not None
    assert isinstance(claimed[0], optuna.Trial)
    return study, claimed[0], stack


def test_a_pruned_trial_never_sees_the_test_images(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    study, trial, stack = begin(folder, "epochs=3")
    study.pruner = optuna.pruners.ThresholdPruner(lower=1.1, n_warmup_steps=2)
    with stack:
        run_trial(study, trial, Home(folder), 0)
    (found,) = study.get_trials()
    summary = read_summary(folder / "0")
    assert (found.state, summary["status"], summary["epochs"]) == (TrialState.PRUNED, "pruned", 2)
    assert found.intermediate_values == {1: pytest.approx(found.intermediate_values[1]), 2: summary["val_accuracy"]}
    assert "pruned after epoch 2 of 3" in summary["error"]
    assert "test_accuracy" not in summary
    assert not [entry for entry in read_metrics(folder / "0") if "test/accuracy" in entry]
    with pytest.raises(UserError, match="pruned after epoch 2"):  # a run whose process ended before it told the study
        over(folder / "0", summary["config_hash"])
    assert best_trial(study) is None


def test_an_epoch_is_reported_once_and_the_last_is_not_pruned() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=1.1))
    trial = study.ask()
    judge = make_judge(trial, 3, {1: 0.25})
    with pytest.raises(UserError, match=r"pruned after epoch 2 of 3: 50\.00 % on the validation images"):
        judge(2, 0.5)
    judge(3, 0.75)
    assert study.get_trials()[0].intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75}


def test_claims_stop_at_the_total_and_a_dead_processs_trial_is_claimed_again(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    study, first, stack = begin(folder)
    with ExitStack() as others:
        second, third = claim(study, Home(folder), others), claim(study, Home(folder), others)
        assert second is not None
        assert third is not None
        assert [second[1], third[1]] == [1, 2]
        assert claim(study, Home(folder), others) is None
        stack.close()  # as the operating system does when a process ends
        again = claim(study, Home(folder), others)
        assert again is not None
        assert again[1] == 0
        assert again[0].params == first.params
        assert claim(study, Home(folder), others) is None
    assert read_search(study).trials == 3


def test_importances_are_optunas_and_few_trials_have_none(tmp_path: Path) -> None:
    found_study(Home(tmp_path), Search([LR, "optimizer=adam,sgd"], 30, "none", 0, 1, str(tmp_path)))
    study = open_study(Home(tmp_path))
    study.sampler = optuna.samplers.RandomSampler(seed=0)  # whose first four trials are not all of one optimizer
    space, _ = split_ranges([LR, "optimizer=adam,sgd"])
    for number in range(30):
        assert bool(importances(Home(tmp_path))) == (number > 3)
        trial = study.ask(space)
        trial.set_user_attr("run", number)
        study.tell(trial, 0.8 if trial.params["optimizer"] == "sgd" else 0.2 + trial.params["lr"] / 100)
    found = importances(Home(tmp_path))
    assert found == optuna.importance.get_param_importances(study)
    assert next(iter(found)) == "optimizer"
    assert [figure.stem for figure in draw_study(Home(tmp_path), tmp_path, [])] == ["history", "importances"]


def test_a_file_that_is_no_study_is_refused(tmp_path: Path, command: Command) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.db").write_text("not a database")
    for words in (["folder=bad"], [*FIXED, LR, "folder=bad"]):
        refused = command(*words, program=TUNE)
        assert refused.returncode == 1
        assert "study.db can't be used as a study" in refused.stderr
        assert "Traceback" not in refused.stderr
    refused = command("folder=.", program=TUNE)
    assert "holds no search" in refused.stderr


def test_a_search_goes_on_from_elsewhere_and_resume_names_the_command(tmp_path: Path, start: Start) -> None:
    checkpoint, folder = tmp_path / "first.pt", tmp_path / "one"
    torch.save(tiny().state_dict(), checkpoint)
    words = [*FIXED, "init_from=first.pt", LR, f"folder={folder}"]
    assert start(*words, "trials=1", program=TUNE).end() == 0
    (elsewhere := tmp_path / "elsewhere").mkdir()
    run = Run(elsewhere, [*TUNE, "folder=../one", "trials=2", TINY_CODE], tmp_path / "logs")
    assert run.end() == 0, run.text
    assert "All 2 trials of ../one are done (1 were before)." in run.output
    assert sorted(results_of(folder)) == [0, 1]
    with pytest.raises(UserError, match=f"holds a search. To continue it: cifar tune folder={folder}"):
        sweep_arguments(folder, [])


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("data.source._target_=torch.hub.load", "data.source._target_=torch.hub.load"),
        ("+augment.a={b:{_target_:pathlib.Path.write_text}}", "augment.a.b._target_=pathlib.Path.write_text"),
        ("augment._target_=cifar.data.augment.crops.CropFlip,torch.load", "augment._target_=torch.load"),
        ("init_from=${oc.env:HOME}", "${oc.env:HOME}"),
        ("hydra/launcher=joblib", "hydra/launcher=joblib is not possible in a search"),
        ("+hydra.callbacks.x._target_=os.system", "hydra.callbacks.x._target_=os.system"),
        ("hydra.searchpath=['file:///theirs']", "If you trust it, repeat --config-dir /theirs."),
        (
            "hydra.searchpath=[pkg://a,pkg://b]",
            "takes configuration that is not your own",
        ),
        ("model=../../theirs/model", "If you trust it, repeat model=../../theirs/model."),
        ("optimizer=adam,/theirs/optimizer", "If you trust it, repeat optimizer=adam,/theirs/optimizer."),
    ],
)
def test_a_strangers_search_names_no_code_but_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, named: str
) -> None:
    found_study(Home(tmp_path), Search([*DIGITS[1:], LR, word], 1, "none", 0, 1, str(tmp_path)))
    monkeypatch.setattr("sys.argv", ["tune", f"folder={tmp_path}"])
    with pytest.raises(UserError, match=re.escape(named)) as refused:
        tune()
    assert not (tmp_path / "0").exists()
    if "_target_" in word and "hydra" not in word:
        assert str(refused.value).endswith(f"If you trust it, repeat {shlex.quote(word)}.")


def test_a_folder_of_ones_own_is_typed_again_for_a_stored_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("_target_: tests.tiny_model.tiny\n")
    (folder := tmp_path / "t").mkdir()
    monkeypatch.chdir(tmp_path)
    (path,) = without_flags(["--config-dir", "own"])
    found_study(Home(folder), Search([path, "model=mine", *DIGITS[1:], LR], 1, "none", 0, 1, str(tmp_path)))
    seen: list[str] = []

    def run_search(home: Home, jobs: int, make_page: object) -> None:
        cfg, _ = compose_words(read_search(open_study(home)).words[:2])
        seen.append(cfg.model._target_)

    monkeypatch.setattr("cifar.commands.tune.run_search", run_search)
    monkeypatch.setattr("cifar.commands.tune.conclude", lambda *arguments: seen.append(arguments[-1]))
    for typed in (["--config-dir", "own"], ["--config-dir=own"], ["-cd", "own"], ["hydra.searchpath=[file://own]"]):
        seen.clear()
        monkeypatch.setattr("sys.argv", ["tune", *typed, "folder=t"])
        tune()
        assert seen == ["tests.tiny_model.tiny", f"cifar tune folder=t --config-dir {tmp_path}/own"]
    other = f"takes configuration that is not your own: --config-dir {tmp_path}/own."
    for text, message in {"--config-dir t": other, "": other, "--config-dir x": "there is no such folder"}.items():
        monkeypatch.setattr("sys.argv", ["tune", "folder=t", *text.split()])
        with pytest.raises(UserError, match=re.escape(message)):
            tune()


@pytest.mark.parametrize(
    ("key", "value"),
    [("model._target_", "torch.hub.load"), ("lr", "${oc.env:HOME}"), ("lr", 2.0), ("optimizer", "sgd")],
)
def test_parameters_in_a_strangers_study_are_those_of_its_words(tmp_path: Path, key: str, value: Any) -> None:
    found_study(Home(tmp_path), Search([*DIGITS, LR, "optimizer=adam,adamw"], 1, "none", 0, 1, str(tmp_path)))
    trial = create_trial(value=0.5, params={key: value}, distributions={key: CategoricalDistribution([value])})
    with pytest.raises(UserError, match=re.escape(f"{key}={value}, which is not in the search's ranges")):
        train(open_study(Home(tmp_path)), trial, tmp_path / "0", 0)


def test_where_a_strangers_search_was_begun_is_not_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("folder", "there", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for number, cwd in enumerate((str(tmp_path / "there"), ".", "..")):
        (folder := tmp_path / "folder" / str(number)).mkdir()
        found_study(Home(folder), Search([*DIGITS[1:], LR], 1, "none", 0, 1, cwd))
        monkeypatch.setattr("sys.argv", ["tune", f"folder={folder}"])
        with pytest.raises(UserError, match=re.escape(f"The search was begun in {cwd}, and the paths among")):
            tune()
        assert Path.cwd() == tmp_path / "here"


def test_a_study_is_read_without_unpickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found_study(Home(tmp_path), Search([LR], 3, "none", 0, 1, "/"))
    study = open_study(Home(tmp_path))
    study.tell(study.ask({"lr": FloatDistribution(0, 1)}), 0.5)
    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", None)
    (trial,) = open_study(Home(tmp_path)).get_trials()
    assert (trial.value, [*trial.params]) == (0.5, ["lr"])
    kinds = {kind for (kind,) in sqlite3.connect(tmp_path / "study.db").execute("SELECT type FROM sqlite_master")}
    assert kinds == {"table", "index"}


@pytest.mark.parametrize("name", ["what?", "my%20drive", "a#b", "näh und fern", "a=b&c", "50%"])
def test_a_study_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    (folder := tmp_path / name).mkdir()
    search = Search([LR], 3, "none", 0, 1, "/")
    found_study(Home(folder), search)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert read_search(open_study(Home(folder))) == search


def test_a_search_is_founded_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search([*DIGITS, LR], 1, "none", 0, 1, str(tmp_path))
    count = 0

    def killed_at(number: int) -> None:
        original = optuna.Study.set_user_attr

        def set_user_attr(study: optuna.Study, key: str, value: Any) -> None:
            nonlocal count
            if count == number:
                raise KeyboardInterrupt
            count += 1
            original(study, key, value)

        monkeypatch.setattr(optuna.Study, "set_user_attr", set_user_attr)
        with pytest.raises(KeyboardInterrupt):
            found_study(Home(tmp_path), search)
        monkeypatch.undo()

    for number in range(6):
        count = 0
        killed_at(number)
        assert not [*tmp_path.iterdir()]
    monkeypatch.setattr("sys.argv", ["tune", f"folder={tmp_path}"])
    with pytest.raises(UserError, match="is begun again by the whole command"):
        tune()
    found_study(Home(tmp_path), search)
    assert read_search(open_study(Home(tmp_path))) == search


def test_a_study_that_was_cut_while_it_was_founded_says_what_to_do(tmp_path: Path) -> None:
    study = optuna.create_study(storage=storage_in(tmp_path / "study.db"), study_name="search")
    study.set_user_attr("words", [LR])
    with pytest.raises(UserError, match=r"not a whole search: it lacks trials, .* give the whole command again"):
        open_study(Home(tmp_path))


@pytest.mark.parametrize("damage", ["delete", "cut", "folder"])
def test_a_trial_whose_results_were_lost_is_made_again(tmp_path: Path, command: Command, damage: str) -> None:
    words = [*FIXED, LR, "trials=3", "folder=one"]
    assert command(*words, program=TUNE).returncode == 0
    before, summary = results_of(tmp_path / "one"), tmp_path / "one" / "1" / "summary.json"
    if damage == "delete":
        summary.unlink()
    elif damage == "cut":
        summary.write_text(summary.read_text()[:100])
    else:
        shutil.rmtree(summary.parent)
    again = command("folder=one", TINY_CODE, program=TUNE)
    assert again.returncode == 0, again
    assert "Trial 1 starts again, because its results were lost" in again.stdout
    assert "All 3 trials of one are done (2 were before)." in again.stdout
    assert results_of(tmp_path / "one") == before
    assert len(open_study(Home(tmp_path / "one")).get_trials()) == 3


def test_a_study_that_is_older_than_its_runs_learns_from_them_what_came_of_these(
    tmp_path: Path, command: Command
) -> None:
    words, folder = [*FIXED, LR, "folder=one"], tmp_path / "one"
    assert command(*words, "trials=1", program=TUNE).returncode == 0
    older = (folder / "study.db").read_bytes()
    assert command(*words, "trials=3", program=TUNE).returncode == 0
    before, summaries = results_of(folder), [(folder / str(number) / "summary.json").read_bytes() for number in (1, 2)]
    (folder / "study.db").write_bytes(older)
    again = command(*words, "trials=3", program=TUNE)
    assert again.returncode == 0, again
    assert results_of(folder) == before
    assert [(folder / str(number) / "summary.json").read_bytes() for number in (1, 2)] == summaries
    assert "Epoch [" not in again.stdout


def test_a_pruned_trial_whose_results_were_lost_is_pruned_again(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    study, trial, stack = begin(folder, "epochs=3")
    study.pruner = optuna.pruners.ThresholdPruner(lower=1.1, n_warmup_steps=2)
    with stack:
        run_trial(study, trial, Home(folder), 0)
    before = read_summary(folder / "0")
    (folder / "0" / "summary.json").unlink()
    with ExitStack() as others:
        claimed = claim(study, Home(folder), others)
        assert claimed is not None
        assert claimed[1] == 0
        run_trial(study, claimed[0], Home(folder), 0)
    after = read_summary(folder / "0")
    for key in ("status", "error", "val_accuracy", "val_loss", "epochs", "config_hash"):
        assert after[key] == before[key]
    assert [found.state for found in study.get_trials()] == [TrialState.PRUNED]


@pytest.mark.parametrize("size", ["60k", "140k"])
def test_a_search_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path, command: Command, size: str
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, size):
        words = [*FIXED, LR, "trials=2", f"folder={disk / 't'}"]
        full = command(*words, program=TUNE)
        assert full.returncode == 1
        assert "Traceback" not in full.stdout + full.stderr
        assert full.stderr.strip()
        subprocess.run(["mount", "-o", "remount,size=60m", "tmpfs", disk], check=True)
        again = command(*words, program=TUNE)
        assert again.returncode == 0, again
        assert "All 2 trials" in again.stdout


def test_help_shows_how(command: Command) -> None:
    shown = command("--help", program=TUNE)
    assert shown.returncode == 0
    assert "tag(log, interval(1e-4, 1))" in shown.stdout
