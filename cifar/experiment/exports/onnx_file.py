"""ONNX, for onnxruntime and whatever else reads it: `cifar export RUN --format onnx`."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cifar.base.errors import UserError
from cifar.experiment.exports.exported import INPUT, OUTPUT, Exported, Subject
from cifar.experiment.exports.facts import as_texts
from cifar.experiment.exports.torch_file import exported_program

if TYPE_CHECKING:
    from onnx import ModelProto


def refuse_missing() -> None:
    """Raise `UserError` if a package is not installed that this format needs."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--format onnx needs {error.name or 'a package'}, which is not installed: "
            "pip install 'cifar-framework[onnx]'"
        ) from error


def export(subject: Subject) -> Exported:
    """Return the classifier as one ONNX file; the facts are its metadata."""
    proto = to_proto(subject)
    for key, text in as_texts(subject.whole_facts()).items():
        proto.metadata_props.add(key=key, value=text)
    content = proto.SerializeToString()
    return Exported(content, reader(content), lambda path: lines(path, subject))


def to_proto(subject: Subject) -> "ModelProto":
    """Return the ONNX model, with nothing in it of the program and the folder that made it."""
    import onnx

    program = exported_program(subject)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT], external_data=False
        )
    assert made is not None
    proto: ModelProto = made.model_proto
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        del part.metadata_props[:]  # among them lines of source code with the paths of their files
    name = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == name:
                dimension.dim_param = "batch"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def reader(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return what answers with the file's content, in onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return answer


def lines(path: str, subject: Subject) -> tuple[str, str, str]:
    """Return what uses the file."""
    names = 'session.get_modelmeta().custom_metadata_map["class_names"]'
    answer = f'session.run(None, {{"{INPUT}": numpy.zeros({subject.shape}, "uint8")}})[0]'
    return (
        "import numpy, onnxruntime",
        f"session = onnxruntime.InferenceSession({path!r})",
        f"print({names}, {answer})",
    )
