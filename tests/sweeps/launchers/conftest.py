"""The clusters that the tests in this folder run on, each started once and stopped at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.launchers.engines import AbsentError, RayCluster, ray_started, slurm_started


@pytest.fixture(name="slurm", scope="session")
def _slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start SLURM on this machine and return its folder, or skip the tests where that is not possible."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        with slurm_started(folder):
            yield folder
    except AbsentError as error:
        pytest.skip(str(error))


@pytest.fixture(name="ray_cluster")
def _ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Start a cluster of two nodes, of which the second may be killed, or skip the test where Ray is not installed."""
    try:
        with ray_started(tmp_path_factory.mktemp("ray")) as cluster:
            yield cluster
    except AbsentError as error:
        pytest.skip(str(error))
