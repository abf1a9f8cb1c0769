"""What one run leaves to look at, made at its end and by `cifar evaluate`: run.html, evaluation.json, figures/."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.base import signals
from cifar.base.errors import DivergedError
from cifar.base.run_folder import read_summary, write_json
from cifar.experiment.after import Keep
from cifar.experiment.stored.metrics import read_columns
from cifar.experiment.typed.command_line import run_command
from cifar.reports.findings.wording import percent
from cifar.reports.runs.records import read_summary as checked_summary

if TYPE_CHECKING:
    from cifar.reports.files.run_page import Shown
    from cifar.tracking.answers import Stored
    from cifar.tracking.predictions import Predictions

log = logging.getLogger(__name__)

FACTS = {
    "status": "status",
    "seed": "seed",
    "training": "train_seconds",
    "parameters": "num_parameters",
    "hardware": "device",
    "precision": "precision",
    "commit": "git_commit",
    "configuration": "config_hash",
}


@contextmanager
def page_at_end(folder: Path) -> Iterator[Keep]:
    """Yield what takes a run's predictions; when the run is over, also as diverged, make its page of them.

    A failure costs a warning: the results are safe.
    """
    kept: list[Predictions] = []
    try:
        yield kept.append
    except DivergedError:
        attempt(folder, kept)
        raise
    attempt(folder, kept)


def attempt(folder: Path, kept: "list[Predictions]") -> None:
    """Make the page of the predictions, if there are any; warn if that fails."""
    if not kept or signals.has_come():
        return
    try:
        from cifar.tracking.answers import answers_of

        report_run(folder, folder, answers_of(kept[-1]), kept[-1].images.numpy())
    except Exception as error:  # whatever happens to a page, the run is made
        log.warning(
            f"The run's page could not be made ({type(error).__name__}: {error}). Its results are safe; try again: "
            f"cifar evaluate {os.path.relpath(folder)}"
        )


def report_run(folder: Path, output: Path, answers: "Stored", images: Any, **changed: Any) -> None:
    """Write run.html, evaluation.json and figures/ into `output`, of what is in the run's folder and its `answers`.

    `images` are those of the test set, uint8 (N, 3, H, W), or None. `changed` are fields of `Shown` that are not as
    the run's summary has them.
    """
    from cifar.reports.figures.run import draw_run
    from cifar.reports.files.run_page import write_run_page
    from cifar.reports.findings.classification import facts

    warnings: list[str] = []
    run = shown(folder, answers, images, warnings, changed)
    (output / "figures").mkdir(parents=True, exist_ok=True)
    figures = draw_run(answers, run.curves, output / "figures", warnings)
    identity = {"run": run.title, "tta": changed.get("evaluated_tta", "none"), "tta_accuracy": run.tta_accuracy}
    write_json(output / "evaluation.json", identity | facts(answers) | {"test_on": run.test_on})
    write_run_page(run, figures, output, warnings)
    for warning in warnings:
        log.warning(warning)


def shown(folder: Path, answers: "Stored", images: Any, warnings: list[str], changed: dict[str, Any]) -> "Shown":
    """Return the run as its page shows it."""
    from cifar.reports.files.run_page import Shown

    has_summary = (folder / "summary.json").is_file()
    summary = checked_summary(folder / "summary.json", warnings) if has_summary else {}
    raw = read_summary(folder)
    path = folder / "metrics.jsonl"
    config = summary.get("config", {})
    fields: dict[str, Any] = {
        "tta_accuracy": summary.get("test_tta_accuracy"),
        "tta": str(config.get("tta", "none")),
        "test_on": summary.get("test_on", {}),
    } | {key: value for key, value in changed.items() if key in ("tta_accuracy", "tta", "what", "test_on")}
    if error := summary.get("error"):
        warnings.append(f"The run {summary.get('status', 'failed')}: {error}")
    return Shown(
        title="/".join(folder.absolute().parts[-2:]),
        answers=answers,
        images=images,
        curves=read_columns(path) if path.is_file() else {},
        facts=[(name, fact_text(key, value)) for name, key in FACTS.items() if (value := raw.get(key)) is not None]
        + validation_facts(summary),
        command=run_command(summary.get("overrides", []), summary.get("flags", [])) if "overrides" in summary else "",
        **fields,
    )


def validation_facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the summary tells of the validation images, if some were held out."""
    if "val_accuracy" not in summary:
        return []
    facts = [("validation accuracy", percent(summary["val_accuracy"]))]
    if "best_val_epoch" in summary and "best_val_accuracy" in summary:
        facts.append(
            ("… at its best", f"{percent(summary['best_val_accuracy'])} after epoch {summary['best_val_epoch']}")
        )
    return facts


def fact_text(key: str, value: Any) -> str:
    """Return a fact of the summary in words."""
    if key == "train_seconds" and isinstance(value, (int, float)):
        return f"{value:,.0f} s" if value >= 10 else f"{value:.2f} s"
    return f"{value:,}" if isinstance(value, int) and key == "num_parameters" else str(value)
