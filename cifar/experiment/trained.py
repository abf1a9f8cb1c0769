"""A trained run to use: its model and what belongs to it, out of nothing but a checkpoint.

A checkpoint may be a stranger's: what it names is called only if the user's own configuration names it too, and no
text in it is an interpolation (docs/trust.md).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.base.paths import CONF, absolute, shown
from cifar.base.run_folder import read_summary
from cifar.base.sealed import read_checkpoint
from cifar.data.images import Images
from cifar.data.loader import Loader
from cifar.data.pictures import as_images
from cifar.experiment.building import create
from cifar.experiment.config import VIEWS, check_value, resolve
from cifar.experiment.loaders import load_images
from cifar.experiment.other_words import with_words
from cifar.experiment.stored.configuration import links_of, stored_config
from cifar.experiment.stored.data import stored_names, stored_size, take_normalisation
from cifar.experiment.stored.formats import FORMAT_VERSION, with_defaults
from cifar.experiment.stored.metrics import read_columns
from cifar.experiment.stored.trust import own_targets, refuse_foreign
from cifar.experiment.stored.weights import weights_of
from cifar.experiment.typed.compose import compose_words
from cifar.tracking.answers import PREDICTIONS, Stored, answers_of, read_predictions
from cifar.tracking.predictions import Predictions, named
from cifar.training.checkpoint import load_state
from cifar.training.devices.device import Device, choose_device, find_device
from cifar.training.devices.fast_conv import speed_up
from cifar.training.evaluating.scores import scores
from cifar.training.evaluating.tta import mean_logits

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

USED = ("tta", "eval_batch_size", "data.mean", "data.std", "data.test_limit", "device.name", "device.precision")
FACTS = ("config_hash", "counters", "software", "run", "ancestry", "times_resumed")


class Answers(NamedTuple):
    """The most probable class of each of N pictures, and the probabilities of all classes, float32 (N, classes)."""

    names: list[str]
    probabilities: "np.ndarray[Any, np.dtype[np.float32]]"


@dataclass(repr=False)
class TrainedRun:
    """A run as `cifar.load_run` gives it: the `model` in eval mode on its device, and all that it needs.

    `path` is the checkpoint; `class_names` has a name for every class; `image_size` is height and width. `facts` are
    what the checkpoint says of the run beside its configuration.
    """

    path: Path
    cfg: DictConfig
    model: nn.Module
    device: Device
    class_names: list[str]
    image_size: tuple[int, int]
    facts: dict[str, Any]
    allowed: frozenset[str]

    def __repr__(self) -> str:
        size, name = " by ".join(map(str, self.image_size)), type(self.model).__name__
        return f"<TrainedRun {shown(self.path)}: {name}, {len(self.class_names)} classes, images of {size} pixels>"

    @property
    def folder(self) -> Path:
        """The folder in which the checkpoint lies."""
        return self.path.parent

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration as plain values."""
        return resolve(self.cfg)

    def predict(self, pictures: Any, tta: bool | str = False) -> Answers:
        """Return the classes of one picture or many: uint8 arrays or tensors, Pillow images, or a list of these.

        They are resized to the size that the model was trained on as `cifar.data.pictures.fit` says, normalised as in
        training, and go through the model in eval mode. `tta` averages the logits of several views: "mirror" or
        "mirror_translate"; True takes what the run was tested with. Raises `UserError` for what is no picture.
        """
        probabilities = self.probabilities(as_images(pictures, self.image_size), tta)
        names = named(self.class_names, probabilities.shape[1]) if len(probabilities) else self.class_names
        return Answers([names[index] for index in probabilities.argmax(dim=1)], probabilities.numpy())

    def top(self, probabilities: "np.ndarray[Any, Any]", number: int) -> list[list[dict[str, Any]]]:
        """Return for every row of probabilities (N, classes) the `number` most probable classes, the first first."""
        names = named(self.class_names, probabilities.shape[1])
        orders = (-probabilities).argsort(axis=1, kind="stable")[:, :number]
        return [
            [{"name": names[index], "probability": float(row[index])} for index in order]
            for row, order in zip(probabilities, orders, strict=True)
        ]

    def probabilities(self, images: Tensor, tta: bool | str = False) -> Tensor:
        """Return the softmax probabilities (N, classes), on the CPU, of images, uint8 (N, C, H, W)."""
        return self.logits(images, tta).softmax(dim=1)

    @torch.inference_mode()
    def logits(self, images: Tensor, tta: bool | str = False) -> Tensor:
        """Return the logits, float32 (N, classes) on the CPU, of images, uint8 (N, C, H, W).

        With `tta` they are the mean over the views, as in `predict`.
        """
        chosen = str(self.cfg.tta) if tta is True else tta or "none"
        if chosen not in VIEWS:
            raise UserError(f"tta={tta!r} is not possible: it takes one of {', '.join(VIEWS)}, True or False.")
        self.model.eval()
        found = [torch.empty((0, len(self.class_names)))]
        for inputs, _ in self.loader(images, torch.zeros(len(images), dtype=torch.int64)).epoch(0):
            with self.device.autocast():
                _, logits = mean_logits(self.model, inputs, chosen)
            found.append(logits.float().cpu())
        return torch.cat(found[1:] or found)

    def loader(self, images: Tensor, labels: Tensor) -> Loader:
        """Return the images in batches, normalised as in training."""
        device, data = self.device.torch_device, self.cfg.data
        return Loader(
            images.to(device),
            labels.to(device),
            batch_size=self.cfg.eval_batch_size,
            mean=list(data.mean),
            std=list(data.std),
            channels_last=self.device.channels_last,
        )

    def test_set(self) -> Images:
        """Return the images on which the run was tested, from its own data source; raise `UserError` if that can't be.

        The source is called only if the user's own configuration names it.
        """
        images = self.images()
        return replace(images, train_images=images.train_images[:0], train_labels=images.train_labels[:0])

    def images(self) -> Images:
        """Return the images as `test_set` does, and with them all training images of the source."""
        source = self.config["data"]["source"]
        refuse_foreign({"data": {"source": source}}, self.allowed, str(self.path))
        images = load_images(self.cfg, create(self.cfg.data.source))
        tested = slice(self.cfg.data.test_limit)
        return replace(images, test_images=images.test_images[tested], test_labels=images.test_labels[tested])

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json in the run's folder says; raises `UserError` if it is not there."""
        summary = read_summary(self.folder)
        if not summary:
            raise self.lacks("summary.json")
        if summary.get("config_hash") != self.facts.get("config_hash"):
            raise UserError(f"{self.folder / 'summary.json'} is another run's than {self.path.name}.")
        return summary

    @property
    def curves(self) -> dict[str, list[float]]:
        """What metrics.jsonl in the run's folder holds, a list for every column, NaN where nothing was logged.

        The columns are `step`, `epoch`, `time_seconds` and the metrics: `pandas.DataFrame(run.curves)` is a table.
        Raises `UserError` if it is not there.
        """
        if not (self.folder / "metrics.jsonl").is_file():
            raise self.lacks("metrics.jsonl")
        return read_columns(self.folder / "metrics.jsonl")

    @property
    def predictions(self) -> "dict[str, np.ndarray[Any, Any]]":
        """What the run said of the test images when it was tested: arrays `labels`, `predicted` and `confidence`.

        Raises `UserError` if predictions.npz is not there.
        """
        if not (self.folder / PREDICTIONS).is_file():
            raise self.lacks(PREDICTIONS)
        return read_predictions(self.folder / PREDICTIONS).columns()

    def lacks(self, name: str) -> UserError:
        """Return the error for a file that is not in the run's folder."""
        return UserError(f"There is no {name} beside {self.path}: the model needs none, but this does.")


