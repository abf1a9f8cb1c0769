"""Search for good values: cifar tune model=resnet50 'lr=tag(log, interval(1e-4, 1))' trials=30"""

import difflib
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from cifar.base.errors import UserError, continued_by
from cifar.base.paths import CONF, absolute
from cifar.base.run_folder import read_summary
from cifar.commands.app import jobs
from cifar.commands.app.new_folder import claim
from cifar.commands.app.ranks import is_rank, refuse
from cifar.commands.messages.exits import guard
from cifar.experiment.config import Config, check
from cifar.experiment.stored.trust import leads_out, own_targets, refuse_foreign_words, refuse_resolvers
from cifar.experiment.typed.command_line import named_code, run_command
from cifar.experiment.typed.compose import compose_words
from cifar.experiment.typed.search_path import as_flags, folders_of, is_search_path, others_of, without_flags
from cifar.reports.run_report import page_at_end
from cifar.sweeps.continuing import go_to
from cifar.sweeps.home import Home
from cifar.sweeps.plan import num_over, result_text
from cifar.sweeps.ranges import examples, label, split_ranges, to_words
from cifar.sweeps.search import run_search
from cifar.sweeps.shared_homes import GRACE_SECONDS, STORAGES, home_of, is_storage, masked
from cifar.sweeps.study import (
    PRUNERS,
    Search,
    best_trial,
    explained,
    found_study,
    lengthen,
    open_study,
    read_search,
    reported_by_other,
)

VAL_SIZE = 5000
HELP = f"""Search for good values with Optuna, choosing by held-out training images.

  cifar tune model=resnet50 'lr=tag(log, interval(1e-4, 1))' epochs=5 trials=30
  cifar tune 'lr=tag(log, interval(1e-4, 1))' optimizer=adam,sgd 'batch_size=range(50,201,50)'
  cifar tune folder=multirun/DATE/TIME               continue a search that was cut
  cifar tune folder=multirun/DATE/TIME trials=50     … or make it longer
  cifar tune 'lr=interval(1e-4, 1)' folder=mine storage=postgresql://me@host/db      on each of several machines

Its own words:
  trials=20        runs in all; pruned and diverged ones count
  jobs=1           processes side by side
  pruner=median    {", ".join(PRUNERS)}: what ends hopeless runs after an epoch
  folder=DIR       where the search is kept; default: multirun/DATE/TIME
  sampler_seed=0   what the choice of values depends on
  storage=sqlite   sqlite: one machine; journal: machines that share the folder; postgresql://USER@HOST/DATABASE
  grace=120        seconds without a sign of life after which another machine takes over a trial
  --config-dir DIR your own models, data and experiments, as for cifar run

Every other word is one of run.py's. One or more of them have a range in Hydra's syntax:
  interval(low, high)             numbers
  tag(log, interval(low, high))   numbers, drawn on a logarithmic scale
  int(interval(low, high))        whole numbers, both ends included
  range(start, stop, step)        steps, stop left out
  a,b,c or choice(a,b,c)          choices, for groups too

data.val_size is {VAL_SIZE} unless it is given: a search needs validation images."""

Rule = tuple[str, Callable[[Any], bool]]


def is_count(least: int, most: int = sys.maxsize) -> Callable[[Any], bool]:
    """Return the test for a whole number from `least` to `most`."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


# The command's own words: default, what is allowed, and whether a value is that.
OWN: dict[str, tuple[Any, str, Callable[[Any], bool]]] = {
    "trials": (20, "a whole number from 1 to 1,000,000", is_count(1, 10**6)),
    "jobs": (1, "a whole number of processes from 1 to 1,000", is_count(1, 1000)),
    "pruner": ("median", f"one of {', '.join(PRUNERS)}", lambda value: value in PRUNERS),
    "folder": (None, "a folder's name", lambda value: isinstance(value, str) and value != ""),
    "sampler_seed": (0, "a whole number, 0 or more", is_count(0)),
    "storage": (None, STORAGES, is_storage),
    "grace": (GRACE_SECONDS, "a whole number of seconds from 1 to 86,400", is_count(1, 86400)),
}
TEXTS = ("folder", "storage")  # whose values are no words of Hydra's


def split_own(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the command's own values that are given, and the words for run.py's configuration."""
    own, words = {}, []
    for word in arguments:
        key, is_assignment, text = word.partition("=")
        if not is_assignment and not key.startswith("~"):
            raise UserError(f"{word} is not possible: cifar tune takes key=value. See cifar tune --help")
        if key not in OWN:
            refuse_misspelt(key)
            words.append(word)
            continue
        own[key] = text if key in TEXTS else OverridesParser.create().parse_overrides([word])[0].value()
        _, allowed, is_good = OWN[key]
        if not is_good(own[key]):
            raise UserError(f"{key}={masked(text)} is not possible: it takes {allowed}.")
    for word in words:
        if word.lstrip("+~").startswith(("hydra.", "hydra/", "resume=")) and not is_search_path(word):
            raise UserError(f"{word} is not possible in a search: use folder=DIR and jobs=N.")
    return own, words


