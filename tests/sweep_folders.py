"""Folders of sweeps with known numbers, written as the framework writes them but without any training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special, stats

from cifar.base.run_folder import write_json
from cifar.experiment.config import config_hash
from cifar.sweeps.plan import make_plan, write_plan


def write_run(folder: Path, lr: float, seed: int, number: int | None = None, **summary: Any) -> None:
    """Write a run's folder; given entries of the summary replace those of a finished run, None removes them."""
    config: dict[str, Any] = {"lr": lr, "seed": seed, "data": {"val_size": 5000, "split_seed": seed}}
    content = {
        "status": "completed",
        "job": number,
        "overrides": [f"lr={lr}", f"seed={seed}"],
        "choices": {"model": "resnet50"},
        "config": config,
        "config_hash": config_hash(config),
        "point": config_hash({"lr": lr}),
        "seed": seed,
        "device": "a processor",
        "precision": "fp32",
        "git_commit": "0123456789",
        "versions": {"python": "3.11.7", "torch": "2.15.0", "numpy": "2.4.6"},
        "test_accuracy": 0.5,
        "train_loss": 1.5,
        "train_seconds": 90.0,
        "eval_seconds": 30.0,
        "images_per_second": 1000.0,
        **summary,
    }
    folder.mkdir(parents=True)
    write_json(folder / "summary.json", {key: value for key, value in content.items() if value is not None})


def write_metrics(folder: Path, num_epochs: int, lines_per_epoch: int = 1) -> None:
    """Write a metrics.jsonl whose training loss is 1/step and whose validation accuracy is epoch/num_epochs."""
    lines = []
    for epoch in range(1, num_epochs + 1):
        for line in range(1, lines_per_epoch + 1):
            step = 10 * ((epoch - 1) * lines_per_epoch + line)
            metrics = {"train/loss": 1 / step, "train/accuracy": 0.5, "train/grad_norm": 1.25, "lr": 0.1}
            lines.append({"step": step, "epoch": epoch, "time_seconds": step / 7, **metrics})
        lines.append({"step": step, "epoch": epoch, "time_seconds": step / 7, "val/loss": 1.5,
                      "val/accuracy": epoch / num_epochs})  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_sweep(folder: Path, results: dict[float, list[float]], *words: str, **summary: Any) -> None:
    """Write a sweep over learning rates: lr → validation accuracies of the seeds 0, 1, …"""
    rates = ",".join(map(str, results))
    num_seeds = max(len(accuracies) for accuracies in results.values())
    plan = make_plan([*words, f"lr={rates}", f"seed=range(0,{num_seeds})"], 0)
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, plan)
    jobs = [(lr, seed) for lr in results for seed in range(num_seeds)]
    for number, (lr, seed) in enumerate(jobs):
        if seed < len(results[lr]):
            write_run(folder / str(number), lr, seed, number, val_accuracy=results[lr][seed], **summary)


def interval_text(values: list[float]) -> str:
    """Return a mean with its interval as the report shows it, from scipy's functions."""
    mean = np.mean(values)
    error = stats.sem(values) / (mean * (1 - mean))
    low, high = special.expit(stats.t.interval(0.95, len(values) - 1, special.logit(mean), error))
    return f"{100 * mean:.2f} % ({100 * low:.2f}–{100 * high:.2f})"
