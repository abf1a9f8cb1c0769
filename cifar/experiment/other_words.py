"""What words may change of a run that is trained: how and on which images it is evaluated, never what it is."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from cifar.base.errors import UserError
from cifar.experiment.config import RULES, check_value, resolve
from cifar.experiment.stored.trust import TARGET, as_data

# Keys that may be given, each with those below it.
MAY_CHANGE = (
    "tta",
    "eval_batch_size",
    "device",
    "data.root",
    "data.test_limit",
    "data.source",
    "test_on",
    f"model.{TARGET}",
)


def with_words(stored: DictConfig, composed: DictConfig, words: Sequence[str]) -> DictConfig:
    """Return the stored configuration with the values that the words have in the composed one.

    Raises `UserError` for a word that can't be given to a run that is trained.
    """
    cfg: DictConfig = stored.copy()
    values = resolve(composed)
    for override in OverridesParser.create().parse_overrides([*words]):
        key = override.key_or_group
        if not any(is_at_or_below(key, allowed) for allowed in MAY_CHANGE):
            raise UserError(
                f"{override.input_line} can't be given to a run that is trained: only {', '.join(MAY_CHANGE)}."
            )
        for rule in RULES:
            if is_at_or_below(rule, key):
                check_value(composed, rule)
        node: Any = values
        for part in key.split("."):
            node = node[part]
        OmegaConf.update(cfg, key, as_data(node), merge=False, force_add=True)
    return cfg


def is_at_or_below(key: str, other: str) -> bool:
    """Return whether a key with dots is the other one, or lies below it."""
    return key == other or key.startswith(f"{other}.")
