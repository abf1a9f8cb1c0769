"""Weights from a file: of a run's checkpoint, or in the forms in which others save a state_dict.

It may stand in a dict under any name (`net`, `state_dict`, `model_state_dict`, …), its keys behind what torch.compile,
DistributedDataParallel or Lightning put before them, or in a .safetensors file.
"""

import copy
import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.base.sealed import DamagedError, read_checkpoint
from cifar.experiment.stored.ancestry import Ancestry, seen_by
from cifar.training.checkpoint import load_state

log = logging.getLogger(__name__)

OWN = {"config", "config_hash", "model", "steps_per_epoch"}  # what every checkpoint of a run has
COMPILED = re.compile(r"(?:^|(?<=\.))_orig_mod\.")  # before the keys of every module that was compiled
PREFIXES = ("module.", "model.", "net.")  # before all keys
COUNTER = "num_batches_tracked"  # batch norm's, idle beside a momentum; files of old versions lack it
MAX_DEPTH = 3  # of dicts in dicts


@dataclass(frozen=True)
class Found:
    """A state_dict in a file, the keys that lead to it, and what was taken off its own keys."""

    place: tuple[str, ...]
    state: dict[str, Tensor]
    prefixes: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"taken out of {'.'.join(self.place)!r}"] if self.place else []
        words += [f"{prefix!r} taken off its keys" for prefix in self.prefixes]
        return ", ".join(words)


def load_weights(model: nn.Module, path: Path, head: Sequence[str] = ()) -> Ancestry | None:
    """Load the weights in a file into `model`, and say what was taken off them.

    The weights of the `head`, by their names, stay as they are. Returns the runs that trained the weights, None if the
    file does not tell. Raises `UserError` if the file holds none, several that fit, or as `load_state` does.
    """
    try:
        content: dict[str, Any] = load_file(path) if is_safetensors(path) else read_checkpoint(path)
    except SafetensorError as error:
        raise DamagedError(f"init_from={str(path)!r} can't be read, it may be cut or damaged: {error}") from error
    except UserError as error:
        raise UserError(f"init_from={error}") from error
    origin = f"init_from={str(path)!r}"
    is_own = content.keys() >= OWN
    found = Found((), weights_of(content, origin)) if is_own else choose(model, content, path, head)
    take(model, with_own_head(model, found.state, head), f"{origin} ({found})" if str(found) else origin)
    notes = [str(found)] if str(found) else []
    if head:
        own = model.state_dict()
        new = ", ".join(f"{key} {tuple(own[key].shape)}" for key in head)
        notes.append(f"all is taken but the head, which is new: {new}")
    if count(found.state) < count(model.state_dict()):  # torch lets them be when a plain dict lacks them
        notes.append(f"{COUNTER} is missing and begins at 0")
    if notes:
        log.info(f"{origin}: {'; '.join(notes)}")
    return seen_by(content) if is_own else None


def take(model: nn.Module, state: dict[str, Any], origin: str) -> None:
    """Load the weights; where names are the same and shapes are not, the refusal tells of a new head."""
    own = model.state_dict()
    try:
        load_state(model, state, origin)
    except UserError as error:
        if state.keys() >= {key for key in own if not key.endswith(COUNTER)}:
            raise UserError(f"{error}. For other classes than it was trained on: init_head=new") from None
        raise


def with_own_head(model: nn.Module, state: dict[str, Any], head: Sequence[str]) -> dict[str, Any]:
    """Return the weights with the model's own in place of those of the head."""
    own = model.state_dict()
    return {**{key: value for key, value in state.items() if key not in head}, **{key: own[key] for key in head}}


def weights_of(checkpoint: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return the state_dict of what a run is for: averaged weights if its configuration chose them, else the last ones.

    Averaged weights whose batch norms have no statistics of their own yet, in a run that was cut, are not taken.
    """
    average, last = checkpoint.get("average") or {}, checkpoint["model"]
    state = average.get("state") if average.get("is_result") else None
    if not isinstance(state, dict) or not state.get("n_averaged"):
        return dict(last)
    if not average["is_ready"]:
        log.warning(
            f"{origin}: the averaged weights have no batch statistics of their own yet, which they get when an epoch "
            "is validated or the run ends. So these are the weights of the last step."
        )
        return dict(last)
    return {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}


def count(state: dict[str, Any]) -> int:
    """Return the number of batch norm's counters."""
    return sum(key.endswith(COUNTER) for key in state)


def is_safetensors(path: Path) -> bool:
    """Return whether the file begins as those do: with the length of a header in JSON."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        length, start = int.from_bytes(file.read(8), "little"), file.read(1)
    return start == b"{" and length <= path.stat().st_size


def choose(model: nn.Module, content: dict[str, Any], path: Path, head: Sequence[str] = ()) -> Found:
    """Return the only state_dict in the file that fits, or the one that comes nearest; raise `UserError` for several.

    Those of the `head` need not fit. Averaged weights (EMA) beside the last ones are such a case: which are meant, only
    the user knows.
    """
    own = model.state_dict()
    candidates = [unwrapped(found, own) for found in state_dicts(content)]
    if not candidates:
        entries = ", ".join(map(repr, [*content][:5])) or "nothing"
        raise UserError(f"init_from={str(path)!r} holds no weights: there is {entries}.")
    scratch = copy.deepcopy(model)
    fitting = [found for found in candidates if fits(with_own_head(model, found.state, head), scratch)]
    if not fitting:
        return max(candidates, key=lambda found: len(found.state.keys() & own.keys()))
    if any(not equal(found.state, fitting[0].state) for found in fitting[1:]):
        places = ", ".join(repr(".".join(found.place)) for found in fitting)
        keys = "".join(f"[{key!r}]" for key in fitting[0].place)
        code = f"import torch; torch.save(torch.load({str(path)!r}, weights_only=True){keys}, 'weights.pt')"
        raise UserError(
            f"init_from={str(path)!r} holds several weights that fit: {places}. Save those that you mean alone: "
            f"python -c {shlex.quote(code)}"
        )
    return fitting[0]


def state_dicts(content: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[Found]:
    """Yield the dicts in a dict that hold tensors and nothing else."""
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield Found(place, dict(content))
    elif len(place) < MAX_DEPTH:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, dict):
                yield from state_dicts(value, (*place, key))


def unwrapped(found: Found, own: dict[str, Tensor]) -> Found:
    """Return the state_dict without what wrappers have put before its keys, as far as it is not the model's own."""
    state, prefixes = found.state, found.prefixes
    bare = {COMPILED.sub("", key): value for key, value in state.items()}
    if bare.keys() != state.keys() and len(bare) == len(state):
        state, prefixes = bare, ("_orig_mod.",)
    while not state.keys() & own.keys():
        prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None)
        if prefix is None:
            break
        state, prefixes = {key.removeprefix(prefix): value for key, value in state.items()}, (*prefixes, prefix)
    return Found(found.place, state, prefixes)


def fits(state: dict[str, Tensor], model: nn.Module) -> bool:
    """Return whether the model can take the weights, which it does."""
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError:
        return False
    return not result.missing_keys and not result.unexpected_keys


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether two state_dicts hold the same."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())
