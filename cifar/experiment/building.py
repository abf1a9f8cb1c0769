"""What a run consists of, built from its configuration: device, model, optimizer, source of images, tracker.

The configuration stops here, in loaders.py and in run.py: the wings below get plain arguments.
"""

import json
import logging
import re
from dataclasses import dataclass
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from cifar.base.errors import UserError
from cifar.base.limits import refuse_impossible
from cifar.base.paths import absolute
from cifar.data.augment.pipeline import Augment
from cifar.data.mix import Mix
from cifar.data.sources.source import Source
from cifar.experiment.arguments import refuse_unfit, refuse_unfit_inside
from cifar.experiment.config import NEW, resolve
from cifar.experiment.stored.ancestry import Ancestry, may_have_seen, split_of
from cifar.experiment.stored.weights import load_weights
from cifar.tracking.tracking import NoTracker, RunInfo
from cifar.training.averaging.averages import Average
from cifar.training.batch_norm import synchronise
from cifar.training.devices.device import Device, set_up_device
from cifar.training.devices.fast_conv import speed_up
from cifar.training.distributed import Ranks
from cifar.training.optimizers import LIMITS, parameter_groups, refuse_unknown
from cifar.training.schedules import Schedule
from cifar.training.steps.kept import build_step
from cifar.training.steps.step import TrainingStep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Everything that is built before data is read, so that a mistake shows at once."""

    train_step: TrainingStep
    step_key: str  # what compiled code depends on
    schedule: Schedule
    average: Average
    source: Source
    augment: Augment
    mix: Mix
    tracker: NoTracker
    ancestry: Ancestry | None  # the runs that trained the first weights; None: nobody knows

    @property
    def device(self) -> Device:
        """Return where all is computed."""
        return self.train_step.device

    @property
    def model(self) -> nn.Module:
        """Return the model that is trained."""
        return self.train_step.model

    def facts(self) -> dict[str, Any]:
        """Return what the summary tells of them."""
        return {
            "device": self.device.hardware_name(),
            "precision": self.device.precision,
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            **({"model_changes": changes} if (changes := getattr(self.model, "changes", [])) else {}),
        }


def build_parts(cfg: DictConfig, info: RunInfo) -> Parts:
    """Build what needs no data, the model with its first weights (those of `init_from` if it is given)."""
    device, ranks = set_up_device(**cfg.device), Ranks.current()
    ranks.refuse_device(device.torch_device, device.graph)
    source, augment, mix, schedule = map(create, (cfg.data.source, cfg.augment, cfg.mix, cfg.schedule))
    average = create(cfg.average)
    tracker = create(cfg.tracker, info)
    torch.manual_seed(cfg.seed)
    model = create(cfg.model)
    ancestry: Ancestry | None = []
    if cfg.init_from is not None and not info.is_resumed:
        head = head_of(cfg, model) if cfg.init_head == NEW else []
        ancestry = load_weights(model, absolute(cfg.init_from), head)
        warn_of_seen_images(cfg, ancestry)
    if device.fast_conv:
        speed_up(model)
    model.to(device.torch_device, memory_format=device.memory_format)
    options = {key: cfg[key] for key in ("label_smoothing", "accumulate", "on_nonfinite", "clip_norm")}
    key = step_key(resolve(cfg), options)
    if device.sync_batch_norm and ranks.are_several:
        synchronise(model)
    optimizer = build_optimizer(cfg, model)
    train_step = build_step(model, optimizer, device, key=key, is_resumed=info.is_resumed, ranks=ranks, **options)
    ranks.own_randomness(cfg.seed)
    return Parts(train_step, key, schedule, average, source, augment, mix, tracker, ancestry)


def head_of(cfg: DictConfig, model: nn.Module) -> list[str]:
    """Return the model's weights whose shapes the number of classes decides, by their names in its state_dict.

    They are found by building the model for one class more. Raises `UserError` if there are none.
    """
    other, number = cfg.copy(), int(cfg.model.get("num_classes", cfg.data.num_classes))
    other.data.num_classes = number + 1
    if "num_classes" in other.model:
        other.model.num_classes = number + 1
    with torch.random.fork_rng(devices=[]):
        larger = create(other.model).state_dict()
    head = [key for key, value in model.state_dict().items() if key not in larger or larger[key].shape != value.shape]
    if not head:
        raise UserError(
            f"init_head=new is not possible for model._target_={cfg.model._target_}: none of its weights depends on "
            "the number of classes. Its file in conf/model should hand that on, as num_classes: ${data.num_classes}"
        )
    return head


def step_key(config: dict[str, Any], options: dict[str, Any]) -> str:
    """Return text that is equal for runs whose steps have the same compiled code: learning rates don't matter."""

    def without_lr(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: without_lr(value) for key, value in node.items() if key != "lr"}
        return [without_lr(value) for value in node] if isinstance(node, list) else node

    return json.dumps([without_lr(config[key]) for key in ("model", "optimizer", "device")] + [options], sort_keys=True)


def build_optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """Build the optimizer, whose weights `optimizer.groups` may give values of their own."""
    values = OmegaConf.to_container(cfg.optimizer, resolve=True)
    assert isinstance(values, dict)
    if not isinstance(groups := values.pop("groups", []), list):
        raise UserError(f"optimizer.groups={groups!r} is not possible: it takes a list of groups.")
    refuse_impossible("optimizer", values, LIMITS)
    optimizer = create(OmegaConf.create({"optimizer": values}).optimizer, parameter_groups(model, groups))
    assert isinstance(optimizer, Optimizer)
    refuse_unknown(groups, optimizer)
    return optimizer


def warn_of_seen_images(cfg: DictConfig, ancestry: Ancestry | None) -> None:
    """Warn if the first weights may have been trained on the images that are held out."""
    if may_have_seen(ancestry, split_of(resolve(cfg)["data"])):
        log.warning(
            "The weights of init_from, or those that they began with, were not trained with this run's data.val_size "
            "and data.split_seed (as far as is known), so they may have seen the validation images: the validation "
            "accuracy may be too high."
        )


def create(node: DictConfig, *args: Any) -> Any:
    """Call the node's `_target_` with `args` and the node's values; raise `UserError` if it does not take them."""
    group = node._get_full_key("")
    refuse_unfit(group, node.get("_target_"), map(str, node), len(args))
    refuse_unfit_inside(group, OmegaConf.to_container(node))
    try:
        return instantiate(node, *args, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise with_place(error.__cause__, str(error), node._target_) from None
        raise UserError(" ".join(str(error).split())) from error


def with_place(cause: UserError, text: str, target: str) -> UserError:
    """Return the error, with the inner `_target_` that raised it, if Hydra's `text` names another than this one."""
    found = re.match(r"Error in call to target '(.+?)'", text)
    return type(cause)(f"{cause} ({found[1]})") if found and found[1] != target else cause
