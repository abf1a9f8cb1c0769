"""The architecture: imports only go down, and the configuration stops at experiment.py."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A module may import from the layers before its own.
LAYERS = [
    {"errors", "orphans", "predictions", "signals", "statistics", "streams", "tallies", "tta"},
    {"paths"},
    {"ancestry"},
    {"in_place", "limits", "nested"},
    {
        "models.resnet",
        "models.resnet18",
        "models.speednet",
        "models.vgg",
        "data.augment",
        "data.images",
        "data.splits",
        "schedules",
        "device",
        "fast_conv",
        "formats",
        "optimizers",
        "ranges",
        "run_folder",
        "trust",
    },
    {"command_line", "sealed"},
    {"checkpoint", "divergence", "memory", "step", "sweep", "tracking", "wording"},
    {"data.sources", "drawing", "new_folder", "study", "weights"},
    {"data.loader", "ticks", "wandb_settings"},
    {"trainer", "wandb_tracker"},
    {"config"},
    {"config_files", "stored", "tensorboard_tracker", "words"},
    {"building", "explain", "keeper"},
    {"continuing", "exits", "experiment", "planning"},
    {"workspace"},
    {"resume", "results"},
    {"records"},
    {"csv_files", "importance", "reading"},
    {"table", "verdict"},
    {"markdown"},
    {"accuracy_figure", "study_figures"},
    {"figures"},
    {"page"},
    {"report"},
    {"jobs"},
    {"search", "sweeper"},
    {"cli"},
    {"bench", "speedrun", "tune"},
]
MAY_IMPORT_HYDRA = {
    "new_folder",
    "paths",
    "command_line",
    "config",
    "config_files",
    "explain",
    "words",
    "sweep",
    "experiment",
    "resume",
    "reading",
    "jobs",
    "cli",
    "ranges",
    "search",
    "tune",
    "bench",
    "speedrun",
    "building",
    "keeper",
    "stored",
    "continuing",
    "planning",
    "sweeper",
    "trust",
}
PACKAGE = ROOT / "cifar"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def imports(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def test_every_module_has_a_layer() -> None:
    assert set().union(*LAYERS) == set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_go_down(module: str) -> None:
    (layer,) = [number for number, modules in enumerate(LAYERS) if module in modules]
    below = set().union(*LAYERS[:layer])
    own = {name.removeprefix("cifar.") for name in imports(MODULES[module]) if name.startswith("cifar.")}
    assert own <= below


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_configuration_stops_at_the_experiment(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports(MODULES[module])}
    assert module in MAY_IMPORT_HYDRA or not roots & {"hydra", "omegaconf"}


def test_init_files_are_empty_and_run_py_is_short() -> None:
    assert not [path for path in PACKAGE.rglob("__init__.py") if path.read_text()]
    assert len((ROOT / "run.py").read_text().splitlines()) <= 20


ANSWERS_MISTAKES = [
    "ancestry", "cli", "command_line", "config", "config_files", "errors", "exits", "explain", "formats", "in_place",
    "jobs", "resume", "run_folder", "signals", "stored", "sweep", "sweeper", "trust", "words",
]  # fmt: skip


@pytest.mark.parametrize("module", ANSWERS_MISTAKES)
def test_what_answers_mistakes_does_not_import_torch(module: str) -> None:
    top_level = {
        name.partition(".")[0]
        for node in ast.parse(MODULES[module].read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not top_level & {"torch", "torchvision", "wandb", "sklearn", "numpy"}
