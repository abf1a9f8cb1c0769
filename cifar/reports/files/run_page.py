"""run.html: all that is to be seen of one run, as one file that needs no network.

run.html beside this module is its template, which goes on from the sweep's page.html.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.base.run_folder import finite, write_atomically
from cifar.reports.figures.drawing import COLOURS, Figure
from cifar.reports.figures.run import MAX_NAMED, NAMES, PANELS, Curves, known_curve
from cifar.reports.files.page import inline_svg, look, page_template
from cifar.reports.files.pictures import Picture, pictures
from cifar.reports.findings.classification import (
    Share,
    bins,
    calibration_error,
    confusion,
    correct,
    examples,
    most_confidently_wrong,
    overall,
)
from cifar.reports.findings.wording import NOTHING, percent
from cifar.tracking.answers import Stored

NUM_WRONG = 24
NUM_EXAMPLES = 8  # of each class
MAX_CLASSES = 100  # of which examples are shown
MAX_CURVE_POINTS = 1000
NUM_MISTAKES = 10


@dataclass(frozen=True)
class Shown:
    """A run as its page shows it.

    `images` are the test images, uint8 (N, 3, H, W), None if there are none to show. `what` tells what was evaluated
    where that is not what the run itself did; `facts` are what was run, in words; `command` makes it again. `test_on`
    are the results on more test sets, as the summary has them.
    """

    title: str
    answers: Stored
    images: NDArray[np.uint8] | None
    curves: Curves
    facts: list[tuple[str, str]]
    command: str
    tta_accuracy: float | None = None
    tta: str = "none"
    what: str = ""
    test_on: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfusionCell:
    """A cell of the confusion matrix: how many images, and their share of the class's in percent."""

    count: int
    share: int
    title: str
    is_right: bool


def write_run_page(run: Shown, figures: Sequence[Figure], folder: Path, warnings: Sequence[str]) -> None:
    """Write run.html into the folder, in whose figures/ the figures are."""
    drawn = {figure.stem: (inline_svg(folder / "figures" / f"{figure.stem}.svg"), figure.title) for figure in figures}
    answers = run.answers
    text = page_template("run.html").render(
        title=f"Run {run.title}",
        warnings=warnings,
        verdict=[*verdict(run)],
        scores=scores(answers),
        curves=curve_data(run.curves),
        figures=[drawn[stem] for stem in ("class_accuracy", "reliability") if stem in drawn],
        names=answers.names(),
        confusion=confusion_rows(answers) if len(answers.names()) <= MAX_NAMED else [],
        mistakes=mistakes(answers),
        wrong=wrong_pictures(run),
        beside=beside_rows(run.test_on),
        corrupted=[
            (name, entry["levels"], kind_rows(entry)) for name, entry in run.test_on.items() if "kinds" in entry
        ],
        num_wrong=int((~correct(answers)).sum()),
        examples=example_rows(run),
        facts=run.facts,
        command=run.command,
        **look(),
    )
    write_atomically(folder / "run.html", lambda file: file.write(text.encode(errors="replace")))


def verdict(run: Shown) -> list[str]:
    """Return the sentences that stand at the page's beginning."""
    share = overall(run.answers)
    low, high = share.interval
    sentences = [
        f"{run.what}{percent(share.fraction)} of {share.total:,} test images are classified correctly "
        f"({100 * low:.2f}–{100 * high:.2f})."
    ]
    if run.tta_accuracy is not None:
        sentences.append(f"With test-time augmentation ({run.tta}): {percent(run.tta_accuracy)}.")
    sentences.append(
        "The interval (95 %, Wilson) is of the chance in which images are in the test set. What another seed would "
        "change is not in it: that takes a sweep over seeds."
    )
    return [*sentences, *calibration_sentence(run.answers)]


