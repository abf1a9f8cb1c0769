"""The clusters that the tests in this folder run on, each started once and stopped at the end."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "munge")


@pytest.fixture(name="slurm", scope="session")
def _slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start SLURM on this machine and return its folder, or skip the tests where that is not possible."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}): make cluster does it as root on Debian")
    if os.geteuid() != 0:
        pytest.skip("only root can start SLURM's daemons")
    folder = tmp_path_factory.mktemp("slurm")
    script, environment = str(HERE / "slurm.sh"), {**os.environ, "PATH": path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", path)
        try:
            subprocess.run(["sh", script, "start", str(folder)], check=True, env=environment, timeout=120)
            yield folder
        finally:
            subprocess.run(["scancel", "--user=root"], env={**environment, "SLURM_CONF": os.environ["SLURM_CONF"]})
            subprocess.run(["sh", script, "stop", str(folder)], check=True, env=environment, timeout=60)
