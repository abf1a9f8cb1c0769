"""Say what is on pictures, with a trained run: `cifar predict outputs/DATE/TIME picture.png folder/`."""

import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.base import signals
from cifar.base.errors import UserError
from cifar.base.run_folder import to_json
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser, load, split_words

if TYPE_CHECKING:
    from cifar.experiment.trained import TrainedRun

MAX_WIDTH = 50  # of the paths
BATCH = 100  # pictures that are read before the model sees them

EXAMPLES = """\
  cifar predict outputs/2026-11-23/06-11-37 cat.jpg            one picture
  cifar predict outputs/2026-11-23/06-11-37 photos/ --top 1    all in a folder, also deeper
  cifar predict RUN photos/ tta=mirror --json > answers.jsonl  with test-time augmentation, for a program
  cifar predict multirun/2026-11-23/07-00-00 --best cat.jpg    the best run of a sweep

Pictures may have any size and format that Pillow reads. The longer side is cut off at both ends to the model's shape,
and the rest is resized once. Words KEY=VALUE are as for cifar run: tta, device, model._target_ of your own model."""


def command() -> None:
    """Do what the command line says; the exit code is 1 if a picture could not be read."""
    guard(predict)


def predict() -> None:
    """Answer for every picture."""
    parser = Parser("predict", "Say what is on pictures, with a trained run.", EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a picture or a folder of pictures")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="so many classes, the most probable first (3)")
    parser.add_argument("--json", action="store_true", help="a JSON object a picture and line")
    parser.add_run_options()
    options = parser.parse_intermixed_args()
    if options.top < 1:
        parser.error("--top takes 1 or more")
    names, words = split_words(options.pictures)
    from cifar.data.picture_files import picture_files

    paths = picture_files(names)
    if not paths:
        raise UserError(f"There is no picture in {', '.join(names) or 'the words'}.")
    run = load(options.run, words, options)
    tta = any(word.lstrip("+").startswith("tta=") for word in words)
    num_failed, width = 0, min(MAX_WIDTH, max(len(str(path)) for path in paths))
    for answer in answers(run, paths, tta, options.top):
        num_failed += "error" in answer
        tell(answer, options.json, width)
    if num_failed:
        sys.exit(f"{num_failed} of {len(paths)} pictures could not be read.")


def answers(run: "TrainedRun", paths: list[Path], tta: bool, top: int) -> Iterator[dict[str, Any]]:
    """Yield what is to be said of each picture, in order: its `classes`, or the `error`."""
    from cifar.data.pictures import read_picture

    waiting = iter(paths)
    while batch := [*islice(waiting, BATCH)]:
        images, errors = [], {}
        for path in batch:
            signals.check()
            try:
                images.append(read_picture(path, run.image_size))
            except UserError as error:
                errors[path] = str(error)
        found = iter(run.top(run.predict(images, tta=tta).probabilities, top))
        for path in batch:
            yield {"path": os.fspath(path)} | ({"error": errors[path]} if path in errors else {"classes": next(found)})


def tell(answer: dict[str, Any], as_json: bool, width: int) -> None:
    """Print one answer; in words what can't be read goes to stderr."""
    from cifar.reports.findings.wording import printable

    if as_json:
        print(to_json(answer))
    elif "error" in answer:
        print(printable(answer["error"]), file=sys.stderr)
    else:
        classes = "  ".join(f"{entry['name']} {100 * entry['probability']:.1f} %" for entry in answer["classes"])
        print(f"{printable(answer['path']):<{width}}  {printable(classes)}")
