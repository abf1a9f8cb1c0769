"""What a run's folder tells of the software."""

import importlib.metadata

import pytest

from cifar.base import run_folder


def test_a_library_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_wandb(name: str) -> str:
        if name == "wandb":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    everything = run_folder.library_versions()
    monkeypatch.setattr(run_folder, "version", without_wandb)
    assert run_folder.library_versions() == {name: known for name, known in everything.items() if name != "wandb"}
