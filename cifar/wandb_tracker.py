"""Runs on a Weights & Biases dashboard, online or offline: `python run.py tracker=wandb`."""

import atexit
import csv
import http.client
import logging
import netrc
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from cifar.errors import UserError
from cifar.paths import absolute, has_home, shown
from cifar.predictions import Predictions
from cifar.tracking import NoTracker, RunInfo

log = logging.getLogger(__name__)

NUM_WRONG = 32  # most confidently wrong images that are shown
# What the summary keeps of a curve, beside the last value.
SUMMARIES = {"val/accuracy": "max,last", "test/accuracy": "max,last", "val/loss": "min,last", "test/loss": "min,last"}


class WandbTracker(NoTracker):
    """A Weights & Biases run, in `dir`/wandb when offline.

    mode "auto" is online if an API key is configured (WANDB_API_KEY or netrc) and the server answers within
    `timeout_seconds`, else offline; the environment variable WANDB_MODE can ask for offline or disabled. "online"
    raises `UserError` where "auto" goes on offline.
    """

    def __init__(
        self, info: RunInfo, mode: str, project: str, entity: str | None, dir: str, timeout_seconds: float
    ) -> None:
        super().__init__(info)
        if mode not in ("auto", "online", "offline"):
            raise UserError(f"tracker.mode={mode!r} is not possible: it takes auto, online, offline.")
        if not timeout_seconds > 0:
            raise UserError(f"tracker.timeout_seconds={timeout_seconds!r} is not possible: it takes a positive number.")
        self.mode, self.project, self.entity, self.dir = mode, project, entity, dir
        self.timeout_seconds = timeout_seconds

    def __enter__(self) -> "WandbTracker":
        do_without_home()
        import wandb  # a second, so only when used

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # wandb's own telemetry complains when offline
        mode, reason = self.choose_mode()
        try:
            self.run = self.init(mode)
        except wandb.errors.Error as error:
            message = "the server refused the run: " + " ".join(str(error).split())
            if self.mode == "online":
                raise UserError(f"tracker.mode=online is not possible: {message}") from error
            mode, reason = "offline", message
            wandb.teardown()  # its service still holds the run's id
            self.run = self.init(mode)
        self.run.__enter__()
        for name, kept in SUMMARIES.items():
            self.run.define_metric(name, summary=kept)
        if mode == "online":
            log.info(f"Weights & Biases: {self.run.url}")
        elif mode == "offline":
            folder = shown(Path(self.run.dir).parent)
            log.info(f"Weights & Biases: offline ({reason}). View: wandb leet {folder}  Upload: wandb sync {folder}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.finish(exit_code=0 if kind is None else 1)  # its own __exit__ prints a traceback for every error

    def choose_mode(self) -> tuple[str, str]:
        """Return the mode for wandb.init, and why."""
        if self.mode == "offline":
            return "offline", "tracker.mode=offline"
        wanted = os.environ.get("WANDB_MODE", "") if self.mode == "auto" else self.mode
        if wanted in ("offline", "disabled"):
            return wanted, f"WANDB_MODE={wanted}"
        if wanted not in ("", "online"):
            raise UserError(f"WANDB_MODE={wanted} is not possible: it takes online, offline, disabled.")
        url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        if not has_api_key(url):
            problem = "no API key; wandb login stores one"
        elif not answers(url, self.timeout_seconds):
            problem = f"no answer from {url}"
        else:
            return "online", "an API key is configured"
        if self.mode == "online":
            raise UserError(
                f"tracker.mode=online is not possible: {problem}. Use tracker.mode=offline or tracker=none."
            )
        return "offline", problem

    def init(self, mode: str) -> Any:
        """Start the run; a run of an earlier job that was left open is finished first."""
        import wandb

        folder = absolute(self.dir).resolve()  # wandb's own process may have another working folder
        folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=self.project,
            entity=self.entity,
            id=None if "WANDB_SWEEP_ID" in os.environ else self.info.id,  # its agent has chosen one
            resume="allow" if self.info.is_resumed and mode == "online" else None,
            name=self.info.name,
            group=self.info.group,
            job_type=self.info.job_type,
            config=self.info.config,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]  # wandb checks WANDB_MODE itself
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off", init_timeout=self.timeout_seconds),
        )

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics such as "train/loss", known after `step` steps."""
        self.run.log(metrics, step=step)

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
        self.run.summary.update({f"test/class_accuracy/{name}": value for name, value in accuracies.items()})

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
        self.run.log(content)

    def summarise(self, summary: dict[str, Any]) -> None:
        """Put the figures into the run's summary."""
        self.run.summary.update(summary)


def do_without_home() -> None:
    """Give the library a place for its own files until the process ends, if the user has no home to keep them in."""
    if not has_home() and "WANDB_CACHE_DIR" not in os.environ:
        place = tempfile.mkdtemp(prefix="cifar-wandb-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ["WANDB_CACHE_DIR"] = place
        os.environ.setdefault("XDG_DATA_HOME", place)  # it is asked for even beside WANDB_DATA_DIR
        if not os.path.isdir(os.path.expanduser("~")):
            os.environ.setdefault("WANDB_CONFIG_DIR", place)


def has_api_key(url: str) -> bool:
    """Return whether a key for the server is in WANDB_API_KEY or in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = os.environ.get("NETRC") or next(
        (path for path in map(os.path.expanduser, ("~/.netrc", "~/_netrc")) if os.path.isfile(path)), None
    )
    try:
        return path is not None and netrc.netrc(path).authenticators(urlsplit(url).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def answers(url: str, timeout_seconds: float) -> bool:
    """Return whether a web server answers at `url` at all, be it with an error."""
    try:
        urllib.request.urlopen(url, timeout=timeout_seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True
