"""torch.export's archive, for torch without this program: `cifar export RUN --format torch`."""

import io
import warnings

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from cifar.base.errors import UserError
from cifar.base.run_folder import to_json
from cifar.experiment.exports.exported import INPUT, Exported, Subject

METADATA = "metadata.json"  # the file in the archive


def refuse_missing() -> None:
    """Do nothing: torch is there."""


def export(subject: Subject) -> Exported:
    """Return the classifier as one archive; the facts are a file in it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how it stores tensors
        extra_files = {METADATA: to_json(subject.whole_facts(), indent=2)}
        torch.export.save(exported_program(subject), buffer, extra_files=extra_files)
    content = buffer.getvalue()
    with torch.no_grad():
        module = torch.export.load(io.BytesIO(content)).module()

    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = module(images)
        return found

    return Exported(content, answer, lambda path: lines(path, subject))


def exported_program(subject: Subject) -> ExportedProgram:
    """Return the classifier's graph for any number of images; raise `UserError` for a model that has none."""
    images = torch.zeros((2, 3, *subject.size), dtype=torch.uint8)
    shapes = {INPUT: {0: Dim("batch", min=1)}}
    try:
        with torch.no_grad():
            program = torch.export.export(subject.classifier, (images,), dynamic_shapes=shapes)
    except Exception as error:  # whatever torch objects to in a model's code
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"The model can't be exported, because its code can't be made a graph: {reason} "
            "Write its forward without branches that depend on values or on the number of images, "
            "or take its weights: --format safetensors."
        ) from error
    for part in program.graph_module.modules():
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # lines of source code with the paths of their files
    return program


def lines(path: str, subject: Subject) -> tuple[str, str, str]:
    """Return what uses the file."""
    return (
        "import torch",
        f'program = torch.export.load({path!r}, extra_files=(found := {{"{METADATA}": ""}}))',
        f'print(found["{METADATA}"], program.module()(torch.zeros({subject.shape}, dtype=torch.uint8)))',
    )
