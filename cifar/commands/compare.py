"""Compare two trained runs on the same test images: `cifar compare outputs/DATE/TIME outputs/DATE/TIME`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.base.errors import UserError
from cifar.base.paths import absolute, shown
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser, split_words
from cifar.reports.findings.wording import printable

if TYPE_CHECKING:
    from cifar.tracking.answers import Stored

EXAMPLES = """\
  cifar compare outputs/2026-11-23/06-11-37 outputs/2026-11-23/06-20-11    text here, pictures in compare.html
  cifar compare RUN RUN --output comparison --config-dir conf              runs on data of your own

What the runs said of the test images is read from predictions.npz in their folders. Words KEY=VALUE, such as data.root,
help to find the images, which only the pictures need."""


def command() -> None:
    """Do what the command line says."""
    guard(compare)


def compare() -> None:
    """Compare the runs, in words and as files."""
    parser = Parser("compare", "Compare two trained runs on the same test images.", EXAMPLES)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="two runs' folders")
    parser.add_argument("--output", type=Path, help="the folder to write into: compare-FIRST-SECOND here")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own YAML files, as for cifar run")
    options = parser.parse_intermixed_args()
    paths, words = split_words(options.runs)
    if len(paths) != 2:
        raise UserError(f"cifar compare takes two runs, not {len(paths)}.")
    folders = [absolute(path) for path in paths]
    from cifar.reports.files.compare_page import sentences, write_comparison
    from cifar.reports.findings.mcnemar import disagreement

    first, second = (stored(folder) for folder in folders)
    labels = ["/".join(folder.parts[-2:]) for folder in folders]
    names = (printable(labels[0]), printable(labels[1])) if labels[0] != labels[1] else ("the first", "the second")
    found = disagreement(first, second, names)
    images, reason = test_images(folders[0], words, options.config_dir, first)
    output = options.output or Path("-".join(["compare", *("-".join(folder.parts[-2:]) for folder in folders)]))
    write_comparison(folders, names, (first, second), found, images, reason, output)
    print("\n".join([*sentences(names, (first, second), found), *([reason] if reason else [])]))
    print(f"Page: {shown(absolute(str(output / 'compare.html')))} (and compare.json)")


def stored(folder: Path) -> "Stored":
    """Return what the run in a folder said of its test images; raise `UserError` if that is not kept."""
    from cifar.tracking.answers import PREDICTIONS, read_predictions

    way_on = f"To make it: cifar evaluate {shown(folder)}"
    if not (folder / PREDICTIONS).is_file():
        raise UserError(f"There is no {PREDICTIONS} in {folder}. {way_on}")
    try:
        return read_predictions(folder / PREDICTIONS)
    except UserError as error:
        raise UserError(f"{error}. {way_on}") from error


def test_images(folder: Path, words: list[str], config_dir: str | None, answers: "Stored") -> tuple[Any, str]:
    """Return the test images, uint8 (N, 3, H, W), of the run in a folder; or None, and why they are not to be had."""
    from cifar.reports.runs.loading import load_run
    from cifar.tracking.answers import digest

    try:
        test = load_run(folder, words, config_dir).test_set()
    except UserError as error:
        return None, f"There are no pictures: {error}"
    if digest(test.test_images, test.test_labels) != answers.test_set:
        return None, "There are no pictures: the test images here are not those on which the runs were tested."
    return test.test_images.numpy(), ""
