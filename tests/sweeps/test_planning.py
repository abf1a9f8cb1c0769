"""How a sweep's jobs become a plan, and what is said of them before the first begins."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar.base.errors import UserError
from cifar.experiment.config import config_hash
from cifar.sweeps.plan import Begun, Plan, make_plan
from cifar.sweeps.planning import base_changes, base_of, check_jobs, take_up
from tests.conftest import ROOT, Compose
from tests.sweep_folders import write_run


def no_hash(job: list[str]) -> str:
    """Stand in where no configuration may be composed."""
    raise AssertionError(job)


def test_a_shuffled_sweep_is_drawn_once(tmp_path: Path) -> None:
    words = ["lr=shuffle(0.1,0.2,0.3,0.4,0.5,0.6)", "seed=0,1", "epochs=1"]
    first = make_plan(words, 0)
    for _ in range(5):
        again = take_up(make_plan([*words[:2], "epochs=2"], 0), first, tmp_path, no_hash)
        assert [again.label(number) for number in range(12)] == [first.label(number) for number in range(12)]
        assert again.jobs[0][-1] == "epochs=2"


def test_values_that_another_put_into_the_stored_plan_are_not_taken(tmp_path: Path) -> None:
    drawn = make_plan(["lr=0.1,0.2"], 0)
    stored = replace(drawn, jobs=[["lr=0.1"], ["augment._target_=evil"]])
    assert take_up(drawn, stored, tmp_path, no_hash).by_number() == {0: ["lr=0.1"], 2: ["lr=0.2"]}


def test_jobs_keep_their_numbers_when_the_grid_is_edited(tmp_path: Path) -> None:
    stored = make_plan(["lr=0.1,0.2", "seed=0,1"], 0)
    edited = take_up(make_plan(["lr=0.05,0.1,0.3", "seed=0,1"], 0), stored, tmp_path, no_hash)
    assert edited.numbers == [4, 5, 0, 1, 6, 7]
    assert (edited.label(0), edited.label(4)) == ("lr=0.1 seed=0", "lr=0.05 seed=0")
    assert edited.label(2) == "job 2"  # no longer one of the sweep's


def test_jobs_are_found_by_their_hash_where_their_words_differ(tmp_path: Path) -> None:
    def hash_of(job: list[str]) -> str:
        lr = float(job[0].partition("=")[2])
        return config_hash({"lr": lr, "seed": 0, "data": {"val_size": 5000, "split_seed": 0}})

    write_run(tmp_path / "0", 0.1, 0, 0)
    write_run(tmp_path / "7", 0.2, 0, 7)
    stored = make_plan(["lr=0.1,0.2"], 0)
    for plan in (stored, None):
        edited = take_up(make_plan(["lr=0.05,1e-1,2e-1", "log_every=5"], 0), plan, tmp_path, hash_of)
        assert edited.numbers == [8, 0, 7]


def begun(cfg: DictConfig, *words: str) -> Plan:
    """Return the plan of a sweep that was begun with this configuration."""
    return replace(make_plan([*words], 0), begun=Begun([*words], [], [], "/", base_of(cfg)))


def test_a_base_that_differs_is_told_but_not_what_was_typed_now(compose: Compose) -> None:
    stored = begun(compose("data=digits"), "data=digits")
    assert base_changes(stored, begun(compose("data=digits", "log_every=7", "tracker=none"), "data=digits")) == []
    changed = begun(compose("data=digits", "label_smoothing=0.1", "epochs=3"), "data=digits", "epochs=3")
    assert base_changes(stored, changed) == ["label_smoothing was 0.0 and is 0.1"]
    del changed.begun.base["tta"]  # type: ignore[union-attr]
    assert base_changes(changed, stored) == ["epochs was 3 and is 1", "label_smoothing was 0.1 and is 0.0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=0.1,-1"], "lr=-1 is not possible|lr=-1.0 is not possible"),
        (["seed=0,1", "lr=0.1,abc"], "abc"),
        (["init_from=null,absent.pt"], "init_from=absent.pt: there is no such file"),
        (["model=vgg16,resnet50", "init_from='absent/${constructor:${model._target_}}.pt'"], "absent/vgg16.pt"),
        (["schedule=cosine", "schedule.warmup_epochs=0,2"], "schedule.warmup_epochs=2 is not possible with epochs=1"),
        (["schedule=cosine", "schedule.final_factor=0,7"], "schedule.final_factor=7 is not possible"),
        (["schedule=cosine,step", "schedule.nothing=1"], "nothing"),
        (["optimizer=sgd,adam", "optimizer.momentum=0.9"], "momentum"),
        (["model=resnet50,resnet51"], "resnet51"),
        (["data.val_size=0,-3"], "data.val_size=-3 is not possible"),
    ],
)
def test_what_can_be_known_is_said_before_the_first_job(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    from hydra.errors import HydraException

    monkeypatch.chdir(tmp_path)
    plan = make_plan(words, 0)
    with pytest.raises((UserError, OmegaConfBaseException, HydraException), match=message):
        check_jobs(plan, tmp_path, lambda job: compose(*job))


def test_thousands_of_jobs_are_looked_at_without_composing_each(tmp_path: Path, compose: Compose) -> None:
    composed = []

    def count(job: list[str]) -> DictConfig:
        composed.append(job)
        return compose(*job)

    plan = make_plan(["optimizer=adam,sgd", "lr=0.1,0.01", "seed=range(0,300)"], 0)
    check_jobs(plan, tmp_path, count)
    assert composed == [["optimizer=adam", "lr=0.1", "seed=0"], ["optimizer=sgd", "lr=0.1", "seed=0"]]


def test_what_is_done_is_not_looked_at(tmp_path: Path, compose: Compose) -> None:
    write_run(tmp_path / "0", 0.1, 0, 0)
    plan = make_plan(["init_from=gone.pt"], 0)
    check_jobs(plan, tmp_path, lambda job: compose(*job))


def test_a_globbed_sweep_has_a_plan() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose("config")
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        plan = make_plan(["optimizer=glob(ad*)", "lr=0.1,0.2"], 0, hydra.config_loader)
    assert [plan.label(number) for number in plan.numbers] == [
        f"optimizer={name} lr={lr}" for name in ("adam", "adamw") for lr in ("0.1", "0.2")
    ]


def test_keys_that_go_together_have_their_first_values_together() -> None:
    words = ["lr=tag(zip,choice(0.1,0.2))", "seed=0,1", "epochs=3", "batch_size=tag(zip,range(100,300,100))"]
    plan = make_plan(words, 0)
    assert plan.swept == ["lr", "seed", "batch_size"]
    assert [{*job} for job in plan.jobs] == [
        {f"lr={lr}", f"batch_size={size}", f"seed={seed}", "epochs=3"}
        for lr, size in ((0.1, 100), (0.2, 200))
        for seed in (0, 1)
    ]
    assert plan.label(2) == "lr=0.2 batch_size=200 seed=0"
    two = make_plan(["lr=tag(zip1,choice(1,2))", "epochs=tag(zip1,choice(3,4))", "seed=tag(zip2,choice(5,6))"], 0)
    assert len(two.jobs) == 4
    with pytest.raises(UserError, match=r"the same number of values: lr=.* has 2, epochs=.* has 3"):
        make_plan(["lr=tag(zip,choice(1,2))", "epochs=tag(zip,choice(3,4,5))"], 0)


def test_without_a_zip_the_jobs_are_those_of_hydras_own_sweeper() -> None:
    words = ["lr=0.1,0.2", "optimizer=adam", "seed=range(0,3)", "+tag=a,b", "lr=0.3"]
    parsed = OverridesParser.create().parse_overrides(words)
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    assert make_plan(words, 0).jobs == [[*job] for job in jobs]
