"""Runs in TensorBoard, in their own folders: `cifar run tracker=tensorboard`, `tensorboard --logdir outputs`."""

import math
from pathlib import Path
from types import TracebackType
from typing import Any

from cifar.base.errors import UserError
from cifar.base.nested import flatten
from cifar.tracking.predictions import Predictions
from cifar.tracking.tracking import NoTracker

NUM_WRONG = 32  # most confidently wrong images that are shown


class TensorboardTracker(NoTracker):
    """Event files in the run's folder, under tensorboard/.

    A resumed run writes them anew from what it keeps of metrics.jsonl, so that no point is doubled or left over.
    """

    def __enter__(self) -> "TensorboardTracker":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "tracker=tensorboard needs a package that is not installed: pip install 'cifar-framework[tb]'"
            ) from error
        folder = (self.info.folder or Path()) / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer, self.last_step = SummaryWriter(str(folder)), 0
        for metrics, step in self.info.kept_metrics():
            self.log(metrics, step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics such as "train/loss", known after `step` steps."""
        for key, value in metrics.items():
            self.writer.add_scalar(key, math.nan if value is None else value, step)
        self.last_step = step

    def log_predictions(self, test: Predictions) -> None:
        """Record confusion matrix, accuracy per class and the most confidently wrong images."""
        for name, accuracy in test.class_accuracies().items():
            self.writer.add_scalar(f"test/class_accuracy/{name}", accuracy, self.last_step)
        self.writer.add_figure("test/confusion_matrix", draw_confusion_matrix(test), self.last_step)
        if indices := test.most_confidently_wrong(NUM_WRONG):
            names = test.names()
            self.writer.add_images("test/most_confidently_wrong", test.images[indices], self.last_step)
            rows = [
                f"| {names[int(test.labels[index])]} | {names[int(test.predicted[index])]} | "
                f"{100 * float(test.confidences[index]):.1f} % |"
                for index in indices
            ]
            text = "\n".join(["| class | predicted | confidence |", "| --- | --- | --- |", *rows])
            self.writer.add_text("test/most_confidently_wrong", text, self.last_step)

    def summarise(self, summary: dict[str, Any]) -> None:
        """Record the configuration with the run's accuracies, for the page that compares runs."""
        from torch.utils.tensorboard.summary import hparams

        settings = {
            key: value for key, value in flatten(self.info.config).items() if isinstance(value, (bool, int, float, str))
        }
        results = {
            f"result/{key}": summary[key] for key in ("val_accuracy", "test_accuracy") if summary.get(key) is not None
        }
        for part in hparams(settings, results):  # add_hparams would open a second file
            self.writer._get_file_writer().add_summary(part)
        for key, value in results.items():
            self.writer.add_scalar(key, value, self.last_step)

    def log_report(self, folder: Path) -> None:
        """Record a sweep's report: report.md as text, the figures as pictures."""
        import numpy as np
        from PIL import Image

        if (text := folder / "report.md").is_file():
            self.writer.add_text("report", text.read_text(encoding="utf-8"))
        for figure in sorted(folder.glob("*.png")):
            picture = np.asarray(Image.open(figure).convert("RGB"))  # (H, W, C)
            self.writer.add_image(f"report/{figure.stem}", picture, dataformats="HWC")


def draw_confusion_matrix(test: Predictions) -> Any:
    """Return a matplotlib figure of the confusion matrix: rows are the classes, columns the predicted ones."""
    from matplotlib.figure import Figure

    matrix, names = test.confusion_matrix(), test.names()
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(matrix, cmap="Blues")
    for row, counts in enumerate(matrix.tolist()):
        for column, count in enumerate(counts):
            is_dark = count > int(matrix.max()) / 2
            axes.text(
                column, row, str(count), ha="center", va="center", fontsize=8, color="white" if is_dark else "black"
            )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    return figure
