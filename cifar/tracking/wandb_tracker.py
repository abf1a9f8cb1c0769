"""Runs on a Weights & Biases dashboard, online or offline: `cifar run tracker=wandb`."""

import glob
import logging
import os
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cifar.base.errors import UserError
from cifar.base.paths import absolute, python, shown
from cifar.tracking.predictions import Predictions
from cifar.tracking.tracking import NoTracker, RunInfo
from cifar.tracking.wandb_content import of_predictions, of_report
from cifar.tracking.wandb_names import (
    ID_LIMIT,
    Called,
    as_text,
    fitting,
    fitting_keys,
    fitting_tags,
    names_of_run,
    project_name,
)
from cifar.tracking.wandb_settings import (
    PROJECT,
    TIMEOUT_SECONDS,
    choose_mode,
    environment,
    refuse_timeout,
    settings_of_run,
)

if TYPE_CHECKING:
    from wandb import Settings

log = logging.getLogger(__name__)

# What the summary keeps of a curve, beside the last value.
SUMMARIES = {"val/accuracy": "max,last", "test/accuracy": "max,last", "val/loss": "min,last", "test/loss": "min,last"}


class WandbTracker(NoTracker):
    """A Weights & Biases run, in `dir`/wandb when offline.

    mode "auto" is online if there is an API key and the server answers within `timeout_seconds`, else offline;
    WANDB_MODE can ask for offline or disabled. "online" raises `UserError` where "auto" goes on offline. What is None
    is what the environment says: WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME, WANDB_RUN_GROUP, WANDB_JOB_TYPE, WANDB_NOTES,
    WANDB_TAGS, WANDB_INIT_TIMEOUT. In a sweep each run's own name follows the `name`, its own id that of WANDB_RUN_ID.
    A resumed run keeps its id.
    """

    def __init__(
        self,
        info: RunInfo,
        mode: str = "auto",
        project: str | None = None,
        entity: str | None = None,
        dir: str = ".",
        timeout_seconds: float | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        notes: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        if (run_id := os.environ.get("WANDB_RUN_ID")) and not info.is_resumed:
            info = replace(info, id=fitting(run_id if info.group is None else f"{run_id}-{info.id}", ID_LIMIT))
        super().__init__(info)
        if mode not in ("auto", "online", "offline"):
            raise UserError(f"tracker.mode={mode!r} is not possible: it takes auto, online, offline.")
        refuse_timeout(timeout_seconds)
        self.project = project_name(as_text("project", project))
        self.entity, self.notes = as_text("entity", entity), as_text("notes", notes)
        self.called = Called(as_text("name", name), as_text("group", group), as_text("job_type", job_type))
        if tags is not None and not isinstance(tags, list):
            raise UserError(f"tracker.tags={tags!r} is not possible: it takes a list such as [baseline,thesis].")
        self.mode, self.dir, self.timeout_seconds, self.tags = mode, dir, timeout_seconds, tags

    def __enter__(self) -> "WandbTracker":
        own = environment()
        import wandb

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # wandb's own telemetry complains when offline
        mode, reason = choose_mode(self.mode, own, self.seconds_to_wait(own))
        try:
            self.run = self.init(mode, own)
        except wandb.errors.Error as error:
            message = "the server refused the run: " + " ".join(str(error).split())
            if self.mode == "online":
                raise UserError(f"tracker.mode=online is not possible: {message}") from error
            mode, reason = "offline", message
            wandb.teardown()  # its service still holds the run's id
            self.run = self.init(mode, environment())
        self.run.__enter__()
        for name, kept in SUMMARIES.items():
            self.run.define_metric(name, summary=kept)
        for metrics, step in self.info.kept_metrics():
            if step >= self.run.step:  # the server has the others; nothing has them where the run goes on offline
                self.log(metrics, step)
        if mode != "disabled":
            self.put_aside_earlier()
        if mode == "offline":
            command, folder = f"{python()} -m wandb", shlex.quote(shown(Path(self.run.dir).parent))
            log.info(f"Weights & Biases: offline ({reason}). View: {command} leet {folder}")
            log.info(f"Upload to Weights & Biases: {command} sync {folder}")
        elif mode != "disabled":
            log.info(f"Weights & Biases: {self.run.url}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.finish(exit_code=0 if kind is None else 1)  # its own __exit__ prints a traceback for every error

    def seconds_to_wait(self, own: "Settings") -> float:
        """Return how long the server may take: as was typed, else as the environment says, else our default."""
        if self.timeout_seconds is not None:
            return self.timeout_seconds
        return own.init_timeout if "init_timeout" in own.model_fields_set else TIMEOUT_SECONDS

    def init(self, mode: str, own: "Settings") -> Any:
        """Start the run; a run of an earlier job that was left open is finished first."""
        import wandb

        folder = absolute(self.dir).resolve()  # wandb's own process may have another working folder
        folder.mkdir(parents=True, exist_ok=True)
        is_agents = own.sweep_id is not None  # an agent of its own sweeps has chosen these
        settings = {**settings_of_run(own), "init_timeout": self.seconds_to_wait(own)}
        return wandb.init(
            project=None if is_agents else self.project or own.project or PROJECT,
            entity=None if is_agents else self.entity,
            id=None if is_agents else self.info.id,
            resume="allow" if self.info.is_resumed and mode == "online" else None,
            **names_of_run(self.info, self.called, own),
            notes=self.notes,
            tags=None if self.tags is None else fitting_tags([*map(str, self.tags)]),
            config=self.info.config,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]  # wandb checks WANDB_MODE itself
            reinit="finish_previous",
            settings=wandb.Settings(**settings),
        )

    def put_aside_earlier(self) -> None:
        """Rename the offline parts of the run that this one, which has all their steps, replaces.

        Uploaded after it they would replace it on the server, also where the run went on online.
        """
        folder = Path(self.run.dir).parent
        for earlier in folder.parent.glob(f"offline-run-*-{glob.escape(self.info.id)}"):
            if earlier != folder and self.info.is_resumed:
                with suppress(OSError):
                    earlier.rename(earlier.with_name(f"replaced-{earlier.name}"))

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics such as "train/loss", known after `step` steps."""
        self.run.log(fitting_keys(metrics), step=step)

    def log_predictions(self, test: Predictions) -> None:
        """Record confusion matrix, accuracy per class and the most confidently wrong images with their pictures."""
        self.run.log(of_predictions(test))
        shown_accuracies = {f"test/class_accuracy/{name}": value for name, value in test.class_accuracies().items()}
        self.run.summary.update(fitting_keys(shown_accuracies))

    def log_report(self, folder: Path) -> None:
        """Record a sweep's report: the page, the figures as pictures, the table of points."""
        self.run.log(fitting_keys(of_report(folder)))

    def summarise(self, summary: dict[str, Any]) -> None:
        """Put the figures into the run's summary."""
        self.run.summary.update(summary)
