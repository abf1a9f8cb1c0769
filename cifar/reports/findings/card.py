"""What a model card is made of, read from a run's folder and checked: a card never guesses a number."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar.base.errors import UserError
from cifar.base.paths import shown
from cifar.experiment.stored.formats import MOVED
from cifar.reports.findings.classification import Share, overall
from cifar.reports.runs.records import is_count, is_number, is_text, is_whole, read_summary
from cifar.tracking.answers import PREDICTIONS, Stored, read_predictions
from cifar.tracking.predictions import named

# Data sets by their source, for readers.
DATA_NAMES = {
    "cifar.data.sources.cifar10.CIFAR10": "CIFAR-10",
    "cifar.data.sources.cifar100.CIFAR100": "CIFAR-100",
    "cifar.data.sources.svhn.SVHN": "SVHN",
    "cifar.data.sources.image_folder.ImageFolder": "pictures of one's own",
    "cifar.data.sources.digits.Digits": "scikit-learn's handwritten digits, enlarged to 32×32",
    "cifar.data.sources.random_images.RandomImages": "random noise",
}
NEEDED = ("status", "config", "test_accuracy", "num_parameters")


@dataclass(frozen=True)
class Card:
    """The facts of one run that has completed; `license` is what its owner says, `image_size` is None if unknown."""

    name: str
    license: str | None
    summary: dict[str, Any]
    answers: Stored
    image_size: tuple[int, int] | None

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration."""
        found: dict[str, Any] = self.summary["config"]
        return found

    @property
    def architecture(self) -> str:
        """The name of what builds the model."""
        return str(self.config["model"]["_target_"]).rpartition(".")[2]

    @property
    def names(self) -> list[str]:
        """The names of all classes."""
        return named(self.answers.names(), int(self.config["data"]["num_classes"]))

    @property
    def num_parameters(self) -> int:
        """How many there are."""
        return int(self.summary["num_parameters"])

    @property
    def data_name(self) -> str:
        """The data set for readers."""
        return DATA_NAMES.get(self.source, self.source.rpartition(".")[2])

    @property
    def source(self) -> str:
        """What the images came from."""
        target = str(self.config["data"]["source"]["_target_"])
        return MOVED.get(target, target)

    @property
    def accuracy(self) -> Share:
        """The accuracy on the test images."""
        return overall(self.answers)

    @property
    def tta_accuracy(self) -> Share | None:
        """That with test-time augmentation, if the run had some."""
        return self.share("test_tta_accuracy", self.accuracy.total)

    @property
    def val_accuracy(self) -> Share | None:
        """That on the validation images, if some were held out."""
        return self.share("val_accuracy", int(self.config["data"]["val_size"]))

    def share(self, key: str, total: int) -> Share | None:
        """Return an accuracy of the summary as so many of so many images."""
        fraction = self.summary.get(key)
        return None if fraction is None or not total else Share(round(fraction * total), total)


def read_card(folder: Path, name: str | None = None, license: str | None = None) -> Card:
    """Return the facts of the run in a folder; raise `UserError` with what is missing or wrong."""
    warnings: list[str] = []
    summary = read_summary(folder / "summary.json", warnings)
    if warnings:
        raise UserError(f"{warnings[0]} A card needs them.")
    status = summary.get("status")
    if status != "completed":
        reason = f" ({summary['error']})" if "error" in summary else ""
        raise UserError(
            f"{shown(folder)} is {status or 'of unknown status'}{reason}: only a run that completed has a card."
        )
    if missing := [key for key in NEEDED if key not in summary]:
        raise UserError(f"{folder / 'summary.json'} lacks {', '.join(missing)}, which a card needs.")
    if isinstance(data := summary["config"].get("data"), dict):  # what was computed of the training images
        data |= {key: value for key, value in summary.get("normalisation", {}).items() if data.get(key) is None}
    refuse_odd(summary["config"], folder / "summary.json")
    answers = answers_of(folder, summary)
    return Card(name or "-".join(folder.absolute().parts[-2:]), license, summary, answers, size_of(folder, summary))


def is_count_or_none(value: Any) -> bool:
    """Return whether the value is a number of images, or none."""
    return value is None or is_count(value)


def is_numbers(value: Any) -> bool:
    """Return whether the value is a list of numbers."""
    return isinstance(value, list) and all(map(is_number, value))


# What a card takes from the configuration.
KINDS: dict[str, Callable[[Any], bool]] = {
    "seed": is_whole,
    "tta": is_text,
    "init_from": lambda value: value is None or is_text(value),
    "model._target_": is_text,
    "data.source._target_": is_text,
    **dict.fromkeys(("data.mean", "data.std"), is_numbers),
    **dict.fromkeys(("data.num_classes", "data.val_size"), is_count),
    **dict.fromkeys(("data.limit", "data.test_limit"), is_count_or_none),
    "data.split_seed": is_whole,
}


def refuse_odd(config: dict[str, Any], path: Path) -> None:
    """Raise `UserError` if the configuration in the file lacks what a card names, or no run has such a value."""
    for key, is_good in KINDS.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part, math.nan) if isinstance(value, dict) else math.nan
        if not is_good(value):
            raise UserError(f"{path}: no run has {key}={value!r} in its configuration, so there is no card of it.")


def answers_of(folder: Path, summary: dict[str, Any]) -> Stored:
    """Return what the run said of the test images; raise `UserError` if that is not there, or another run's."""
    path = folder / PREDICTIONS
    if not path.is_file():
        raise UserError(
            f"{path} is missing: the intervals and the classes' accuracies come from it. Runs leave it at their end."
        )
    answers = read_predictions(path)
    accuracy = overall(answers).fraction
    if not math.isclose(accuracy, summary["test_accuracy"], abs_tol=1e-9):
        raise UserError(
            f"{path} and summary.json are of different runs: {accuracy:.4f} of the images are right in the one, "
            f"{summary['test_accuracy']:.4f} in the other."
        )
    return answers


def size_of(folder: Path, summary: dict[str, Any]) -> tuple[int, int] | None:
    """Return the images' height and width as the run's checkpoint has them; None without one of this run."""
    from cifar.base.sealed import read_checkpoint  # imports torch, which takes seconds

    with suppress(UserError):
        content = read_checkpoint(folder / "checkpoint.pt")
        size = content.get("image_size")
        if content.get("config_hash") == summary.get("config_hash") and isinstance(size, list):
            height, width = (int(side) for side in size)
            return height, width
    return None


def shown_time(seconds: float) -> str:
    """Return a time such as "17 min 51 s"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
