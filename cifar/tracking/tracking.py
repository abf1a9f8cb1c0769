"""Where metrics go: always to the run's metrics.jsonl, and to what a dashboard's tracker makes of them.

`cifar run tracker=none` records in files only; the other trackers have a module each.
"""

import json
import logging
import math
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from cifar.base.errors import UserError
from cifar.base.in_place import Watched, no_links
from cifar.base.run_folder import to_json
from cifar.base.signals import Interrupted
from cifar.tracking.predictions import Predictions

log = logging.getLogger(__name__)

NOT_METRICS = ("step", "epoch", "time_seconds")  # of a line in metrics.jsonl
CLOSING_SECONDS = 5.0  # what a dashboard gets to close itself after Ctrl-C or SIGTERM


class MetricsFile:
    """Append one JSON object per call to a file, with the seconds of this run so far.

    `state` is what a later object needs to go on from there: it cuts off the lines that came after, a torn one among
    them, because a resumed run writes them again.
    """

    def __init__(self, path: Path, state: dict[str, float] | None = None) -> None:
        self.path = path
        self.size, seconds = (int(state["size"]), state["seconds"]) if state else (0, 0.0)
        self.start = perf_counter() - seconds
        with open(path, "ab", opener=no_links) as file:
            if file.tell() < self.size:
                log.warning(f"{path} is shorter than when the checkpoint was saved: some of its lines are lost.")
                self.size = path.read_bytes().rfind(b"\n") + 1
            file.truncate(self.size)
        self.file = Watched(path)

    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """Append `metrics`, known after `step` steps, in or at the end of the `epoch`-th epoch (from 1)."""
        seconds = round(perf_counter() - self.start, 3)
        line = to_json({"step": step, "epoch": epoch, "time_seconds": seconds, **metrics}).encode() + b"\n"
        try:
            with self.file.append() as file:
                if file.tell() != self.size:
                    raise UserError(f"{self.path} has been changed by another program. The run stops.")
                file.write(line)
        except OSError as error:
            raise UserError(f"{self.path} can't be written: {error.strerror or error}. The run stops.") from error
        self.size += len(line)

    def state(self) -> dict[str, float]:
        """Return where the file ends, after making sure that it is on the disk."""
        with self.file.append() as file:
            os.fsync(file.fileno())
        return {"size": self.size, "seconds": perf_counter() - self.start}


@dataclass(frozen=True)
class RunInfo:
    """What a dashboard shows of a run besides its metrics; the runs of one sweep share a group.

    `id` stays the same when the run is resumed, and so does the `origin`: how the command line described the run.
    `folder` is where the run's files are; the first `kept_bytes` of its metrics.jsonl are what a resumed run goes on
    from. `job_type` tells a sweep's report from its runs.
    """

    name: str
    group: str | None
    config: dict[str, Any]
    origin: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    is_resumed: bool = False
    folder: Path | None = None
    kept_bytes: int = 0
    job_type: str | None = None

    def kept_metrics(self) -> Iterator[tuple[dict[str, float], int]]:
        """Yield the metrics that a resumed run keeps, NaN for what is not finite, each with its step."""
        if not self.is_resumed or self.folder is None or not (path := self.folder / "metrics.jsonl").is_file():
            return
        kept = path.read_bytes()[: self.kept_bytes]
        for line in kept[: kept.rfind(b"\n") + 1].splitlines():  # the file may have lost its end
            entry = json.loads(line)
            metrics = {key: value for key, value in entry.items() if key not in NOT_METRICS}
            yield {key: math.nan if value is None else value for key, value in metrics.items()}, entry["step"]


class NoTracker:
    """Record nothing; the base of every tracker. Leaving the `with` block closes it, also after an error."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info

    def __enter__(self) -> "NoTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics such as "train/loss", known after `step` steps."""

    def log_predictions(self, test: Predictions) -> None:
        """Record what the run says of the test images: confusion matrix, accuracy per class, the worst mistakes."""

    def summarise(self, summary: dict[str, Any]) -> None:
        """Record the run's final figures."""

    def log_report(self, folder: Path) -> None:
        """Record a sweep's report: those of report.html, report.md, report.csv and *.png that are in its folder."""


class Guard(NoTracker):
    """Pass everything on to `tracker` until it fails; then warn once, and the training goes on without it.

    A `UserError` on entering is the user's to mend and raised. After Ctrl-C or SIGTERM the tracker gets
    `CLOSING_SECONDS` to close; if they do not suffice, the exception's `is_hasty` tells.
    """

    def __init__(self, tracker: NoTracker) -> None:
        super().__init__(tracker.info)
        self.tracker: NoTracker | None = tracker

    def __enter__(self) -> "Guard":
        self._attempt(lambda tracker: tracker.__enter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        def close() -> None:
            self._attempt(lambda tracker: tracker.__exit__(kind, error, trace))

        if not isinstance(error, Interrupted):
            close()
            return
        thread = threading.Thread(target=close, daemon=True)
        thread.start()
        thread.join(CLOSING_SECONDS)
        error.is_hasty = thread.is_alive()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics such as "train/loss", known after `step` steps."""
        self._attempt(lambda tracker: tracker.log(metrics, step))

    def log_predictions(self, test: Predictions) -> None:
        """Record what the run says of the test images: confusion matrix, accuracy per class, the worst mistakes."""
        self._attempt(lambda tracker: tracker.log_predictions(test))

    def summarise(self, summary: dict[str, Any]) -> None:
        """Record the run's final figures."""
        self._attempt(lambda tracker: tracker.summarise(summary))

    def log_report(self, folder: Path) -> None:
        """Record a sweep's report: those of report.html, report.md, report.csv and *.png that are in its folder."""
        self._attempt(lambda tracker: tracker.log_report(folder))

    def _attempt(self, call: Callable[[NoTracker], object]) -> None:
        if self.tracker is None:
            return
        try:
            call(self.tracker)
        except UserError:
            raise
        except Exception as error:
            self.tracker = None
            log.warning(
                f"The dashboard failed and gets nothing more from this run; metrics.jsonl does. "
                f"It said: {type(error).__name__}: {' '.join(str(error).split())}"
            )
