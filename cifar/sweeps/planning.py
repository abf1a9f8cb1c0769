"""How a sweep's jobs become a plan: those of an earlier start keep their numbers, and all are looked at beforehand."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from cifar.base.errors import UserError
from cifar.base.nested import flatten
from cifar.base.run_folder import read_summary
from cifar.experiment.config import RULES, check, check_value, decides_numbers
from cifar.sweeps.plan import OVER, Plan, key_of

Compose = Callable[[list[str]], DictConfig]  # a job's overrides → its configuration


def take_up(drawn: Plan, stored: Plan | None, folder: Path, hash_of: Callable[[list[str]], str]) -> Plan:
    """Return the drawn plan with the jobs of the stored one, or of the runs in the folder, under their old numbers.

    Where the same values are swept the stored jobs count, in their order: a shuffled sweep is drawn once. `hash_of`
    gives the hash of a job's configuration.
    """
    if stored and is_same_draw(drawn, stored):
        jobs = {drawn.swept_words(job): job for job in drawn.jobs}
        return replace(drawn, jobs=[jobs[stored.swept_words(job)] for job in stored.jobs], numbers=stored.numbers)
    by_words = {tuple(sorted(job)): number for number, job in stored.by_number().items()} if stored else {}
    numbers = [by_words.pop(tuple(sorted(job)), None) for job in drawn.jobs]
    runs = {int(path.name): read_summary(path) for path in folder.glob("[0-9]*") if path.name.isdecimal()}
    by_hash = {run["config_hash"]: number for number, run in runs.items() if "config_hash" in run}
    by_hash = {text: number for text, number in by_hash.items() if number not in numbers}
    fresh = fresh_numbers({*runs, *(stored.numbers if stored else ())})
    for index, job in enumerate(drawn.jobs):
        if numbers[index] is None:
            found = by_hash.pop(hash_of(job), None) if by_hash else None
            numbers[index] = next(fresh) if found is None else found
    return replace(drawn, numbers=[number for number in numbers if number is not None])


def is_same_draw(drawn: Plan, stored: Plan) -> bool:
    """Return whether both plans have the same jobs as far as they are swept, in whatever order."""
    ours, theirs = (Counter(plan.swept_words(job) for job in plan.jobs) for plan in (drawn, stored))
    return drawn.swept == stored.swept and ours == theirs


def fresh_numbers(used: set[int]) -> Iterator[int]:
    """Yield the numbers after all that are used."""
    yield from itertools.count(max(used, default=-1) + 1)


def base_of(config: DictConfig) -> dict[str, Any]:
    """Return what a sweep's configuration without its swept values holds, interpolations as they are written."""
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    leaves = flatten({str(key): value for key, value in content.items() if key != "hydra"})
    return {key: value for key, value in leaves.items() if decides_numbers(key)}


def base_changes(stored: Plan, drawn: Plan) -> list[str]:
    """Return in words what is not as it was when the sweep was begun, beside the words that were given now."""
    if stored.begun is None or drawn.begun is None:
        return []
    given = {key_of(word) for word in {*drawn.begun.task} - {*stored.begun.task}}
    old, new = stored.begun.base, drawn.begun.base
    keys = [key for key in old if not any(key == word or key.startswith(f"{word}.") for word in given)]
    return [f"{key} was {old[key]} and is {new.get(key)}" for key in keys if old[key] != new.get(key)]


def check_jobs(plan: Plan, folder: Path, compose: Compose) -> None:
    """Raise `UserError` for what can be known before the first job begins, each swept value being looked at once.

    Composing takes long: values are tried in a configuration that was composed with the same groups.
    """
    seen: set[str] = set()
    composed: dict[tuple[str, ...], DictConfig] = {}
    first: DictConfig | None = None
    for number, job in plan.by_number().items():
        unseen = [word for word in job if word not in seen]
        if not unseen or read_summary(folder / str(number)).get("status") in OVER:
            continue
        seen.update(unseen)
        first = compose(job) if first is None else first
        groups = tuple(word for word in job if not is_value(word, first))
        if groups in composed:
            for word in unseen:
                try_value(word, composed[groups])
        else:
            composed[groups] = compose(job) if composed else first
            check_beforehand(composed[groups])


def is_value(word: str, cfg: DictConfig) -> bool:
    """Return whether the override sets a single value that the configuration has."""
    key = key_of(word)
    if not word.startswith(key) or "/" in key or "@" in key:
        return False
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    inner = node._get_node(name) if isinstance(node, DictConfig) and name in node else None
    return inner is not None and not isinstance(inner, (DictConfig, ListConfig))


def try_value(word: str, cfg: DictConfig) -> None:
    """Put the override's value into the configuration; raise `UserError` or OmegaConf's error if it is impossible."""
    key = key_of(word)
    OmegaConf.update(cfg, key, OverridesParser.create().parse_override(word).value(), merge=True)
    if key in RULES:
        check_value(cfg, key)
    if key == "init_from":
        check_files(cfg)
    if key.startswith("schedule.") or key == "epochs":
        check_schedule(cfg)


def check_beforehand(cfg: DictConfig) -> None:
    """Raise `UserError` for what is wrong with a configuration as far as that shows without torch and data."""
    check(cfg)
    check_files(cfg)
    check_schedule(cfg)


def check_files(cfg: DictConfig) -> None:
    """Raise `UserError` if the checkpoint to start from is not there."""
    if cfg.init_from is not None and not Path(cfg.init_from).expanduser().exists():
        raise UserError(f"init_from={cfg.init_from}: there is no such file.")


def check_schedule(cfg: DictConfig) -> None:
    """Raise `UserError` for a schedule that can't be built or whose warm-up is longer than the run."""
    try:
        schedule = instantiate(cfg.schedule, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        return  # the job says what it is
    warmup_epochs = getattr(schedule, "warmup_epochs", 0)
    if 0 < cfg.epochs < warmup_epochs:
        raise UserError(
            f"schedule.warmup_epochs={warmup_epochs} is not possible with epochs={cfg.epochs}: "
            "the warm-up would be longer than the run."
        )
