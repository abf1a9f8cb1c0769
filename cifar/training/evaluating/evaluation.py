"""The evaluation of a model on a set of images: plain cross-entropy and accuracy, and with test-time augmentation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar.data.loader import Loader
from cifar.training.devices.device import Device
from cifar.training.devices.memory import explain_out_of_memory
from cifar.training.distributed import ALONE, Ranks
from cifar.training.evaluating.scores import Scores, joined, scores
from cifar.training.evaluating.tta import mean_logits
from cifar.training.progress import progress_bar


@dataclass(frozen=True)
class Result:
    """The result on one set of images: mean cross-entropy and fraction correct."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation(Result):
    """A result with the classes predicted, (N,), and the other scores of every image, (N,), all on the CPU.

    `tta_accuracy` is the fraction correct with test-time augmentation, None without.
    """

    predictions: Tensor
    confidences: Tensor
    losses: Tensor
    briers: Tensor
    tta_accuracy: float | None = None

    def facts(self) -> dict[str, float]:
        """Return what the summary says of the test images."""
        facts = {"test_loss": self.loss, "test_accuracy": self.accuracy}
        return facts if self.tta_accuracy is None else facts | {"test_tta_accuracy": self.tta_accuracy}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    device: Device,
    loader: Loader,
    tta: str = "none",
    after_batch: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Return the plain cross-entropy (no label smoothing) and accuracy over all of the loader's images.

    Of several `ranks` each evaluates its share, and all have the result. With test-time augmentation `tta` the accuracy
    of the averaged logits is there too. The model is left in evaluation mode.
    """
    model.eval()
    loss = torch.zeros((), device=device.torch_device)
    parts: list[Scores] = []
    num_correct_tta = torch.zeros((), dtype=torch.int64, device=device.torch_device)
    for inputs, labels in progress_bar(loader.epoch(0), "Evaluating", len(loader)):
        if len(labels):  # else the other ranks have all images of the last batch
            with explain_out_of_memory("eval_batch_size", len(labels)), device.autocast():
                logits, averaged = mean_logits(model, inputs, tta)
            num_correct_tta += (averaged.argmax(dim=1) == labels).sum()
            loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            parts.append(scores(logits, labels))
        after_batch()
    num_images = len(loader.labels)
    found = joined(parts or [scores(loss.new_zeros((0, 1)), loader.labels[:0])])
    if ranks.are_several:
        ranks.add([loss, num_correct_tta])
        found = Scores(*(ranks.placed(column, loader.places(), num_images) for column in found))
    correct = int((found.predictions == loader.labels).sum())  # waits for the device
    tta_accuracy = None if tta == "none" else int(num_correct_tta) / num_images
    columns = {name: column.cpu() for name, column in found._asdict().items()}
    return Evaluation(float(loss) / num_images, correct / num_images, tta_accuracy=tta_accuracy, **columns)
