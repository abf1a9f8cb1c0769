"""Runs on a Weights & Biases dashboard, online or offline: `cifar run tracker=wandb`."""

import csv
import glob
import logging
import os
import re
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
from cifar.tracking.wandb_settings import (
    ID_LIMIT,
    NAME_LIMIT,
    OLD_MODES,
    PROJECT,
    TIMEOUT_SECONDS,
    answers,
    environment,
    fitting,
    fitting_keys,
    fitting_tags,
    has_api_key,
    settings_of_run,
)

if TYPE_CHECKING:
    from wandb import Settings

log = logging.getLogger(__name__)

LONGEST_SECONDS = 86_400  # to wait for the server
NUM_WRONG = 32  # most confidently wrong images that are shown
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
        if timeout_seconds is not None and not is_timeout(timeout_seconds):
            raise UserError(
                f"tracker.timeout_seconds={timeout_seconds!r} is not possible: it takes a positive number, "
                f"at most {LONGEST_SECONDS}."
            )
        given = {"project": project, "entity": entity, "name": name, "group": group, "job_type": job_type}
        self.project, self.entity, self.name, self.group, self.job_type, self.notes = (
            as_text(key, value) for key, value in {**given, "notes": notes}.items()
        )
        project = self.project
        if project is not None and (len(project) > NAME_LIMIT or re.search(r"[/\\#?%:]", project) or not project):
            raise UserError(
                f"tracker.project={project!r} is not possible: it takes a name of at most {NAME_LIMIT} characters "
                "without / \\ # ? % :"
            )
        if tags is not None and not isinstance(tags, list):
            raise UserError(f"tracker.tags={tags!r} is not possible: it takes a list such as [baseline,thesis].")
        self.mode, self.dir, self.timeout_seconds, self.tags = mode, dir, timeout_seconds, tags

    def __enter__(self) -> "WandbTracker":
        own = environment()
        import wandb

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # wandb's own telemetry complains when offline
        mode, reason = self.choose_mode(own)
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

    def choose_mode(self, own: "Settings") -> tuple[str, str]:
        """Return the mode for wandb.init, and why; `own` is what the environment says."""
        if self.mode == "offline":
            return "offline", "tracker.mode=offline"
        wanted = OLD_MODES.get(own.mode, own.mode) if self.mode == "auto" else self.mode
        if wanted in ("offline", "disabled"):
            return wanted, f"WANDB_MODE={own.mode}" if "WANDB_MODE" in os.environ else "wandb's settings say so"
        if not has_api_key(own.base_url):
            problem = f"no API key; {python()} -m wandb login stores one"
        elif not answers(own.base_url, self.seconds_to_wait(own), is_verified=not own.insecure_disable_ssl):
            problem = f"no answer from {own.base_url}"
        else:
            return wanted, "an API key is configured"
        if self.mode == "online":
            raise UserError(
                f"tracker.mode=online is not possible: {problem}. Use tracker.mode=offline or tracker=none."
            )
        return "offline", problem

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
            **self.names(own),
            notes=self.notes,
            tags=None if self.tags is None else fitting_tags([*map(str, self.tags)]),
            config=self.info.config,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]  # wandb checks WANDB_MODE itself
            reinit="finish_previous",
            settings=wandb.Settings(**settings),
        )

    def names(self, own: "Settings") -> dict[str, Any]:
        """Return what the run is called, no longer than the service takes: its name, its group and its kind."""
        info, name = self.info, self.name or own.run_name
        if name and info.group is not None:
            name = f"{name} {info.name}"
        found = {
            "name": name or info.name,
            "group": self.group or own.run_group or info.group,
            "job_type": info.job_type or self.job_type or own.run_job_type,
        }
        return {key: text and fitting(text, NAME_LIMIT) for key, text in found.items()}

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
        import wandb

        names = test.names()
        matrix = wandb.plot.confusion_matrix(
            y_true=test.labels.tolist(), preds=test.predicted.tolist(), class_names=names, title="Test images"
        )
        accuracies = test.class_accuracies()
        classes = wandb.Table(columns=["class", "accuracy"], data=[[*pair] for pair in accuracies.items()])
        wrong = wandb.Table(columns=["picture", "class", "predicted", "confidence"])
        pictures = []  # beside the table: an offline run holds only these where wandb leet finds them
        for index in test.most_confidently_wrong(NUM_WRONG):
            actual, predicted = (names[int(label[index])] for label in (test.labels, test.predicted))
            confidence = float(test.confidences[index])
            caption = f"{actual}, predicted {predicted} ({100 * confidence:.1f} %)"
            pictures.append(wandb.Image(test.images[index].permute(1, 2, 0).numpy(), caption=caption))  # (H, W, C)
            wrong.add_data(pictures[-1], actual, predicted, confidence)
        self.run.log({
            "test/confusion_matrix": matrix,
            "test/class_accuracy": wandb.plot.bar(classes, "class", "accuracy", title="Accuracy on the test images"),
            "test/most_confidently_wrong": wrong,
            "test/most_confidently_wrong_pictures": pictures,
        })  # fmt: skip
        shown_accuracies = {f"test/class_accuracy/{name}": value for name, value in accuracies.items()}
        self.run.summary.update(fitting_keys(shown_accuracies))

    def log_report(self, folder: Path) -> None:
        """Record a sweep's report: the page, the figures as pictures, the table of points."""
        import wandb

        content: dict[str, Any] = {}
        if (page := folder / "report.html").is_file():
            content["report/page"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
        for figure in sorted(folder.glob("*.png")):
            content[f"report/{figure.stem}"] = wandb.Image(str(figure))
        if (table := folder / "report.csv").is_file():
            heading, *rows = csv.reader(table.read_text(encoding="utf-8").splitlines())
            content["report/points"] = wandb.Table(columns=[*heading], data=rows)
        self.run.log(fitting_keys(content))

    def summarise(self, summary: dict[str, Any]) -> None:
        """Put the figures into the run's summary."""
        self.run.summary.update(summary)


def is_timeout(value: Any) -> bool:
    """Return whether the value can be the seconds to wait for a server."""
    return isinstance(value, (int, float)) and 0 < value <= LONGEST_SECONDS


def as_text(key: str, value: Any) -> str | None:
    """Return a value of the configuration as text: a project may be called 2026; raise `UserError` for a list."""
    if isinstance(value, (list, dict)):
        raise UserError(f"tracker.{key}={value!r} is not possible: it takes a text.")
    return None if value is None else str(value)
