"""The versions of what checkpoints and summaries hold, and how today's code reads those of earlier versions.

A key of the configuration or a part of a checkpoint that is added gets one line here: the value that gives the numbers
of before. Runs of before can then be resumed for ever, and keep their hash. `FORMAT_VERSION` is raised when an earlier
program could no longer read what is written.
"""

import re
from collections.abc import Iterator
from typing import Any

from cifar.base.errors import UserError
from cifar.experiment.stored.ancestry import ancestry_of

# 1, which did not say so, had the configuration a second time, with interpolations; 2 weighed steps, not images; 3 had
# every counter as a part of its own
FORMAT_VERSION = 4

# Keys of the configuration that came later: since which format, and what runs before them behaved like; "=key" stands
# for another key's value. Those that came since format 2 enter no hash while they have this value.
ADDED_KEYS: dict[str, tuple[int, Any]] = {
    "tta": (1, "none"),
    "init_head": (4, "keep"),
    "page": (4, True),
    "test_on": (4, {}),
    "keep_best": (4, False),
    "clip_norm": (4, None),
    "average": (4, {"_target_": "cifar.training.averaging.averages.NoAverage"}),
    "mix": (4, {"_target_": "cifar.data.mix.Unmixed"}),
    "data.classes": (4, None),
    "data.size_schedule": (4, None),
    "data.split_seed": (1, "=seed"),
    "data.test_limit": (1, None),
    "device.fast_conv": (1, False),
    "device.graph": (1, False),
    "device.deterministic": (1, False),
    "device.sync_batch_norm": (4, False),
}
# The same for the parameters of what a `_target_` names: target → parameter → format and value.
ADDED_PARAMETERS: dict[str, dict[str, tuple[int, Any]]] = {
    "cifar.data.sources.cifar10.CIFAR10": {"cache": (1, None)},
    **{f"cifar.models.resnet_he.{name}": {"width": (4, 64)} for name in ("resnet18", "resnet34", "resnet50_he")},
    "torch.optim.Adam": {"fused": (1, None)},
    "torch.optim.AdamW": {"fused": (1, None)},
    "torch.optim.SGD": {"fused": (1, None)},
    "cifar.training.optimizers.Muon": {"precision": (4, "auto")},
}

# Targets that were named otherwise, earlier name → today's. A hash is taken of the earlier ones.
MOVED: dict[str, str] = {
    "cifar.optimizers.Muon": "cifar.training.optimizers.Muon",
    **{
        f"cifar.schedules.{name}": f"cifar.training.schedules.{name}"
        for name in ("Constant", "Step", "Cosine", "Linear")
    },
    "cifar.data.augment.Unchanged": "cifar.data.augment.pipeline.Unchanged",
    "cifar.data.augment.CropFlip": "cifar.data.augment.crops.CropFlip",
    "cifar.data.augment.TranslateAltflip": "cifar.data.augment.crops.TranslateAltflip",
    "cifar.models.resnet18.resnet18": "cifar.models.resnet_he.resnet18",
    "cifar.data.sources.CIFAR10": "cifar.data.sources.cifar10.CIFAR10",
    "cifar.data.sources.Digits": "cifar.data.sources.digits.Digits",
    "cifar.data.sources.RandomImages": "cifar.data.sources.random_images.RandomImages",
    "cifar.tracking.NoTracker": "cifar.tracking.tracking.NoTracker",
    "cifar.wandb_tracker.WandbTracker": "cifar.tracking.wandb_tracker.WandbTracker",
    "cifar.tensorboard_tracker.TensorboardTracker": "cifar.tracking.tensorboard_tracker.TensorboardTracker",
}
EARLIER = {today: earlier for earlier, today in MOVED.items()}

