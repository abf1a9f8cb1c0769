"""A trained run as one file for others to use, compared with the run before it is written."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.base.paths import shown
from cifar.base.run_folder import prepare_results, write_atomically
from cifar.data.images import Images
from cifar.experiment.building import create
from cifar.experiment.exports import onnx_file, safetensors_file, torch_file
from cifar.experiment.exports.exported import Classifier, Exported, Subject
from cifar.experiment.exports.facts import facts_of, summary_of
from cifar.experiment.exports.int8 import quantised
from cifar.experiment.trained import TrainedRun, build_model
from cifar.training.devices.device import choose_device

log = logging.getLogger(__name__)

NUM_IMAGES = 100  # that the exported file and the run are compared on
BATCH_SIZES = (1, 7, NUM_IMAGES)
TOLERANCE = 1e-4  # of a probability: rounding in float32 gives less, a mistake far more


class Format(NamedTuple):
    """A kind of file: its suffix, what raises `UserError` for a missing package, and what makes it."""

    suffix: str
    refuse_missing: Callable[[], None]
    export: Callable[[Subject], Exported]


FORMATS = {
    "onnx": Format(".onnx", onnx_file.refuse_missing, onnx_file.export),
    "torch": Format(".pt2", torch_file.refuse_missing, torch_file.export),
    "safetensors": Format(".safetensors", safetensors_file.refuse_missing, safetensors_file.export),
}


@dataclass(frozen=True)
class Done:
    """What was written: its path and size, three lines of Python that use it, and how far it is from the run.

    `difference` is the largest of a probability, on `num_images` images, which are `images` in words. `accuracies` are
    those of `quantised`, if there are some.
    """

    path: Path
    num_bytes: int
    lines: tuple[str, str, str]
    difference: float
    num_images: int
    images: str
    accuracies: dict[str, float]


def export(run: TrainedRun, kind: str, path: Path, force: bool = False, int8: bool = False) -> Done:
    """Write the run to a file of a kind of `FORMATS` that gives the run's own answers.

    It is written only if it does. Then `int8` makes the convolutions of an ONNX file 8-bit ones, whose answers differ.
    Raises `UserError` for a run that diverged, a file that is there unless `force`, a model that can't be exported and
    answers that differ.
    """
    refuse_unfit(run)
    refuse_existing(path, force)
    images, described = images_to_compare(run)
    expected = run.probabilities(images)
    exported = FORMATS[kind].export(subject_of(run, expected.shape[1]))
    difference = largest_difference(exported.answer, images, expected)
    if not difference <= TOLERANCE:
        raise UserError(
            f"The exported model does not give the run's answers: on {described} a probability differs by "
            f"{difference:.2g}, and rounding explains {TOLERANCE:g} at most. Nothing was written. "
            "Does the model compute the same for an image whatever else is in the batch, and without chance?"
        )
    accuracies: dict[str, float] = {}
    if int8:
        exported, accuracies = quantised(exported, all_images(run))
    write_atomically(path, lambda file: file.write(exported.content))
    facts = (difference, len(images), described, accuracies)
    return Done(path, len(exported.content), exported.lines(shown(path)), *facts)


def refuse_unfit(run: TrainedRun) -> None:
    """Raise `UserError` for a run that diverged; warn of one that was not tested."""
    summary = summary_of(run)
    if summary.get("status") == "diverged":
        raise UserError(
            f"{shown(run.folder)} diverged: {summary.get('error')} Its last weights are no result. "
            "To export them all the same, copy its checkpoint elsewhere and name that."
        )
    if summary.get("test_accuracy") is None:
        log.warning(
            f"There is no result beside {shown(run.path)} (summary.json with a test accuracy): the file won't name one."
        )


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `UserError` if the file is there, unless `force`, or can't be written."""
    if path.exists() and not path.is_dir() and not force:
        raise UserError(f"{shown(path)} exists: name another file with --output, or write over it with --force.")
    prepare_results(path)


def subject_of(run: TrainedRun, num_outputs: int) -> Subject:
    """Return what is exported of a run: its weights in a model with torch's own convolutions, in float32 on the CPU."""
    plain = choose_device("cpu", precision="fp32", channels_last=False, fast_conv=False)
    model = build_model(run.cfg, run.model.state_dict(), plain, str(run.path))
    data = run.config["data"]
    classifier = Classifier(model, data["mean"], data["std"]).eval()
    return Subject(classifier, run.image_size, facts_of(run, num_outputs), lambda: new_model(run))


def new_model(run: TrainedRun) -> nn.Module:
    """Return a model as the run's configuration makes it, in eval mode; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        model = create(run.cfg.model)
    assert isinstance(model, nn.Module)
    return model.eval()


def images_to_compare(run: TrainedRun) -> tuple[Tensor, str]:
    """Return up to `NUM_IMAGES` test images, and what they are; noise if the test images are not here.

    Nothing is downloaded for them.
    """
    try:
        images = without_downloads(run).test_set().test_images[:NUM_IMAGES]
        if tuple(images.shape[2:]) != run.image_size:
            raise UserError("the data has images of another size than the model was trained on")
        return images, f"{len(images)} test images"
    except (UserError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning(f"The test images are not here, so noise takes their place: {reason}")
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_IMAGES, 3, *run.image_size)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return noise, f"{NUM_IMAGES} random images (seed 0)"


def all_images(run: TrainedRun) -> Images:
    """Return the run's images; raise `UserError` if they are not here."""
    try:
        return without_downloads(run).images()
    except UserError as error:
        raise UserError(f"--int8 needs the run's images, to find ranges and to measure its accuracy: {error}") from None


def without_downloads(run: TrainedRun) -> TrainedRun:
    """Return the run with a data source that has no mirrors, if it is one that knows some."""
    cfg: Any = run.cfg.copy()
    if "mirrors" in cfg.data.source:
        OmegaConf.update(cfg, "data.source.mirrors", [], merge=False)
    return replace(run, cfg=cfg)


def largest_difference(answer: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a probability over batches of several sizes; NaN if there is one."""
    gaps = [(answer(images[:size]) - expected[:size]).abs().max() for size in BATCH_SIZES]
    return float(torch.stack(gaps).max())
