"""Look at runs and sweeps while they run: `cifar watch` shows what is at work in outputs/ and multirun/.

It only reads, so it may be started and stopped at any time, also on another machine that shares the file system.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from types import FrameType
from typing import TYPE_CHECKING

from cifar.base.errors import UserError
from cifar.base.paths import absolute
from cifar.base.signals import Interrupted
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from cifar.reports.live.looking import Watcher

EXAMPLES = """\
  cifar watch                                   what runs in outputs/ and multirun/; Ctrl-C ends it
  cifar watch multirun/2026-11-23/07-00-00      one sweep, also when it is over
  cifar watch --once                            the page once, as for a pipe"""
USUAL = ("outputs", "multirun")


def command() -> None:
    """Watch the folders that the command line names."""
    guard(watch)


def watch() -> None:
    """Show the page once, or again and again until Ctrl-C."""
    from rich.console import Console

    from cifar.reports.live.looking import Watcher

    parser = Parser("watch", "Look at runs and sweeps while they run. Nothing is written.", EXAMPLES)
    parser.add_argument("folders", nargs="*", metavar="DIR", help="where to look; else outputs/ and multirun/")
    parser.add_argument("--once", action="store_true", help="print the page once")
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two looks (1)")
    options = parser.parse_args()
    if not options.every >= 0.1:
        raise UserError(f"--every={options.every:g}: at least 0.1 seconds lie between two looks.")
    console = Console(highlight=False, emoji=False, markup=False)
    watcher = Watcher(find_roots(options.folders))
    if options.once or not console.is_terminal or console.is_dumb_terminal:
        show_once(watcher, console)
        return
    try:
        show_on(watcher, console, options.every)
    except Interrupted as end:
        if end.args != (signal.SIGINT,):  # Ctrl-C is how it ends
            raise


def find_roots(words: list[str]) -> list[Path]:
    """Return the folders to look in; raise `UserError` for one that is none."""
    roots = [absolute(word) for word in words or [name for name in USUAL if Path(name).is_dir()]]
    if not roots:
        raise UserError("There is neither outputs nor multirun here. Name a folder: cifar watch DIR")
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder.")
    return [*dict.fromkeys(roots)]


def show_once(watcher: "Watcher", console: "Console") -> None:
    """Print the page as it is now, whatever its height."""
    from cifar.reports.live.screen import page

    for line in page(watcher.look(), watcher.roots, console):
        console.print(line, soft_wrap=True)


def show_on(watcher: "Watcher", console: "Console", seconds: float) -> None:
    """Show the page on the terminal's other screen until a signal comes; the first screen is as it was then."""
    from rich.console import Group
    from rich.live import Live

    from cifar.reports.live.screen import page

    with Live(console=console, screen=True, auto_refresh=False) as live, pausing(live):
        while True:
            live.update(Group(*page(watcher.look(), watcher.roots, console, console.height)), refresh=True)
            sleep(seconds)


@contextmanager
def pausing(live: "Live") -> Iterator[None]:
    """Give the terminal back while Ctrl-Z has stopped the process."""

    def pause(signum: int, frame: FrameType | None) -> None:
        live.stop()
        os.kill(os.getpid(), signal.SIGSTOP)
        live.start()

    before = signal.signal(signal.SIGTSTP, pause)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