def beside_rows(test_on: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return for every further test set its name, number of images, accuracy, and the interval of that of one part."""
    rows = []
    for name, entry in test_on.items():
        accuracy, total = entry["accuracy"], entry["num_images"]
        low, high = Share(round(accuracy * total), total).interval
        interval = "" if "kinds" in entry else f"{100 * low:.2f}–{100 * high:.2f}"  # of the same images over and over
        rows.append((name, f"{total:,}", percent(accuracy), interval))
    return rows


def kind_rows(entry: dict[str, Any]) -> list[tuple[str, list[str], str]]:
    """Return for every kind of images, the worst first, its name, its accuracy at every level and their mean."""
    means = {kind: fmean(row) for kind, row in entry["kinds"].items()}
    return [
        (kind, [f"{100 * value:.2f}" for value in entry["kinds"][kind]], f"{100 * means[kind]:.2f}")
        for kind in sorted(means, key=lambda kind: means[kind])
    ]


def calibration_sentence(answers: Stored) -> list[str]:
    """Return in words how the mean confidence and the accuracy differ."""
    confidence, accuracy = float(answers.confidence.mean(dtype=np.float64)), overall(answers).fraction
    if not math.isfinite(confidence):
        return ["The model's outputs are not finite, so nothing can be said of its confidence."]
    gap = 100 * (confidence - accuracy)
    how = "overconfident" if gap > 0 else "underconfident"
    return [
        f"On average it is {percent(confidence)} sure of its answer, and {percent(accuracy)} of them are right: {how} "
        f"by {abs(gap):.2f} points."
    ]


def scores(answers: Stored) -> list[tuple[str, str, str]]:
    """Return the scores: name, value, and what they are."""

    def mean(values: NDArray[np.float32]) -> str:
        return decimal(float(values.mean(dtype=np.float64)))

    return [
        ("NLL", mean(answers.loss), "cross-entropy per image; the less the better"),
        ("Brier score", mean(answers.brier), "squared error of the probabilities, 0 to 2"),
        ("ECE", decimal(calibration_error(bins(answers))), "mean gap between confidence and accuracy, 15 bins"),
    ]


def decimal(value: float) -> str:
    """Return a score with four decimals."""
    return f"{value:.4f}" if math.isfinite(value) else NOTHING


def curve_data(curves: Curves) -> dict[str, Any] | None:
    """Return the curves for page.js, which knows them by their place in `NAMES`; None if there are none."""
    panels = []
    for panel in PANELS:
        series = [
            [NAMES.index(name), *thin(known_curve(curves, key), panel.scale)]
            for name, key in panel.keys.items()
            if known_curve(curves, key)[0]
        ]
        if series:
            panels.append({"title": panel.title, "isLoss": panel.title == "loss", "series": series})
    if not panels:
        return None
    data: dict[str, Any] = finite({"names": [*NAMES], "panels": panels, "numColours": len(COLOURS)})
    return data


def thin(curve: tuple[list[int], list[float]], scale: float) -> tuple[list[int], list[float]]:
    """Return the scaled curve with at most `MAX_CURVE_POINTS` points, the first and the last among them."""
    steps, values = curve
    count = min(len(steps), MAX_CURVE_POINTS)
    chosen = [round(place * (len(steps) - 1) / max(count - 1, 1)) for place in range(count)]
    return [steps[place] for place in chosen], [float(f"{scale * values[place]:.5g}") for place in chosen]


def confusion_rows(answers: Stored) -> list[list[ConfusionCell]]:
    """Return the confusion matrix, a row for every true class."""
    names, rows = answers.names(), []
    for row, counts in enumerate(confusion(answers).tolist()):
        total = max(sum(counts), 1)
        titles = [f"{names[row]} taken for {name}: {count}" for name, count in zip(names, counts, strict=True)]
        cells = enumerate(zip(counts, titles, strict=True))
        rows.append([ConfusionCell(n, round(100 * n / total), title, row == column) for column, (n, title) in cells])
    return rows


def mistakes(answers: Stored) -> list[tuple[str, str, str]]:
    """Return the most frequent mistakes: the true class, the predicted one, and how many of its images."""
    matrix, names = confusion(answers), answers.names()
    totals = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:NUM_MISTAKES]
    cells = [divmod(int(place), len(names)) for place in order]
    return [
        (names[row], names[column], f"{matrix[row, column]} of {totals[row]} ({percent(part.fraction)})")
        for row, column in cells
        if matrix[row, column] and (part := Share(int(matrix[row, column]), int(totals[row])))
    ]


def wrong_pictures(run: Shown) -> list[Picture]:
    """Return the images that are most confidently classified wrongly."""
    if run.images is None:
        return []
    answers, names = run.answers, run.answers.names()
    indices = most_confidently_wrong(answers)[:NUM_WRONG]
    titles = [f"{names[answers.predicted[index]]} {short_percent(answers.confidence[index])}" for index in indices]
    texts = [f"is {names[answers.labels[index]]} ({probability(answers, index)})" for index in indices]
    return pictures(run.images, indices, titles, texts, [False] * len(indices))


def probability(answers: Stored, index: int) -> str:
    """Return the probability that the true class of an image got."""
    return short_percent(math.exp(-float(answers.loss[index])))


def short_percent(fraction: float) -> str:
    """Return a probability such as "87.8 %", which no line breaks."""
    return f"{100 * fraction:.1f}\u00a0%" if math.isfinite(fraction) else NOTHING


def example_rows(run: Shown) -> list[tuple[str, list[Picture]]]:
    """Return every class's name and its first images."""
    if run.images is None:
        return []
    answers, names, rows = run.answers, run.answers.names(), []
    right = correct(answers)
    for name, indices in zip(names[:MAX_CLASSES], examples(answers, NUM_EXAMPLES), strict=False):
        titles = [names[answers.predicted[index]] for index in indices]
        texts = [short_percent(answers.confidence[index]) for index in indices]
        rows.append((name, pictures(run.images, indices, titles, texts, [bool(right[index]) for index in indices])))
    return [row for row in rows if row[1]]
