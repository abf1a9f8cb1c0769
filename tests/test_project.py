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

from cifar.commands.main import VERBS
from cifar.commands.tune import new_search, split_own
from cifar.experiment.config import check
from cifar.experiment.typed.search_path import without_flags
from tests.conftest import ROOT, Compose, write_own_parts
from tests.pictures import write_class_folders

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


PAGES = [ROOT / "README.md", ROOT / "multirun" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = "\n".join(
    block for page in PAGES for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), flags=re.DOTALL)
).replace("\\\n", "")
LINE = r"^(?:\.venv/bin/)?(?:cifar|python run\.py) .*?(?=\s{2,}#|$)"
LINES = [line.strip() for line in re.findall(LINE, BLOCKS, flags=re.MULTILINE)]
RUN = r"\S*cifar run|python run\.py"
TORCHRUN = r"^ *(?:srun (?:--\S+ )*)?torchrun .*?(?:run\.py|-m cifar run)( .*?)(?=\s{2,}#|$)"
RANKS = re.findall(TORCHRUN, BLOCKS, flags=re.MULTILINE)
COMMANDS = sorted({*(re.sub(RUN, "", line) for line in LINES if re.match(RUN, line)), *RANKS})
SEARCHES = sorted({line.partition(" tune ")[2] for line in LINES if " tune " in line and "folder=" not in line})


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--config-dir" not in command])
def test_every_command_of_the_pages_composes(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    if "data=folder" in command:
        write_class_folders(tmp_path / "pictures", number=1)
        monkeypatch.chdir(tmp_path)
    overrides = [word for word in shlex.split(command) if not word.startswith("-")]
    if "--cfg" in command:
        overrides.remove("job")
    swept = [
        re.sub(r"=(\[[^\]]*\]|[^\[{'\"(]*?),.*", r"=\1", word)
        for word in overrides
        if not re.search(r"=(range|tag)\(", word)
    ]
    cfg = compose(*[word for word in swept if not word.startswith("hydra.launcher.")])
    check(cfg)
    assert cfg.lr == cfg.optimizer.lr


@pytest.mark.parametrize("command", SEARCHES)
def test_every_search_of_the_pages_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    write_own_parts(tmp_path)
    monkeypatch.chdir(tmp_path)
    own, words = split_own(without_flags(shlex.split(command)))
    assert new_search(own, words).trials == own["trials"]


def test_every_verb_of_the_pages_is_one() -> None:
    assert len(COMMANDS) > 25
    assert len(SEARCHES) >= 1
    assert {line.split()[1] for line in LINES if "run.py" not in line} <= {*VERBS}
    for page in PAGES:
        assert not re.search(r"python -m cifar\b|`cifar\.(?:tune|resume|report|bench)`", page.read_text()), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link, anchor in re.findall(r"(?:\]\(|src=\")(?!http)([^)#\"\s]*)#?([^)\"\s]*)[)\"]", page.read_text()):
        target = (page.parent / link) if link else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.M)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], anchor


def test_every_file_of_ours_that_is_named_exists() -> None:
    sources = [
        path for folder in ("cifar", "conf", "tests") for path in (ROOT / folder).rglob("*.[py]*") if path.is_file()
    ]
    for path in [*PAGES, ROOT / "Makefile", *(source for source in sources if source.suffix in (".py", ".yaml"))]:
        for name in re.findall(r"(?<![\w./-])(?:cifar|tests|hydra_plugins)/[\w/]+\.(?:py|sh|html)\b", path.read_text()):
            assert (ROOT / name).exists(), (path, name)


def test_the_readme_is_a_page_and_names_every_doc() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    linked = readme + "".join(page.read_text() for page in PAGES if page.parent.name == "docs")
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf"\]\((?:docs/)?{page.name}", linked), page


def test_every_folder_of_the_package_is_in_the_wheel() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (ROOT / "cifar").rglob("*.py")} | {
        path.parent for path in (ROOT / "hydra_plugins").rglob("*.py")
    }
    assert {*packages} == {".".join(path.relative_to(ROOT).parts) for path in folders} | {"cifar.conf"}
