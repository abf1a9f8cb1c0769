"""Write a run's model card: `cifar card outputs/DATE/TIME`."""

from pathlib import Path

from cifar.base.errors import UserError
from cifar.base.paths import absolute, shown
from cifar.base.run_folder import prepare_results
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser

EXAMPLES = """\
  cifar card outputs/2026-11-23/06-11-37                                  card.md in that folder
  cifar card outputs/2026-11-23/06-11-37 --license mit --output README.md as a hub wants it
  cifar card multirun/2026-11-23/07-00-00 --best --name cifar10-resnet18  the best run of a sweep

Every number is from the run's summary.json and predictions.npz."""


def command() -> None:
    """Write the card of the run that the command line names."""
    guard(card)


def card() -> None:
    """Write a card."""
    parser = Parser("card", "Write a run's model card in Markdown, with the head that hubs read.", EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--output", metavar="FILE", help="where to write it: card.md in the run's folder")
    parser.add_argument("--name", help="the model's name: the run's folder, unless you give one")
    parser.add_argument("--license", metavar="ID", help="the licence of the weights, such as mit or cc-by-4.0")
    parser.add_argument("--best", action="store_true", help="of a sweep's folder: its best run by validation images")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    options = parser.parse_args()
    folder = folder_of(absolute(options.run), options.best)
    path = absolute(options.output) if options.output else folder / "card.md"
    if path.exists() and not path.is_dir() and not options.force:
        raise UserError(f"{shown(path)} exists: name another file with --output, or write over it with --force.")
    from cifar.reports.files.card import write_card
    from cifar.reports.findings.card import read_card

    found = read_card(folder, options.name, options.license)
    prepare_results(path)
    write_card(found, path)
    print(f"The card: {shown(path)}")


def folder_of(place: Path, best: bool) -> Path:
    """Return the run's folder; raise `UserError` if there is none, or several."""
    from cifar.reports.runs.loading import best_run, find_checkpoint

    if best:
        return best_run(place)
    if (place / "summary.json").is_file():
        return place
    return find_checkpoint(place).parent