NUMBER = (int, float)
NOTHING = type(None)
# The parts of a checkpoint that a run goes on from, with dots for parts of parts, and the types that they can have.
PARTS: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "references": (dict,),
    "init_hash": (str, NOTHING),
    "ancestry": (list, NOTHING),
    "run": (dict,),
    "run.name": (str,),
    "run.group": (str, NOTHING),
    "run.origin": (dict,),
    "run.id": (str,),
    "software": (dict,),
    "times_resumed": (int,),
    "metrics": (dict,),
    "metrics.size": NUMBER,
    "metrics.seconds": NUMBER,
    "model": (dict,),
    "optimizer": (dict,),
    "scaler": (dict,),
    "rng": (dict,),
    "steps_per_epoch": (int,),
    "counters": (dict,),
    "counters.step": (int,),
    "counters.epoch": (int,),
    "counters.index": (int,),
    "counters.num_images": (int,),
    "counters.train_seconds": NUMBER,
    "counters.eval_seconds": NUMBER,
    "counters.train_loss": (*NUMBER, NOTHING),
    "counters.epoch_totals": (dict,),
    "counters.val_result": (dict, NOTHING),
    "counters.best": (dict, NOTHING),
    "num_skipped": (int,),
    "num_in_a_row": (int,),
    "average": (dict,),
    "best_model": (dict, NOTHING),
    "last_loss": (*NUMBER, NOTHING),
    "window": (dict,),
}
COUNTERS = [key.removeprefix("counters.") for key in PARTS if key.startswith("counters.")]
# Parts that came later, and what they would have held before.
ADDED_PARTS: dict[str, Any] = {
    "references": {},
    "init_hash": None,
    "scaler": {},
    "num_in_a_row": 0,
    "average": {},
    "best_model": None,
}


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the keys that came later; the given one stays as it is."""
    completed: dict[str, Any] = copied(config)
    for key, (_, value) in ADDED_KEYS.items():
        *parents, name = key.split(".")
        node = find(completed, parents)
        if isinstance(node, dict) and name not in node:
            source = find(config, value[1:].split(".")) if isinstance(value, str) and value[:1] == "=" else value
            node[name] = copied(source)
    for node in called(completed):
        node["_target_"] = MOVED.get(node["_target_"], node["_target_"])
        for name, (_, value) in ADDED_PARAMETERS.get(node["_target_"], {}).items():
            node.setdefault(name, value)
    return completed


def without_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as format 2 had it: without keys that came later and have the value of before."""
    reduced: dict[str, Any] = copied(config)
    for key, (version, value) in ADDED_KEYS.items():
        *parents, name = key.split(".")
        node = find(reduced, parents)
        if version > 1 and isinstance(node, dict) and name in node and node[name] == value:
            del node[name]
    for node in called(reduced):
        for name, (version, value) in ADDED_PARAMETERS.get(node["_target_"], {}).items():
            if version > 1 and name in node and node[name] == value:
                del node[name]
        node["_target_"] = EARLIER.get(node["_target_"], node["_target_"])
    return reduced


def copied(node: Any) -> Any:
    """Return nested dicts and lists anew."""
    if isinstance(node, dict):
        return {key: copied(value) for key, value in node.items()}
    return [copied(value) for value in node] if isinstance(node, list) else node


def called(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict in nested dicts and lists that has a `_target_`."""
    if isinstance(node, dict) and isinstance(node.get("_target_"), str):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from called(value)


def find(node: Any, keys: list[str]) -> Any:
    """Return what nested dicts hold at a path of keys; None if they hold nothing there."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def read_run(checkpoint: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return what a run goes on from, as today's format has it.

    Raises `UserError`, which begins with the `origin`, for a part that is missing or is none.
    """
    version = checkpoint.get("format_version", 1)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(f"{origin} was written by a later version of this program, in format {version}: update it.")
    content = {**ADDED_PARTS, "ancestry": ancestry_of(checkpoint), **checkpoint}
    if version < 4:
        content = with_counters(content)
    for key, kinds in PARTS.items():
        *parents, name = key.split(".")
        node = find(content, parents)
        problem = f"lacks its part {key!r}" if name not in node else f"has a part {key!r} that is none"
        if name not in node or not isinstance(node[name], kinds):
            raise UserError(
                f"{origin} is intact, but {problem} (format {version}), so no run can go on from it. "
                "To start a new one from its weights: init_from=PATH"
            )
    if not re.fullmatch(r"[\w-]+", content["run"]["id"]):
        raise UserError(f"{origin} has a name for the dashboard that is none: {content['run']['id']!r}.")
    try:
        counters = content["counters"]
        window, totals = weighing_images(content["window"], counters["epoch_totals"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise unreadable(origin, error) from None
    counters = counters | {"epoch_totals": totals}
    return content | {"config": with_defaults(content["config"]), "window": window, "counters": counters}


def with_counters(content: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of an earlier format with all counters in one, as since format 4."""
    counters = {name: content[name] for name in COUNTERS if name in content}
    if isinstance(result := counters.get("val_result"), list) and len(result) == 2:
        counters["val_result"] = dict(zip(("loss", "accuracy"), result, strict=True))
    return {name: value for name, value in content.items() if name not in counters} | {"counters": counters}


def unreadable(origin: str, error: Exception) -> UserError:
    """Return the error for a state whose parts are there, but are not what they should be."""
    return UserError(
        f"{origin} is intact, but holds a state that this program can't read ({type(error).__name__}: {error}). "
        "To start a new run from its weights: init_from=PATH"
    )


def weighing_images(window: dict[str, Any], totals: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a window and an epoch's totals as they are since format 3: images weigh the same, steps did before.

    Whole batches were saved only, as the epoch's last step, which may have fewer images, is read and counted at once.
    """
    if "sizes" not in window:
        num_steps = len(rows := window["rows"])
        sizes = [window["num_images"] // num_steps] * num_steps if num_steps else []
        scaled = rows.new_ones((num_steps, 4))  # the fourth column is the scale
        scaled[:, :3] = rows
        window = {"rows": scaled, "sizes": sizes, "seconds": window["seconds"]}
    if "num_skipped" not in totals and totals["num_steps"]:
        size = totals["num_images"] / totals["num_steps"]
        totals = {**totals, "loss_sum": size * totals["loss_sum"]}
    return window, totals
