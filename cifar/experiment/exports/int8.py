"""An ONNX file with 8-bit convolutions, for CPUs: `cifar export RUN --format onnx --int8`."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from cifar.base.errors import UserError
from cifar.data.images import Images
from cifar.experiment.exports.exported import INPUT, Exported
from cifar.experiment.exports.onnx_file import reader

NUM_CALIBRATION = 300  # training images by which the ranges of the activations are found
BATCH = 100


def quantised(exported: Exported, images: Images) -> tuple[Exported, dict[str, float]]:
    """Return the ONNX file with 8-bit convolutions, and the test accuracy of both: `float32` and `int8`.

    Ranges come from training images. The first convolution stays as it is, because pixels need its precision, and so
    does the classifier. Weights have 7 bits, because processors without VNNI instructions saturate sums of 8.
    """
    content = convolutions_in_int8(exported.content, images.train_images[:NUM_CALIBRATION])
    answers = {"float32": exported.answer, "int8": reader(content)}
    found = {name: accuracy(answer, images.test_images, images.test_labels) for name, answer in answers.items()}
    content = with_facts(content, found)
    return Exported(content, reader(content), exported.lines), found


def convolutions_in_int8(content: bytes, images: Tensor) -> bytes:
    """Return the ONNX model in `content` with the convolutions but the first in 8 bits, calibrated by images."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.waiting: Iterator[Tensor] = iter(images.split(BATCH))

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.waiting, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, made = (Path(folder) / name for name in ("given.onnx", "prepared.onnx", "made.onnx"))
        given.write_bytes(content)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        if len(convolutions) < 2:
            raise UserError("--int8 is not possible: the model has no convolution behind the first.")
        quantize_static(
            prepared,
            made,
            Batches(),
            nodes_to_quantize=convolutions[1:],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return made.read_bytes()


def accuracy(answer: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Return the fraction of the images that are classified as labelled."""
    predicted = torch.cat([answer(batch).argmax(dim=1) for batch in images.split(BATCH)])
    return float((predicted == labels).double().mean())


def with_facts(content: bytes, accuracies: dict[str, float]) -> bytes:
    """Return the ONNX model with what was measured in its metadata."""
    import onnx

    proto = onnx.load_model_from_string(content)
    for name, value in accuracies.items():
        proto.metadata_props.add(key=f"test_accuracy_{name}", value=str(value))
    return bytes(proto.SerializeToString())
