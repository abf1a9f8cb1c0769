"""What an exported file says of itself: how to use it, and where it comes from."""

import json
from importlib.metadata import version
from typing import Any

import torch

from cifar.base.errors import UserError
from cifar.base.run_folder import finite
from cifar.experiment.trained import TrainedRun
from cifar.experiment.typed.command_line import run_command
from cifar.tracking.predictions import named

RESULTS = ("test_accuracy", "test_loss", "val_accuracy", "train_seconds")


def facts_of(run: TrainedRun, num_outputs: int) -> dict[str, Any]:
    """Return the facts; what is not known is left out."""
    config, summary = run.config, summary_of(run)
    software = run.facts.get("software") or {}
    facts = {
        "class_names": named(run.class_names, num_outputs),
        "image_size": [*run.image_size],
        "mean": config["data"]["mean"],
        "std": config["data"]["std"],
        "model": config["model"],
        "num_parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "command": command_of(run),
        "status": summary.get("status"),
        **{key: summary.get(key) for key in RESULTS},
        "trained_on": config["data"]["source"].get("_target_"),
        "seed": config["seed"],
        "epochs": summary.get("epochs"),
        "config_hash": run.facts.get("config_hash"),
        "git_commit": software.get("git_commit"),
        "device": software.get("device"),
        "versions": software.get("versions"),
        "exported_by": {"cifar-framework": version("cifar-framework"), "torch": torch.__version__},
    }
    return {key: finite(value) for key, value in facts.items() if value is not None}


def summary_of(run: TrainedRun) -> dict[str, Any]:
    """Return the run's summary, empty if there is none or it is another run's."""
    try:
        return run.summary
    except UserError:
        return {}


def command_of(run: TrainedRun) -> str | None:
    """Return the command with which the run was begun, if the checkpoint tells."""
    origin = (run.facts.get("run") or {}).get("origin") or {}
    words, flags = origin.get("overrides"), origin.get("flags") or []
    return None if words is None else run_command(map(str, words), [*map(str, flags)])


def as_texts(facts: dict[str, Any]) -> dict[str, str]:
    """Return the facts for a file whose metadata are texts: texts as they are, all else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
