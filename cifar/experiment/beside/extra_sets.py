"""The results on more test sets, beside the one that a run has: `test_on=[cifar10_1,cifar10_c]`.

They are evaluated when training is over and all is chosen; nothing is ever chosen by them.
"""

import logging
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from cifar.base.errors import UserError
from cifar.data.extra_sets.extra_set import ExtraSet, of_run
from cifar.data.images import listed
from cifar.experiment.building import create
from cifar.experiment.loaders import Loaders
from cifar.experiment.stored.trust import refuse_foreign
from cifar.experiment.trained import TrainedRun
from cifar.training.trainer import Trainer

log = logging.getLogger(__name__)

Accuracy = Callable[[Tensor, Tensor], float]  # of images, uint8 (N, C, H, W), and their labels, (N,)
SIZE = (32, 32)  # of the images of all published sets


def build_extra(test_on: DictConfig, class_names: Sequence[str], size: Sequence[int]) -> dict[str, ExtraSet]:
    """Return the sets by their names, for a run that knows the classes and takes images of a size.

    Raises `UserError` for one whose files are missing or that does not fit the run, before anything is trained.
    """
    sets: dict[str, ExtraSet] = {str(name): create(node) for name, node in test_on.items()}
    for name, extra in sets.items():
        extra.refuse_missing()
        if foreign := [known for known in class_names if known not in extra.class_names]:
            raise UserError(
                f"test_on.{name} has images of {listed(extra.class_names)}, and can't tell of a run that knows "
                f"{listed(foreign)}: leave it out."
            )
        if tuple(size) != SIZE:
            raise UserError(f"test_on.{name} has images of 32×32 pixels, and the run takes {size[0]}×{size[1]}.")
    return sets


def evaluate_extra(sets: dict[str, ExtraSet], class_names: Sequence[str], accuracy: Accuracy) -> dict[str, Any]:
    """Return for every set what the summary says of it; `accuracy` is the run's on images and labels.

    That is the `accuracy`, of several parts their mean, and the number of images; of kinds of images at several levels
    the accuracies of each too.
    """
    return {name: evaluate_set(name, extra, class_names, accuracy) for name, extra in sets.items()}


def evaluate_set(name: str, extra: ExtraSet, class_names: Sequence[str], accuracy: Accuracy) -> dict[str, Any]:
    """Return the result on one set, and say it."""
    kinds: dict[str, list[float]] = {}
    levels: dict[int, None] = {}  # in order
    num_images = 0
    for part in (of_run(part, extra.class_names, class_names) for part in extra.parts()):
        if not len(part.labels):
            raise UserError(f"test_on.{name} has no images of {listed(class_names)}.")
        kinds.setdefault(part.kind, []).append(accuracy(part.images, part.labels))
        levels[part.level] = None
        num_images += len(part.labels)
    found: dict[str, Any] = {
        "accuracy": fmean(value for values in kinds.values() for value in values), "num_images": num_images,
    }  # fmt: skip
    if {*kinds} != {""}:
        found |= {"levels": [*levels], "kinds": kinds}
    log.info(in_words(name, found))
    return found


def in_words(name: str, result: dict[str, Any]) -> str:
    """Return the result on a set as it is printed."""
    how = ""
    if kinds := result.get("kinds"):
        worst = min(kinds, key=lambda kind: fmean(kinds[kind]))
        how = f", mean over {len(kinds)} kinds at {len(result['levels'])} levels; "
        how += f"{worst} {100 * fmean(kinds[worst]):.2f} %, the least"
    return f"Accuracy of the model on {name}: {100 * result['accuracy']:.2f} %{how}"


def results_on(trainer: Trainer, loaders: Loaders, extra: dict[str, ExtraSet]) -> dict[str, Any]:
    """Return the results on more test sets, of the weights that were tested."""
    evaluator, counters = trainer.evaluator, trainer.counters

    def accuracy(images: Tensor, labels: Tensor) -> float:
        return evaluator.evaluate(evaluator.result, loaders.test.of(images, labels), counters).accuracy

    found = evaluate_extra(extra, loaders.class_names, accuracy)
    metrics = {f"test_on/{name}": entry["accuracy"] for name, entry in found.items()}
    trainer.log_metrics(metrics, counters.step, counters.epoch)
    return found


def results_of(run: TrainedRun) -> dict[str, Any]:
    """Return the results of a trained run on the sets of its configuration, which must be the user's own."""
    refuse_foreign({"test_on": run.config["test_on"]}, run.allowed, str(run.path))
    sets = build_extra(run.cfg.test_on, run.class_names, run.image_size)

    def accuracy(images: Tensor, labels: Tensor) -> float:
        return float((run.logits(images).argmax(dim=1) == labels).double().mean())

    return evaluate_extra(sets, run.class_names, accuracy)
