"""The architecture: eight wings, imports that only go down, and a configuration that stops at the experiment."""

import ast
import re
from graphlib import TopologicalSorter

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "cifar"
# A wing may import from those before it, and within itself.
WINGS = ["base", "models", "data", "training", "tracking", "experiment", "sweeps", "reports", "commands"]
MAY_IMPORT_HYDRA = {"experiment", "sweeps", "reports", "commands"}
# … and below them what knows where a command was typed, and the plugin through which Hydra finds the schema.
KNOW_THE_COMMAND = {"base.paths"}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
WITHIN = sorted(module for module in MODULES if "." in module)


def imports(module: str) -> set[str]:
    """Return the full names of all modules that a module imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name for name in inner if name.removeprefix("cifar.") in MODULES} or {node.module or ""}
    return names


def own_imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    return {name.removeprefix("cifar.") for name in imports(module) if name.startswith("cifar.")}


def test_the_house_has_eight_wings() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*WINGS}
    assert {module for module in MODULES if "." not in module} == {"__main__"}
    rows = re.findall(r"^\| `(\w+)/`(?:, `(\w+)/`)? \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    shown = [name for row in rows for name in row if name]
    assert sorted(shown) == sorted(WINGS)
    assert [name for name in reversed(shown) if name in ("base", "training", "commands")] == [
        "base", "training", "commands",
    ]  # fmt: skip


@pytest.mark.parametrize("module", WITHIN)
def test_imports_only_go_down(module: str) -> None:
    place = WINGS.index(module.partition(".")[0])
    for other in own_imports(module):
        assert other in MODULES, other
        assert WINGS.index(other.partition(".")[0]) <= place, f"{module} imports {other}"


def test_within_a_wing_imports_go_down_too() -> None:
    [*TopologicalSorter({module: own_imports(module) for module in WITHIN}).static_order()]  # raises for a circle


def test_folders_within_a_wing_do_not_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}  # a folder of a wing counts as one module
    for module in WITHIN:
        room = room_of(module)
        rooms.setdefault(room, set()).update({room_of(other) for other in own_imports(module)} - {room})
    [*TopologicalSorter(rooms).static_order()]  # raises for a circle


def room_of(module: str) -> str:
    """Return the folder of a wing in which a module stands, or the module itself."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", WITHIN)
def test_the_configuration_stops_at_the_experiment(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports(module)}
    may = module.partition(".")[0] in MAY_IMPORT_HYDRA or module in KNOW_THE_COMMAND
    assert may or not roots & {"hydra", "omegaconf"}


def test_init_files_are_empty_and_run_py_is_short() -> None:
    assert not [path for path in PACKAGE.rglob("__init__.py") if path.read_text() and path.parent != PACKAGE]
    assert len((ROOT / "run.py").read_text().splitlines()) <= 20


def test_tests_stand_in_the_same_folders() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.relative_to(ROOT / "tests").parent
        assert (PACKAGE / folder).is_dir(), path
    assert {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__", "conf", "formats"} <= {
        *WINGS
    }


ANSWER_MISTAKES = ("commands.app.cli", "commands.app.jobs", "commands.main", "commands.run", "commands.resume",
                   "experiment.config", "experiment.restore", "base.errors", "base.run_folder", "base.signals",
                   "sweeps.plan", "commands.messages.exits", "commands.messages.explain")  # fmt: skip


@pytest.mark.parametrize("module", ANSWER_MISTAKES)
def test_what_answers_mistakes_does_not_import_torch(module: str) -> None:
    top_level = {
        name.partition(".")[0]
        for node in ast.parse(MODULES[module].read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not top_level & {"torch", "torchvision", "wandb", "sklearn", "numpy"}
