"""The configuration that words make, composed outside of Hydra's own command."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar.base.paths import CONF
from cifar.experiment.typed.words import choose_nothing


def compose_words(words: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """Return run.py's configuration with the words, and the groups' choices."""
    state = Singleton.get_state()
    GlobalHydra.instance().clear()  # a notebook may have begun something with Hydra itself
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides=choose_nothing(words), return_hydra_config=True)
    finally:
        Singleton.set_state(state)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    assert isinstance(choices, dict)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, {str(group): choice for group, choice in choices.items() if not str(group).startswith("hydra/")}