def refuse_misspelt(key: str) -> None:
    """Raise `UserError` for what is neither the command's own word nor a key of the configuration, but almost one."""
    name, known = key.lstrip("+~"), [entry.name for entry in fields(Config)]
    guesses = difflib.get_close_matches(name, [*OWN, *known], n=1)
    if name not in known and guesses and guesses[0] in OWN:
        raise UserError(f"There is no word {key!r}. Did you mean {guesses[0]!r}? See cifar tune --help")


def new_search(own: dict[str, Any], words: list[str]) -> Search:
    """Return what a first call asks for; raise `UserError`, or Hydra's error, if some trial would be impossible."""
    space, others = split_ranges(words)
    if not space:
        raise UserError(
            "There is no range to search. Give one or more, such as 'lr=tag(log, interval(1e-4, 1))'. "
            "See cifar tune --help"
        )
    epochs, val_sizes = [], []
    for parameters in examples(space):
        cfg, _ = compose_words([*others, *to_words(parameters)])
        check(cfg)
        epochs.append(cfg.epochs)
        val_sizes.append(cfg.data.val_size)
    if 0 in val_sizes:
        if any(word.startswith("data.val_size=") for word in words):
            raise UserError(f"data.val_size=0 is not possible in a search, which needs validation images: {VAL_SIZE}.")
        words = [*words, f"data.val_size={VAL_SIZE}"]
        print(f"data.val_size={VAL_SIZE}: the search chooses by training images that are held out.")
    values = {name: own.get(name, OWN[name][0]) for name in ("trials", "pruner", "sampler_seed")}
    return Search(words, max_epochs=max(epochs), cwd=os.getcwd(), **values)


def same_search(stored: Search, own: dict[str, Any], words: list[str]) -> Search:
    """Return the stored search with the number of trials that is asked for; raise `UserError` for another search."""
    added = [word for word in words if word not in stored.words]
    restates = named_code(others_of(words)) != others_of(words)  # what a stored search may not say is said again alone
    left_out = [word for word in stored.words if word not in words and word != f"data.val_size={VAL_SIZE}"]
    changed = [
        f"{name}={own[name]}"
        for name in ("pruner", "sampler_seed")
        if name in own and own[name] != getattr(stored, name)
    ]
    if different := [*added, *changed, *[f"no {word}" for word in left_out if restates]]:
        its_words = shlex.join([*as_flags(stored.words), *others_of(stored.words)])
        raise UserError(
            f"The search in this folder is another one: {', '.join(different)} would change it. Its words are "
            f"{its_words} pruner={stored.pruner} sampler_seed={stored.sampler_seed}; only trials and jobs may differ. "
            "Or take another folder."
        )
    return Search(**{**vars(stored), "trials": own.get("trials", stored.trials)})


