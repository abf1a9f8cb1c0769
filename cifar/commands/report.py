"""Report on a sweep, finished or not, or on several together: `cifar report multirun/DATE/TIME`."""

import shlex
from datetime import datetime
from pathlib import Path

from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser
from cifar.reports.report import find_folders, report
from cifar.sweeps.state import state_text

EXAMPLES = """\
  cifar report multirun/2026-11-23/07-00-00    a sweep, finished or not
  cifar report 'multirun/2026-11-2*/*'         several together
  cifar report multirun/2026-11-23/07-00-00 --latex    … and a table, figures and BibTeX for a paper"""


def command() -> None:
    """Report on the folders that the command line names."""
    guard(make_report)


def make_report() -> None:
    """Write and show the report."""
    parser = Parser("report", "Report on a sweep, finished or not, or on several together.", EXAMPLES)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a sweep's folder, a run's, or a glob of such")
    parser.add_argument(
        "--output", type=Path, help="where to write it: the folder if it is one, else multirun/report-DATE-TIME"
    )
    parser.add_argument("--latex", action="store_true", help="add what a paper takes: a table, figures as PDF, BibTeX")
    options = parser.parse_args()
    folders = find_folders(options.folders)
    output = options.output or (
        folders[0] if len(folders) == 1 else Path(f"multirun/report-{datetime.now():%Y-%m-%d-%H-%M-%S}")
    )
    report(folders, output, options.latex)
    for folder in folders:
        if (state := state_text(folder)) is not None:
            print(f"{shlex.quote(str(folder))}: {state}")
