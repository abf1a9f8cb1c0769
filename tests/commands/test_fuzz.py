"""Random words on the command line, made from the schema and the groups: whatever is typed, nobody sees a traceback."""

import dataclasses
import random
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar.experiment.config import Checkpoint, Config, Data, Device
from tests.conftest import ROOT
from tests.in_process import call

NUMBERS = [
    "0", "1", "-1", "3", "0.5", "-0.0", "1e-400", "1e400", "nan", "inf", "-inf", "1_000", "007", "0x10", "1e3",
    str(2**31), str(2**31 - 1), str(2**53 + 1), str(2**63), str(2**64), "9" * 400, "1e308", "5e-324", "1.5", "+1",
]  # fmt: skip
TEXTS = [
    "", "a", "é", "数据", "a b", "~", "~/x", "#", "a#b", "a=b", "=", "'", '"', "'a'", '"a"', "'", "\\", "a\\'b", "a:b",
    "a,b", ",", "[", "]", "[]", "[1,2,3]", "[1,[2,{a:3}]]", "{", "{}", "{a:1}", "{a:{b:null}}", "(", "null", "NULL",
    "true", "TRUE", "none", "None", "???", "'???'", "$", "$HOME", "${", "${}", "${seed}", "${nope}", "${oc.env:NOPE}",
    "${oc.env:HOME}", "${oc.env:HOME,~}", "${.x}", "${..x}", "${hydra:job.num}", "${now:%Y}", "${times:1,2}",
    "${times:a,b}", "${constructor:1}", "${eval:1}", "'${seed}'", "a/b", "/nowhere/x", "../..", "/dev/null", "x" * 300,
    "file", "file/below", "\t", "a\nb", "\x1b[31m", "🙂", "\u202e", "<b>", "%s", "{0}", "*", "a*", "glob(*)", "str(1)",
    "int(a)", "float(x)", "bool(3)", "sort(3,1,2)", "nope(1)", "extend_list(1)", "tag(a,1,2)",
]  # fmt: skip
SWEEPS = [
    "1,2", "range(2)", "range(0,1,0)", "range(3,1)", "range(1,2,0.5)", "choice(1,2)", "shuffle(1,2)", "glob(a*)",
    "interval(0,1)", "tag(log,interval(1,2))", "a,b,", "null,1", "1,null", "sort(2,1)", "[],1", "choice()", "1,1",
]  # fmt: skip
BEFORE = [*[""] * 16, *["+"] * 4, *["++"] * 4, *["~"] * 3, "+~", "-", " "]
ALWAYS = ["tracker=none", "device=cpu"]


def keys() -> list[str]:
    """Return every key of the schema with dots, those of the groups' files, and some that are none."""
    names: list[str] = []
    for prefix, schema in (("", Config), ("data.", Data), ("device.", Device), ("checkpoint.", Checkpoint)):
        names += [f"{prefix}{entry.name}" for entry in dataclasses.fields(schema)]
    return [
        *names, "model._target_", "model.widths", "model.num_classes", "optimizer.lr", "optimizer.momentum",
        "optimizer.betas", "optimizer.others.lr", "optimizer.groups", "schedule.warmup_epochs", "schedule.every_epochs",
        "schedule._target_", "augment.padding", "augment.flip", "augment.cutout", "data.source.num_train",
        "data.source.mirrors", "tracker._target_", "tracker.project", "lrr", "data.lmit", "optimizer.momentun", "",
        ".", "a.b.c", "lr.x", "data..limit", "hydra.run.dir", "hydra.sweep.dir", "hydra.job.name", "hydra.verbose",
        "hydra.job.num", "hydra/launcher", "hydra.searchpath", "hydra.job.chdir", "experiment@a", "model@b", "@",
        "a@b@c", "_target_", "hydra", "lr[0]", "é", "1", "null",
    ]  # fmt: skip


def choices() -> dict[str, list[str]]:
    """Return the groups with their choices."""
    folders = [path for path in (ROOT / "conf").iterdir() if path.is_dir()]
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in sorted(folders)}


def words(numbers: random.Random) -> list[str]:
    """Return a command's words."""
    known, groups = keys(), choices()
    made: list[str] = []
    is_sweep = numbers.random() < 0.25
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        kind = numbers.random()
        if kind < 0.25:
            group = numbers.choice([*groups])
            made.append(f"{group}={numbers.choice([*groups[group], 'null', 'nope', '[]', '3'])}")
            continue
        key, before = numbers.choice(known), numbers.choice(BEFORE)
        pool = SWEEPS if is_sweep and kind < 0.6 else numbers.choice((NUMBERS, TEXTS, TEXTS))
        value = numbers.choice(pool)
        if before == "~" and numbers.random() < 0.7:
            made.append(f"~{key}")
        elif kind > 0.97:
            made.append(numbers.choice((key, value)) or "=")
        else:
            made.append(f"{before}{key}={value}")
    return [*(["-m"] if is_sweep else []), *ALWAYS, *made]


def problems(result_of: Callable[..., typing.Any], seeds: range) -> list[tuple[list[str], str]]:
    """Return the commands that ended in a traceback, or in neither success nor a message."""
    found = []
    for seed in seeds:
        made = words(random.Random(seed))
        outcome = result_of(*made)
        text = outcome.output + outcome.errors
        is_silent = outcome.code not in (0, 2) and not outcome.errors.strip()
        if "Traceback" in text or "please report" in text or "Warning" in outcome.errors or is_silent:
            found.append((made, text[-1500:]))
    return found


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_no_traceback_for_words_of_chance(start: int) -> None:
    assert problems(call, range(start, start + 20)) == []


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 2100, 100))
def test_no_traceback_for_two_thousand_commands_of_chance(start: int) -> None:
    assert problems(call, range(start, start + 100)) == []