def tune() -> None:
    """Begin, join or continue the search that the command line asks for, and report on it."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(HELP)
        return
    if is_rank():
        refuse("A search is not possible under torchrun, whose processes make one run together: use jobs=N.")
    own, words = split_own(without_flags(sys.argv[1:]))
    sys.argv[1:] = [masked(word) for word in sys.argv[1:]]  # dashboards keep the command line
    try:
        import optuna as optuna
    except ImportError:
        raise UserError("A search needs Optuna, which is not installed: pip install 'cifar-framework[tune]'") from None
    home, search = find_search(own, words)
    with home.alone(), explained(home):
        if search is not None:
            found_study(home, search)
        study = open_study(home)
        stored = read_search(study)
        refuse_foreign_search(stored, words, home.shown)
        search = same_search(stored, own, words)
        lengthen(study, search)
        home.leave_copy()
        shown, num_before = os.path.relpath(home.folder), num_over(home.folder)
        named = [*as_flags(search.words), *named_code(search.words)]
        again = shlex.join(["cifar", "tune", f"folder={shown}", *home.typed, *named])
        if not home.typed:  # paths among the words are meant from where each machine gives the command
            go_to(search.cwd, home.folder, "search")
        with continued_by(lambda: again):
            run_search(home, own.get("jobs", 1), page_at_end)
        conclude(home, shown, num_before, again)


def find_search(own: dict[str, Any], words: list[str]) -> tuple[Home, Search | None]:
    """Return where the search is kept, and what is asked for if it may have to be begun there."""
    storage, grace = own.get("storage"), own.get("grace", GRACE_SECONDS)
    if "folder" not in own:
        if storage is not None and "://" in storage:
            raise UserError(
                f"storage={masked(storage)} needs folder=DIR too: its name is the search's in the database, "
                "by which other machines find it."
            )
        if storage == "journal":
            raise UserError("storage=journal needs folder=DIR too, by which other machines find the search.")
        search = new_search(own, words)
        folder = claim(absolute(f"multirun/{datetime.now():%Y-%m-%d/%H-%M-%S}"))
        return home_of(folder, storage, grace), search
    home = home_of(folder := absolute(own["folder"]), storage, grace)
    if (folder / "multirun.yaml").exists():
        raise UserError(f"{folder} holds a sweep. Take another folder.")
    is_whole = bool(split_ranges(words)[0])
    if home.is_shared and is_whole:
        return home, new_search(own, words)  # another machine may begin it at the same time
    with explained(home):
        if home.exists():
            return home, None
    if not words:
        raise UserError(
            f"{folder} holds no search: there is no {home.path.name} in it. One that was cut before it began is begun "
            "again by the whole command."
        )
    return home, new_search(own, words)


def refuse_foreign_search(search: Search, typed: list[str], shown: str) -> None:
    """Raise `UserError` for a word of a stored search that a stranger might have written: see docs/trust.md."""
    origin = f"The search in {shown}"
    stored = [word for word in search.words if word not in typed]
    refuse_resolvers(stored, origin)
    if away := next((word for word in stored if is_search_path(word) or leads_out(word)), None):
        repeated = shlex.join(as_flags([away]) or [away])
        raise UserError(
            f"{origin} takes configuration that is not your own: {repeated}. Nothing was called. If you trust it, "
            f"repeat {repeated}."
        )
    allowed = own_targets([CONF, *folders_of(typed)], words=typed)
    refuse_foreign_words(named_code(search.words), allowed, origin)
    try:
        split_own(search.words)
    except UserError as error:
        raise UserError(f"{origin} can't go on: {error}") from None


def conclude(home: Home, shown: str, num_before: int, again: str) -> None:
    """Report on the search and say which trial was best; raise `UserError` if not all trials have a result.

    `shown` is the folder and `again` the command that continues the search, as one types them.
    """
    study = open_study(home)
    search, best = read_search(study), best_trial(study)
    home.leave_copy()
    space, others = split_ranges(search.words)
    fixed, _ = compose_words([*others, *to_words(examples(space)[0])])
    if reporter := reported_by_other(study, home):
        print(f"The report was made by {reporter}. Here: cifar report {shlex.quote(shown)}")
    else:
        jobs.report_on(home.folder, fixed.tracker)
    if best is not None:
        number, parameters = best
        words = ["-m", *others_of(others), *to_words(parameters), "seed=range(1,6)"]
        print(f"Best trial: {number} ({label(parameters)}): {result_text(read_summary(home.folder / str(number)))}")
        print(f"It was picked for its luck too. How good it is on average: {run_command(words, as_flags(others))}")
    num_done = num_over(home.folder)
    if num_done < search.trials:
        raise UserError(f"{num_done} of {search.trials} trials have a result. Try the others again: {again}")
    print(f"All {num_done} trials of {shown} are done ({num_before} were before).")


def command() -> None:
    """Do what the command line says."""
    guard(tune)
