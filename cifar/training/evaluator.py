"""The evaluation of a run's weights: those of its last step, and averaged ones beside them if there are any."""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from cifar.data.loader import Loader
from cifar.training.averaging.averages import Average
from cifar.training.averaging.batch_statistics import recompute
from cifar.training.evaluating.evaluation import Evaluation, evaluate
from cifar.training.measures.counters import Counters
from cifar.training.steps.step import TrainingStep

log = logging.getLogger(__name__)

Metrics = dict[str, float]


class Evaluator:
    """Evaluate the weights of a run of `epochs`, and count the time.

    Which of them are the run's result was chosen before it began: the others are validated beside them, and are never
    tested. With `keep_best`, `best` holds, on the CPU, the result's weights at the best validation accuracy so far.
    """

    def __init__(
        self,
        step: TrainingStep,
        train_loader: Loader,
        epochs: int,
        average: Average,
        keep_best: bool,
        between_batches: Callable[[], None],
    ) -> None:
        self.step, self.train_loader, self.keep_best = step, train_loader, keep_best
        self.between_batches = between_batches
        self.average = average.over(step.model, epochs * len(train_loader), len(train_loader))
        self.best: dict[str, Tensor] | None = None

    @property
    def weights(self) -> dict[str, nn.Module]:
        """The models that there are by now, that of the run's result first."""
        models = {"last": self.step.model}
        if self.average is None or not self.average.has_begun:
            return models
        averaged = {"averaged": self.average.model}
        return averaged | models if self.average.is_result else models | averaged

    @property
    def result(self) -> nn.Module:
        """The model of the run's result."""
        return next(iter(self.weights.values()))

    def after_step(self, step: int) -> None:
        """Take the weights after the `step`-th step into the average, if there is one."""
        if self.average is not None:
            self.average.after_step(self.step.model, step)

    def prepare(self, counters: Counters) -> None:
        """Have averaged weights ready to be used: with batch statistics of their own."""
        if self.average is not None and self.average.has_begun and not self.average.is_ready:
            start = perf_counter()
            recompute(self.average.model, self.train_loader, counters.epoch, self.step)
            self.average.is_ready = True
            counters.eval_seconds += perf_counter() - start

    def validate(self, loader: Loader, counters: Counters, epoch: int) -> Metrics:
        """Evaluate on the validation images after the `epoch`-th epoch."""
        self.prepare(counters)
        results = {name: self.evaluate(model, loader, counters) for name, model in self.weights.items()}
        (chosen, result), *beside = results.items()
        log.info(f"Accuracy of the model on the validation images: {100 * result.accuracy:.2f} %")
        facts: Metrics = {}
        for name, other in beside:
            words = "averaged weights" if name == "averaged" else "the weights of the last step"
            log.info(f"… with {words}: {100 * other.accuracy:.2f} %")
            facts |= {f"{name}_loss": other.loss, f"{name}_accuracy": other.accuracy}
        if counters.validated(result, epoch, facts) and self.keep_best:
            model = self.weights[chosen]
            self.best = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
        facts |= {"loss": result.loss, "accuracy": result.accuracy}
        return {f"val/{name}": value for name, value in facts.items()}

    def test(self, loader: Loader, tta: str, counters: Counters) -> tuple[Evaluation, Metrics]:
        """Evaluate the run's result on the test images: once, when all choices are made."""
        self.prepare(counters)
        result = self.evaluate(self.result, loader, counters, tta)
        metrics = {"test/loss": result.loss, "test/accuracy": result.accuracy}
        log.info(f"Accuracy of the model on the test images: {100 * result.accuracy:.2f} %")
        if result.tta_accuracy is not None:
            metrics["test/tta_accuracy"] = result.tta_accuracy
            log.info(f"… with test-time augmentation ({tta}): {100 * result.tta_accuracy:.2f} %")
        return result, metrics

    def evaluate(self, model: nn.Module, loader: Loader, counters: Counters, tta: str = "none") -> Evaluation:
        """Evaluate one model on the loader's images."""
        start = perf_counter()
        result = evaluate(model, self.step.device, loader, tta, self.between_batches, self.step.ranks)
        counters.eval_seconds += perf_counter() - start
        return result

    def facts(self) -> dict[str, str]:
        """Return what the summary says of the weights that are the run's result."""
        return {} if self.average is None else {"weights": next(iter(self.weights))}

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"average": {} if self.average is None else self.average.state_dict(), "best_model": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.best = state["best_model"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])
