"""What continues a sweep: its arguments, and what of its folder a stranger may not say."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cifar.base.errors import UserError
from cifar.sweeps.continuing import again, go_to, objection, refuse_untrusted, sweep_arguments, typed_again
from cifar.sweeps.plan import PLAN, Begun, make_plan, read_plan, write_plan
from tests.conftest import ROOT

TASK, HYDRA = ["lr=0.1,0.01", "epochs=2", "tracker=none"], ["hydra/launcher=joblib"]


def write_begun(folder: Path, task: Sequence[str] = TASK, hydra: Sequence[str] = HYDRA, **others: Any) -> Begun:
    """Write the plan of a sweep that was begun with these words."""
    begun = Begun([*task], [*hydra], **({"flags": [], "cwd": "/where/it/was", "base": {}} | others))
    folder.mkdir(exist_ok=True)
    write_plan(folder, replace(make_plan([*task], 0), begun=begun))
    return begun


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "is not a sweep's folder: it has no sweep.json"),
        ("multirun.yaml", "has no intact sweep.json, so its jobs are not known. Type the sweep's command again"),
        ("study.db", "holds a search"),
    ],
)
def test_what_is_no_sweep(tmp_path: Path, name: str | None, message: str) -> None:
    if name is not None:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        sweep_arguments(tmp_path, [])
    with pytest.raises(UserError, match="there is no such folder"):
        sweep_arguments(tmp_path / "absent", [])


def test_the_arguments_that_continue_a_sweep(tmp_path: Path) -> None:
    write_begun(tmp_path, flags=["--config-dir", "/other"])
    own = ["hydra.sweeper.same_base=true", "resume=auto", f"hydra.sweep.dir='{tmp_path}'"]
    expected = [
        "--config-dir",
        "/other",
        "-m",
        "lr=0.1,0.01",
        "epochs=2",
        "hydra/launcher=joblib",
        "tracker=wandb",
        *own,
    ]
    assert sweep_arguments(tmp_path, ["tracker=wandb"]) == (expected, Path("/where/it/was"))
    assert sweep_arguments(tmp_path, ["tracker=none", "lr=0.1,0.01"])[0] == ["--config-dir", "/other", "-m", *TASK,
                                                                             "hydra/launcher=joblib", *own]  # fmt: skip
    for word in ("lr=1,2", "lr=0.5", "seed=3", "+foo.bar=3", "tracker=none,wandb", "hydration=3"):
        with pytest.raises(UserError, match=re.escape(f"{word} would be another sweep, so start a new one")):
            sweep_arguments(tmp_path, [word])
    with pytest.raises(UserError, match="epochs=-3 is not possible: epochs takes a whole number"):
        sweep_arguments(tmp_path, ["epochs=-3"])


def test_another_launcher_gets_none_of_the_settings_of_the_one_before(tmp_path: Path) -> None:
    write_begun(tmp_path, hydra=["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    assert "hydra.launcher.n_jobs=2" in sweep_arguments(tmp_path, [])[0]
    other, _ = sweep_arguments(tmp_path, ["hydra/launcher=basic"])
    assert [word for word in other if word.startswith(("hydra/launcher", "hydra.launcher"))] == ["hydra/launcher=basic"]
    both, _ = sweep_arguments(tmp_path, ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"])
    assert [word for word in both if word.startswith(("hydra/launcher", "hydra.launcher"))] == [
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=4",
    ]


def test_what_the_one_before_took_need_not_be_typed_again_for_another_launcher(tmp_path: Path) -> None:
    write_begun(tmp_path, hydra=["hydra/launcher=slurm", "hydra.launcher.setup=[module load cuda]"])
    with pytest.raises(UserError, match="setup"):
        refuse_untrusted(tmp_path, [], [])
    refuse_untrusted(tmp_path, ["hydra/launcher=joblib"], [])
    with pytest.raises(UserError, match="setup"):  # the same launcher would still take it
        refuse_untrusted(tmp_path, ["hydra/launcher=slurm"], [])


def test_a_plan_that_is_cut_anywhere_is_no_plan(tmp_path: Path) -> None:
    write_begun(tmp_path)
    whole = (tmp_path / PLAN).read_bytes()
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: [lr=0.5], hydra: []}}")
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / PLAN).write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"has no intact sweep\.json"):
            sweep_arguments(tmp_path, [])
    (tmp_path / PLAN).write_bytes(whole.replace(b"0.01", b"0.02"))
    assert read_plan(tmp_path) is None


@pytest.mark.parametrize("length", [0, 40, 300])
def test_a_cut_multirun_yaml_changes_nothing(tmp_path: Path, length: int) -> None:
    write_begun(tmp_path)
    expected = sweep_arguments(tmp_path, [])
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: ['seed=0,1'], hydra: []}}"[:length])
    assert sweep_arguments(tmp_path, []) == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("+hydra.callbacks.x._target_=os.system", "Hydra"),
        ("hydra.sweeper._target_=os.system", "Hydra"),
        ("hydra/job_logging=none", "Hydra"),
        ("hydra.searchpath=[/tmp]", "Hydra"),
        ("hydra.launcher.setup=[id]", "Hydra"),
        ("hydra.launcher.partition=$(id)", "Hydra"),
        ("hydra.launcher.partition=gpu", None),
        ("hydra.launcher.account=lab-7.b", None),
        ("hydra.launcher.address=HOST:6379", "Hydra"),
        ("hydra.launcher._target_=a.b", "Hydra"),
        ("+hydra={callbacks: {x: {_target_: a.b}}}", "Hydra"),
        ("hydra.sweeper.params.augment._target_=pathlib.Path.write_text", "names code"),
        ("augment._target_=pathlib.Path.write_text", "names code"),
        ("data.source={_target_: a.b}", "names code"),
        ("model._target_=cifar.models.vgg.vgg16,a.b", "names code"),
        ("augment._target_=${data.source._target_}", "names code"),
        ("data.source.mirrors=['http://x/${oc.env:HOME}']", "asks for more"),
        ("experiment=../../tmp/evil", "leads out"),
        ("+model=/tmp/evil", "leads out"),
        ("lr=0.1,0.2", None),
        ("model._target_=cifar.models.vgg.vgg16", None),
        ("init_from=../other/checkpoint.pt", None),
        ("label_smoothing=${lr}", None),
        ("hydra/launcher=joblib", None),
        ("hydra.launcher.n_jobs=2", None),
        ("hydra.sweeper.max_batch_size=8", None),
        ("hydra.sweeper.params.lr='0.1,0.2'", None),
    ],
)
def test_what_a_stranger_may_not_say(word: str, reason: str | None) -> None:
    from cifar.experiment.stored.trust import own_targets

    found = objection(word, own_targets([ROOT / "conf"]))
    assert found is None if reason is None else reason in (found or "")


def test_what_must_be_typed_again_stands_in_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--config-dir", str(tmp_path / "more")]
    task, hydra = ["seed=0,1", "model._target_=my.Model"], ["hydra.job.chdir=true", "hydra.launcher.n_jobs=2"]
    begun = write_begun(tmp_path / "s", task, hydra, flags=flags)
    words = ["model._target_=my.Model", "hydra.job.chdir=true"]
    command = f"cifar resume s --config-dir {tmp_path}/more {' '.join(words)}"
    assert again(tmp_path / "s") == command
    for typed_flags, typed in ([], []), ([], words), (flags, []), (flags, words[:1]), (flags, words[1:]):
        with pytest.raises(UserError) as error:
            refuse_untrusted(tmp_path / "s", typed, typed_flags)
        assert str(error.value).endswith(command)
    refuse_untrusted(tmp_path / "s", words, flags)
    write_begun(tmp_path / "s")
    with pytest.raises(UserError, match="begun without these flags"):
        refuse_untrusted(tmp_path / "s", [], flags)
    assert typed_again(begun, tmp_path / "s").startswith(f"cifar run --config-dir {tmp_path}/more -m seed=0,1")


def test_where_a_strangers_sweep_was_begun_is_not_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """wandb reads its settings there, and they say where the API key is sent."""
    (folder := tmp_path / "mine" / "multirun" / "s").mkdir(parents=True)
    (theirs := tmp_path / "theirs").mkdir()
    monkeypatch.chdir(tmp_path)
    for cwd in (str(theirs), str(folder / ".." / "x"), "mine"):
        (tmp_path / "mine" / "multirun" / "x").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="To continue it, go there: cd "):
            go_to(cwd, folder, "sweep")
    go_to(str(tmp_path / "gone"), folder, "sweep")
    assert "which is not here" in capsys.readouterr().out
    assert Path.cwd() == tmp_path
    go_to(str(tmp_path / "mine"), folder, "sweep")
    assert Path.cwd() == tmp_path / "mine"
