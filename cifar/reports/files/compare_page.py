"""compare.html and compare.json: two runs on the same test images, as files that need no network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.base.run_folder import write_atomically, write_json
from cifar.reports.files.page import look, page_template
from cifar.reports.files.pictures import Picture, pictures
from cifar.reports.files.run_page import short_percent
from cifar.reports.findings.classification import overall, per_class
from cifar.reports.findings.mcnemar import Disagreement
from cifar.reports.findings.wording import percent
from cifar.tracking.answers import Stored

NUM_SHOWN = 24  # pictures of each side

Pair = tuple[Stored, Stored]


def sentences(names: Sequence[str], answers: Pair, found: Disagreement) -> list[str]:
    """Return in words who is better, and how sure that is."""
    first, second = (percent(overall(part).fraction) for part in answers)
    low, high = found.interval
    only = [f"{count:,}" for count in found.counts]
    points = f"{100 * found.difference:+.2f} points (95 %: {100 * low:+.2f} to {100 * high:+.2f})"
    p = f"McNemar's exact test: p = {found.p_value:.2g} (mid-p {found.mid_p_value:.2g})"
    if found.difference == 0:
        verdict = "They are right on equally many images."
    elif found.is_clear:
        verdict = f"The {'first' if found.difference > 0 else 'second'} is better on images like these."
    else:
        verdict = "They can't be told apart by these images."
    return [
        f"{names[0]}: {first}. {names[1]}: {second}. {verdict}",
        f"The first run's accuracy differs by {points}. {p}.",
        f"Of {found.total:,} test images only the first has {only[0]} right, only the second {only[1]}; both are wrong "
        f"on {found.both_wrong:,}.",
        "This compares two trained models. Which setting is better is another question, which takes several seeds of "
        "each: cifar run -m … 'seed=range(0,5)'.",
    ]


def write_comparison(
    folders: Sequence[Path],
    names: Sequence[str],
    answers: Pair,
    found: Disagreement,
    images: NDArray[np.uint8] | None,
    no_pictures: str,
    output: Path,
) -> None:
    """Write compare.html and compare.json into `output`; `no_pictures` says why there are no `images`."""
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "compare.json", as_json(folders, answers, found))
    both_right = found.total - sum(found.counts) - found.both_wrong
    sides = [
        ("Only the first is right", found.first, answers[1]),
        ("Only the second is right", found.second, answers[0]),
    ]
    text = page_template("compare.html").render(
        title=f"{names[0]} and {names[1]}",
        warnings=[],
        verdict=sentences(names, answers, found),
        cells=[f"{count:,}" for count in (both_right, *found.counts, found.both_wrong)],
        classes=class_rows(answers),
        sides=[(title, f"{len(indices):,}", wrong_ones(images, indices, wrong)) for title, indices, wrong in sides],
        no_pictures=no_pictures,
        facts=[("first", str(folders[0])), ("second", str(folders[1])), ("test set", answers[0].test_set)],
        **look(),
    )
    write_atomically(output / "compare.html", lambda file: file.write(text.encode(errors="replace")))


def as_json(folders: Sequence[Path], answers: Pair, found: Disagreement) -> dict[str, Any]:
    """Return the comparison for a program; images are named by their places in the test set."""
    return {
        "runs": [str(folder) for folder in folders],
        "num_images": found.total,
        "accuracies": [overall(part).fraction for part in answers],
        "difference": found.difference,
        "difference_interval": [*found.interval],
        "p_value": found.p_value,
        "mid_p_value": found.mid_p_value,
        "only_first_right": found.first,
        "only_second_right": found.second,
        "both_wrong": found.both_wrong,
        "test_set": answers[0].test_set,
    }


def class_rows(answers: Pair) -> list[tuple[str, str, str, str, str]]:
    """Return a row for every class that has images: its name, how many, both accuracies, and their difference."""
    rows = []
    for name, first, second in zip(answers[0].names(), *map(per_class, answers), strict=False):
        if first.total:
            gap = 100 * (first.fraction - second.fraction)
            rows.append((name, f"{first.total:,}", percent(first.fraction), percent(second.fraction), f"{gap:+.2f}"))
    return rows


def wrong_ones(images: NDArray[np.uint8] | None, indices: Sequence[int], wrong: Stored) -> list[Picture]:
    """Return the first of the images, with what the run that is wrong says of them."""
    if images is None:
        return []
    names, shown = wrong.names(), indices[:NUM_SHOWN]
    titles = [f"{names[wrong.predicted[index]]} {short_percent(wrong.confidence[index])}" for index in shown]
    return pictures(
        images, shown, titles, [f"is {names[wrong.labels[index]]}" for index in shown], [False] * len(shown)
    )
