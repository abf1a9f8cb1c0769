"""`cifar.load_run`: a run to use by its folder, its checkpoint, or as a sweep's best."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifar.base.errors import UserError
from cifar.base.paths import absolute, shown, why_no_file
from cifar.reports.runs.reading import read_sweep
from cifar.sweeps.plan import find_runs

if TYPE_CHECKING:
    from cifar.experiment.trained import TrainedRun

CHECKPOINT = "checkpoint.pt"


def load_run(
    path: str | Path, words: Sequence[str] = (), config_dir: str | Path | None = None, *, best: bool = False
) -> "TrainedRun":
    """Return the run in a folder, or of a checkpoint wherever it lies, to predict with and to look at.

    Of a sweep's folder `best=True` takes the best as `best_run` says. `words` and the YAML files in `config_dir` are as
    for `cifar.compose`: words such as "device=cpu" change how it is evaluated, and a model of your own is called only
    if they name it. Nothing global is changed. Raises `UserError` for what can't be loaded.
    """
    from cifar.experiment.trained import load_trained  # imports torch, which takes seconds

    place = absolute(str(path))
    return load_trained(find_checkpoint(best_run(place) if best else place), words, config_dir)


def find_checkpoint(place: Path) -> Path:
    """Return the checkpoint that a path means: itself or the newest in a run's folder; raise `UserError` for none."""
    if not place.is_dir():
        if not place.is_file():
            raise UserError(f"{place}: {why_no_file(str(place))}.")
        return place
    if (place / CHECKPOINT).is_file():
        return place / CHECKPOINT
    runs = [folder for folder in find_runs(place) if folder != place]
    if runs:
        example = shown(runs[0])
        raise UserError(f"{place} holds {len(runs)} runs: name one, such as {example}, or ask for the best of them.")
    raise UserError(f"{place} holds no {CHECKPOINT}: no run has saved its state in it.")


def best_run(sweep: Path) -> Path:
    """Return the folder of a sweep's best run: of the best point's seeds the one with the best validation accuracy.

    The best point is that of the report: it has the best validation accuracy in the mean over its seeds. Raises
    `UserError` for a sweep without validation images, because the test images are not for choosing.
    """
    results = read_sweep(sweep)
    scored = {id(run): run.figure("val_accuracy") for run in results.runs if run.is_counted}
    if not any(value is not None for value in scored.values()):
        raise UserError(
            f"The runs in {sweep} held no validation images out, so the best of them could be chosen by the test "
            "images only, and its test accuracy would then be flattered. Sweep with data.val_size=5000, or name the "
            "run that you want."
        )
    best = max(results.points[0].runs, key=lambda run: scored.get(id(run)) or -math.inf)
    return best.folder
