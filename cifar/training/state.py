"""The state of a trainer: all that decides a run's future, as a checkpoint holds it."""

from typing import Any

from cifar.training.checkpoint import load_state
from cifar.training.measures.counters import Counters
from cifar.training.measures.tallies import Window
from cifar.training.trainer import Trainer


def is_finite(trainer: Trainer) -> bool:
    """Return whether a run can go on well from the present state, as far as is known; waits for the device."""
    return trainer.watch.allows(trainer.window.read()) and trainer.train_step.is_finite()


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Return all that decides the run's future, and what it has counted so far."""
    step = trainer.train_step
    return {
        "model": trainer.model.state_dict(),
        "optimizer": step.optimizer_state_dict(),
        "scaler": step.scaler.state_dict(),
        "rng": trainer.device.random_state(),
        "steps_per_epoch": len(trainer.train_loader),
        "window": trainer.window.state_dict(),
        "counters": trainer.counters.state_dict(),
        **trainer.watch.state_dict(),
        **trainer.evaluator.state_dict(),
        **({"random_states": trainer.random_states[1:]} if trainer.ranks.are_several else {}),
    }


def take_state(trainer: Trainer, state: dict[str, Any], origin: str) -> None:
    """Go on from what `state_of` gave; raise `UserError` if it, from the file `origin`, fits another model."""
    load_state(trainer.model, state["model"], origin)
    trainer.train_step.load_optimizer(state["optimizer"], state["scaler"])
    trainer.watch.load_state_dict(state)
    trainer.evaluator.load_state_dict(state)
    random_states = [state["rng"], *state.get("random_states", [])]
    if trainer.ranks.rank < len(random_states):
        trainer.device.set_random_state(random_states[trainer.ranks.rank])
    else:
        trainer.ranks.own_randomness(trainer.train_loader.seed, state["counters"]["step"])
    trainer.window = Window(state["window"], trainer.device.torch_device)
    trainer.counters = Counters.from_state(state["counters"])
