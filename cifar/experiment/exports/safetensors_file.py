"""Weights as safetensors, with all that belongs to them in the header: `cifar export RUN --format safetensors`."""

import json
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from cifar.experiment.exports.exported import Classifier, Exported, Subject
from cifar.experiment.exports.facts import as_texts


def refuse_missing() -> None:
    """Do nothing: safetensors is there."""


def export(subject: Subject) -> Exported:
    """Return the model's weights as one file; the header has the facts."""
    state = subject.classifier.model.state_dict()
    facts = {
        "format": "pt",
        "input": "(images / 255 - mean) / std: float32 (N, 3, {}, {}), RGB".format(*subject.size),
        "output": f"logits: float32 (N, {len(subject.facts['class_names'])})",
        **subject.facts,
    }
    content = save({key: value.clone().contiguous() for key, value in state.items()}, as_texts(facts))
    return Exported(content, reader(content, subject.new_model), lambda path: lines(path, subject))


def header(content: bytes) -> dict[str, Any]:
    """Return the metadata in a file's header."""
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, Any] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata


def reader(content: bytes, new_model: Callable[[], nn.Module]) -> Callable[[Tensor], Tensor]:
    """Return what answers with the file's content alone: its weights, and the normalisation in its header."""
    model, found = new_model(), header(content)
    model.load_state_dict(load(content))
    classifier = Classifier(model, json.loads(found["mean"]), json.loads(found["std"])).eval()

    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode():
            probabilities: Tensor = classifier(images)
        return probabilities

    return answer


def lines(path: str, subject: Subject) -> tuple[str, str, str]:
    """Return what uses the file, with the code of the model."""
    facts = subject.facts
    mean, std = (f"torch.tensor({facts[key]}).view(-1, 1, 1)" for key in ("mean", "std"))
    return (
        "import hydra.utils, safetensors.torch, torch",
        f'model = hydra.utils.instantiate({facts["model"]!r}, _convert_="all").eval(); '
        f"safetensors.torch.load_model(model, {path!r})",
        f"print({facts['class_names']}, model((torch.zeros({subject.shape}) / 255 - {mean}) / {std}).softmax(dim=1))",
    )
