"""Save checkpoints atomically; load weights from this project's files and from bare state_dicts."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar.errors import UserError
from cifar.run_folder import write_atomically

NUM_NAMED = 3  # keys that an error message names before it says how many more there are


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, which `torch.load(…, weights_only=True)` must be able to read; "model" is its state_dict."""
    write_atomically(path, lambda file: torch.save(content, file))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the dict in the file, its tensors on the CPU; raise `UserError` if there is none or it needs code."""
    if not path.is_file():
        raise UserError(f"init_from={str(path)!r}: there is no such file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"init_from={str(path)!r} is refused: it is not a checkpoint or holds more than tensors and plain values, "
            "and such a file could run code. Save it again as torch.save(model.state_dict(), PATH)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"init_from={str(path)!r} can't be read, it may be cut or damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"init_from={str(path)!r} holds a {type(content).__name__}, not a state_dict.")
    return content


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint of this project, or a bare state_dict, into `model`.

    Raises `UserError` naming the first few keys that are missing, unexpected or of another shape; the model's weights
    are then undefined.
    """
    content = read_checkpoint(path)
    state = content["model"] if isinstance(content.get("model"), dict) else content
    problems = []
    try:
        result = model.load_state_dict(state, strict=False)
        problems += [f"it lacks {_some(result.missing_keys)}"] if result.missing_keys else []
        problems += [f"it has {_some(result.unexpected_keys)} too many"] if result.unexpected_keys else []
    except RuntimeError:
        own = model.state_dict()
        problems.append("its shapes differ: " + _some([
            f"{key} is {_shape(value)} instead of {_shape(own[key])}"
            for key, value in state.items() if key in own and _shape(value) != _shape(own[key])
        ]))  # fmt: skip
    if problems:
        raise UserError(
            f"init_from={str(path)!r} does not fit the {type(model).__name__}: {'; '.join(problems)}.\n"
            "It is probably a checkpoint of another model or of another number of classes: check model=…"
        )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
