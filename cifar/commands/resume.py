"""Go on with what was cut: `cifar resume outputs/DATE/TIME` a run, `cifar resume multirun/DATE/TIME` a sweep.

A sweep is simply started again in its own folder with resume=auto: every job then finds out for itself whether it is
done, was cut or never began.
"""

import os
import sys
from pathlib import Path

from cifar.commands import run
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser
from cifar.experiment.restore import MAY_CHANGE
from cifar.experiment.stored.trust import STUDIES
from cifar.experiment.typed.command_line import path_value
from cifar.sweeps.continuing import FLAGS, MAY_CHANGE_IN_SWEEP, go_to, refuse_untrusted, sweep_arguments
from cifar.sweeps.plan import PLAN, num_over
from cifar.sweeps.state import is_under_way

EXAMPLES = f"""\
  cifar resume outputs/2026-11-23/06-11-37            a run, in its own folder
  cifar resume outputs/2026-11-23/06-11-37 epochs=20  with what cannot change the numbers so far
  cifar resume multirun/2026-11-23/07-00-00           a sweep: what is done is skipped

What may change: {MAY_CHANGE}; in a sweep {", ".join(MAY_CHANGE_IN_SWEEP)}.
Words that name code of your own, and --config-dir and its like, are typed again (docs/trust.md)."""


def command() -> None:
    """Go on with what the command line names."""
    guard(resume)


def resume() -> None:
    """Go on with a run, from one of its checkpoints if that is named, or with a sweep."""
    parser = Parser("resume", "Go on with a run or a sweep that was cut.", EXAMPLES)
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a run's folder, one of its checkpoints, or a sweep's folder"
    )
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    for flag in FLAGS:
        parser.add_argument(flag, help="as the run or the sweep was begun with")
    options = parser.parse_intermixed_args()
    path = options.path
    typed = [(flag, getattr(options, flag.lstrip("-").replace("-", "_"))) for flag in FLAGS]
    flags = [part for flag, value in typed if value for part in (flag, absolute_flag(flag, value))]
    if not path.is_dir() or not any((path / name).exists() for name in (PLAN, "multirun.yaml", *STUDIES)):
        sys.argv = ["cifar run", *flags, f"resume={path_value(str(path))}", *options.overrides]
        run.command()
        return
    resume_sweep(path.absolute(), options.overrides, flags)


def resume_sweep(folder: Path, overrides: list[str], flags: list[str]) -> None:
    """Start the sweep again, from where it was begun."""
    refuse_untrusted(folder, overrides, flags)
    arguments, cwd = sweep_arguments(folder, overrides)
    num_before = num_over(folder)
    go_to(str(cwd), folder, "sweep")
    sys.argv = ["cifar run", *arguments]
    run.command()
    if not is_under_way(folder):
        print(f"All {num_over(folder)} jobs of {os.path.relpath(folder)} are done ({num_before} were before).")


def absolute_flag(flag: str, value: str) -> str:
    """Return a flag's value with an absolute path, as a sweep keeps it."""
    return value if flag == "--config-name" or "://" in value else os.path.abspath(value)