def load_trained(path: Path, words: Sequence[str] = (), config_dir: str | Path | None = None) -> TrainedRun:
    """Return the run of a checkpoint; `words` and what is in `config_dir` are the user's own configuration.

    Raises `UserError` for a file that is none, and for code that the user's own configuration does not name.
    """
    origin = str(path)
    checkpoint = read_checkpoint(path)
    refuse_unusable(checkpoint, origin)
    searched = [] if config_dir is None else [f"hydra.searchpath=['file://{absolute(str(config_dir))}']"]
    composed, _ = compose_words([*searched, *words])
    folders = [CONF, *([] if config_dir is None else [absolute(str(config_dir))])]
    allowed = own_targets(folders, composed, words)
    try:
        stored = stored_config(with_defaults(checkpoint["config"]), links_of(checkpoint), composed)
        cfg = with_words(stored, composed, words)
        take_normalisation(cfg, checkpoint, origin)
        check_stored(cfg, origin)
        config = resolve(cfg)
        refuse_foreign({"model": config["model"]}, allowed, origin)
        weights = weights_of(checkpoint, origin)
    except (OmegaConfBaseException, AttributeError, LookupError, TypeError) as error:
        raise UserError(f"{origin} has a configuration that is none: {' '.join(str(error).split())}") from error
    device = device_for(config["device"])
    model = build_model(cfg, weights, device, origin)
    facts = {key: checkpoint[key] for key in FACTS if key in checkpoint}
    names, size = stored_names(checkpoint, config), stored_size(checkpoint)
    return TrainedRun(path, cfg, model, device, names, size, facts, allowed)


def refuse_unusable(checkpoint: dict[str, Any], origin: str) -> None:
    """Raise `UserError` if a checkpoint is not one of a run's, or is one of a later program's."""
    version = checkpoint.get("format_version", 1)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(f"{origin} was written by a later version of this program, in format {version}: update it.")
    if not all(isinstance(checkpoint.get(part), dict) for part in ("config", "model")):
        raise UserError(
            f"{origin} holds weights but no run, so nobody knows which model they are of. To evaluate them: "
            "cifar run epochs=0 init_from=PATH model=…"
        )


def check_stored(cfg: DictConfig, origin: str) -> None:
    """Raise `UserError` for the first value that is used and that no run has."""
    for key in USED:
        try:
            check_value(cfg, key)
        except UserError as error:
            raise UserError(f"{origin} has a configuration that is none: {error}") from None


def device_for(stored: dict[str, Any]) -> Device:
    """Return the device that the run used, or the best that there is here; nothing is compiled or recorded for it."""
    options = {key: stored.get(key) for key in ("precision", "channels_last", "fast_conv")}
    try:
        name = find_device(str(stored.get("name")))
    except UserError:
        name = find_device("auto")
    return choose_device(name, **options)  # type: ignore[arg-type]


def build_model(cfg: DictConfig, state: dict[str, Any], device: Device, origin: str) -> nn.Module:
    """Return the model with its weights, in eval mode; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        model = create(cfg.model)
    if not isinstance(model, nn.Module):
        raise UserError(f"{origin}: model._target_={cfg.model._target_} gives a {type(model).__name__}, no model.")
    load_state(model, state, origin)
    if device.fast_conv:
        speed_up(model)
    model.to(device.torch_device, memory_format=device.memory_format)  # type: ignore[call-overload]
    return model.eval()


def score(run: TrainedRun, test: Images, tta: bool = False) -> Stored:
    """Return what the run says of a set of test images, with its test-time augmentation if that is asked for."""
    found = scores(run.logits(test.test_images, tta), test.test_labels)
    return answers_of(
        Predictions(test.test_images, test.test_labels, *found, test.class_names)  # in the order of its fields
    )
