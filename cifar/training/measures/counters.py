"""How far a run has come and what it has measured so far. A checkpoint holds it whole."""

from dataclasses import asdict, dataclass, field
from typing import Any

from cifar.training.evaluating.evaluation import Result
from cifar.training.measures.tallies import Totals


@dataclass(frozen=True)
class Best:
    """The epoch, counted from 1, after which the validation accuracy was best for the first time."""

    epoch: int
    accuracy: float


@dataclass
class Counters:
    """What a run has done: `step` and `epoch` count those done, `index` the steps done of the running epoch."""

    step: int = 0
    epoch: int = 0
    index: int = 0
    num_images: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    train_loss: float | None = None  # the mean of the last whole epoch
    epoch_totals: Totals = field(default_factory=Totals)  # of the running epoch
    val_result: Result | None = None  # the last
    best: Best | None = None
    val_beside: dict[str, float] = field(default_factory=dict)  # the last of weights that are not the run's result

    @property
    def seconds(self) -> float:
        """Seconds of training and evaluation."""
        return self.train_seconds + self.eval_seconds

    def end_step(self) -> None:
        """Count a step."""
        self.step, self.index = self.step + 1, self.index + 1

    def end_epoch(self) -> None:
        """Count an epoch."""
        self.epoch, self.index, self.epoch_totals = self.epoch + 1, 0, Totals()

    def validated(self, result: Result, epoch: int, beside: dict[str, float]) -> bool:
        """Take down a result on the validation images, after the `epoch`-th epoch; return whether it is the best yet.

        `beside` has what is known of weights that are not the run's result.
        """
        self.val_result, self.val_beside = Result(result.loss, result.accuracy), beside
        is_best = self.best is None or result.accuracy > self.best.accuracy
        if is_best:
            self.best = Best(epoch, result.accuracy)
        return is_best

    def facts(self) -> dict[str, float | None]:
        """Return what the summary says of a run's way."""
        facts: dict[str, float | None] = {
            "epochs": self.epoch,
            "steps": self.step,
            "train_seconds": self.train_seconds,
            "eval_seconds": self.eval_seconds,
            "train_loss": self.train_loss,
        }
        if self.train_seconds:
            facts["images_per_second"] = self.num_images / self.train_seconds
        if self.val_result is not None and self.best is not None:
            facts |= {"val_loss": self.val_result.loss, "val_accuracy": self.val_result.accuracy}
            facts |= {"best_val_accuracy": self.best.accuracy, "best_val_epoch": self.best.epoch}
            facts |= {f"val_{name}": value for name, value in self.val_beside.items()}
        return facts

    def state_dict(self) -> dict[str, Any]:
        """Return numbers in dicts, which `from_state` takes."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Counters":
        """Return what `state_dict` was taken from."""
        counters = cls(**state)
        counters.epoch_totals = Totals(**state["epoch_totals"])
        counters.val_result = None if state["val_result"] is None else Result(**state["val_result"])
        has_best = state["best"] is not None and state["step"] > 0  # without a step it was that of other weights
        counters.best = Best(**state["best"]) if has_best else None
        return counters
