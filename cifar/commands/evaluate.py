"""Evaluate a trained run again, and make its page: `cifar evaluate outputs/DATE/TIME`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.base.errors import UserError
from cifar.base.paths import shown
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser, load, split_words

if TYPE_CHECKING:
    from cifar.experiment.trained import TrainedRun
    from cifar.tracking.answers import Stored

EXAMPLES = """\
  cifar evaluate outputs/2026-11-23/06-11-37               the page of a run, run.html, and evaluation.json
  cifar evaluate outputs/2026-11-23/06-11-37 tta=mirror    with test-time augmentation
  cifar evaluate RUN 'test_on=[cifar10_1,cifar10_c]'       on more test sets, beside the run's own
  cifar evaluate RUN data.test_limit=1000 --output try     elsewhere, with other words

Words KEY=VALUE are as for cifar run: tta, eval_batch_size, device, data.root, data.test_limit, data.source, test_on,
and model._target_ of your own model. With words that change the result all goes into RUN/evaluation-WORDS."""


def command() -> None:
    """Do what the command line says."""
    guard(evaluate)


def evaluate() -> None:
    """Evaluate the run and write its page."""
    parser = Parser("evaluate", "Evaluate a trained run again, and make its page.", EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="how to evaluate it otherwise")
    parser.add_argument("--output", type=Path, help="the folder to write into")
    parser.add_run_options()
    options = parser.parse_intermixed_args()
    paths, words = split_words(options.words)
    if paths:
        raise UserError(f"{paths[0]} is no word KEY=VALUE: cifar evaluate takes one run.")
    run = load(options.run, words, options)
    changing = [word for word in words if changes_result(word)]
    beside = results_beside(run) if any(re.match(r"\+*test_on\b", word) for word in words) else None
    output = options.output or (run.folder / f"evaluation-{'-'.join(changing)}" if changing else run.folder)
    answers = evaluated(run, output, changing, beside)
    tell(answers, beside or {}, output)


def results_beside(run: "TrainedRun") -> dict[str, Any]:
    """Return the run's results on the sets of test_on."""
    from cifar.experiment.beside.extra_sets import results_of

    return results_of(run)


def changes_result(word: str) -> bool:
    """Return whether the word makes an evaluation another one than the run's own."""
    key = word.lstrip("+").partition("=")[0]
    return key in ("tta", "data.test_limit") or key.startswith("data.source")


def evaluated(run: "TrainedRun", output: Path, changing: list[str], beside: dict[str, Any] | None = None) -> "Stored":
    """Evaluate the run on its test images, write all into `output`, and return the answers.

    Results on other sets, `beside`, stand on the page in place of those of the run. predictions.npz is written too:
    into the run's own folder only if the evaluation is the run's own.
    """
    from cifar.experiment.trained import score
    from cifar.reports.run_report import report_run
    from cifar.tracking.answers import write_predictions

    test = run.test_set()
    has_tta = any(word.lstrip("+").startswith("tta=") for word in changing)
    answers = score(run, test, has_tta)
    changed: dict[str, Any] = {}
    if has_tta:
        changed = {"tta_accuracy": None, "what": f"With tta={run.cfg.tta} ", "evaluated_tta": str(run.cfg.tta)}
    elif changing:
        changed = {"tta_accuracy": None, "what": f"With {' '.join(changing)} "}
    if beside is not None:
        changed["test_on"] = beside
    output.mkdir(parents=True, exist_ok=True)
    if output != run.folder or not changing:
        write_predictions(output, answers)
    report_run(run.folder, output, answers, test.test_images.numpy(), **changed)
    return answers


def tell(answers: "Stored", beside: dict[str, Any], output: Path) -> None:
    """Print the figures and where the page is."""
    from cifar.experiment.beside.extra_sets import in_words
    from cifar.reports.files.run_page import scores
    from cifar.reports.findings.classification import overall
    from cifar.reports.findings.wording import percent

    share = overall(answers)
    low, high = share.interval
    interval = f"({100 * low:.2f}–{100 * high:.2f})"
    print(f"Accuracy of the model on {share.total:,} test images: {percent(share.fraction)} {interval}")
    print(", ".join(f"{name} {value}" for name, value, _ in scores(answers)))
    for name, result in beside.items():
        print(in_words(name, result))
    print(f"Page: {shown(output / 'run.html')} (and evaluation.json, predictions.npz, figures/)")
