"""pyproject.toml, constraints.txt and environment.yml agree, and the README is true."""

import re
import shlex
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cifar.commands.tune import new_search, split_own
from cifar.experiment.config import check
from tests.conftest import ROOT, Compose

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ALL = {*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)}
RANGES = [Requirement(text) for text in sorted(ALL) if Requirement(text).name != PROJECT["name"]]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def pins_for(python: str) -> dict[str, str]:
    """Return name to version as pip on Linux takes them from constraints.txt."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
                   "platform_machine": "x86_64", "platform_python_implementation": "CPython"}  # fmt: skip
    pins: dict[str, str] = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "==", pin
            assert pins.setdefault(canonicalize_name(pin.name), specifier.version) == specifier.version, pin
    return pins


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_range(python: str) -> None:
    pins = pins_for(python)
    for requirement in RANGES:
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_what_is_installed_is_what_is_pinned() -> None:
    pins = pins_for(f"{sys.version_info.major}.{sys.version_info.minor}")
    installed = {str(canonicalize_name(found.name)): found.version for found in distributions()}
    different = {name: (installed[name], version) for name, version in pins.items()
                 if name in installed and installed[name] != version and name != "setuptools"}  # fmt: skip
    assert not different
    assert {canonicalize_name(requirement.name) for requirement in RANGES if requirement.marker is None} <= set(
        installed
    )


def test_conda_installs_the_same_through_pip() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip"
    assert through_pip == {"pip": ["--constraint constraints.txt", "--editable .[dev]"]}
    install = "pip install --constraint constraints.txt --editable '.[dev]'"
    assert install in (ROOT / "Makefile").read_text()


def test_the_ranges_that_were_promised() -> None:
    ranges = {requirement.name: str(requirement.specifier) for requirement in RANGES}
    assert ranges["hydra-core"] == "<1.4,>=1.3.8"
    assert (ranges["wandb"], ranges["torch"]) == (">=0.31", ">=2.11")
    assert PROJECT["requires-python"] == ">=3.10,<3.14"


README = (ROOT / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```(?:bash|sh)\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", "")
TUNE_COMMANDS = re.findall(r"python -m cifar\.tune(.*?)(?:\s{2,}#.*)?$", BLOCKS, flags=re.MULTILINE)
COMMANDS = re.findall(r"python run\.py(.*?)(?:\s{2,}#.*)?$", BLOCKS, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_composes(compose: Compose, command: str) -> None:
    overrides = [word for word in shlex.split(command) if not word.startswith("-")]
    if "--cfg" in command:
        overrides.remove("job")
    cfg = compose(
        *[re.sub(r"=([^\[{'\"]*?),.*", r"=\1", override) for override in overrides if "range(" not in override]
    )
    check(cfg)
    assert cfg.lr == cfg.optimizer.lr


def test_the_map_of_the_readme_names_every_module() -> None:
    assert len(COMMANDS) >= 5
    for path in (ROOT / "cifar").rglob("*.py"):
        if path.name != "__init__.py":
            assert f"`{path.relative_to(ROOT / 'cifar')}`" in README, path
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / Path(link)).exists(), link


@pytest.mark.parametrize("command", [command for command in TUNE_COMMANDS if "folder=" not in command])
def test_every_search_of_the_readme_is_possible(command: str) -> None:
    own, words = split_own(shlex.split(command))
    assert new_search(own, words).trials == own["trials"]
