"""What a checkpoint keeps of a run's configuration, and how that is read back: as data, never as instructions."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar.base.nested import flatten
from cifar.experiment.stored.trust import TARGET, as_data

# Where things lie on the machine: when a run goes on, what it took from the environment is looked up there anew.
PLACES = ("data.root", "data.source.root", "data.source.cache", "tracker.dir")


def references(cfg: DictConfig) -> dict[str, str]:
    """Return the keys that have another key's value, each with that; a place of the environment's with its own key."""
    return references_in(OmegaConf.to_container(cfg, resolve=False))


def references_in(unresolved: Any) -> dict[str, str]:
    """Return what `references` does of a configuration's plain values, in which nothing is resolved."""
    found: dict[str, str] = {}
    for key, text in flatten(unresolved if isinstance(unresolved, dict) else {}).items():
        if isinstance(text, str) and (match := re.fullmatch(r"\$\{(\w+(?:\.\w+)*)\}", text)):
            found[key] = match[1]
        elif isinstance(text, str) and "${" in text and key in PLACES:
            found[key] = key
    return found


def links_of(checkpoint: dict[str, Any]) -> dict[str, str]:
    """Return the references that a checkpoint holds; the first format had them in an unresolved configuration."""
    links = references_in(checkpoint["config_source"]) if "config_source" in checkpoint else checkpoint["references"]
    return {str(key): str(target) for key, target in links.items()}


def stored_config(config: dict[str, Any], links: dict[str, str], composed: DictConfig) -> DictConfig:
    """Return the configuration that was stored resolved, with its `links` from key to key.

    No text in it is an interpolation. What the run took from the environment has the value that the `composed`
    configuration has, if it is a setting of the same thing.
    """
    cfg: DictConfig = OmegaConf.create(as_data(config))
    leaves = flatten(config)
    for key in links:
        target = last_of(key, links)
        if key in PLACES and target == key:
            take_place(key, cfg, composed)
        elif target in leaves and key in leaves and leaves[key] == leaves[target] and target != key:
            OmegaConf.update(cfg, key, f"${{{target}}}")
    return cfg


def last_of(key: str, links: dict[str, str]) -> str:
    """Return the key at the end of the links from `key`, or `key` if they go round in a circle."""
    seen = [key]
    while (target := links.get(seen[-1])) is not None and target != seen[-1]:
        if target in seen:
            return key
        seen.append(target)
    return seen[-1]


def take_place(key: str, cfg: DictConfig, composed: DictConfig) -> None:
    """Give the key the value of the composed configuration if both are settings of the same thing."""
    *parents, name = key.split(".")
    parent = ".".join(parents)
    own, other = OmegaConf.select(cfg, parent), OmegaConf.select(composed, parent)
    if not isinstance(own, DictConfig) or not isinstance(other, DictConfig) or name not in other:
        return
    if own.get(TARGET) == other.get(TARGET):
        own[name] = as_data(other[name])
