"""report.html: what stands in it, that nothing in it can run or break it, and how a real browser handles it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cifar.report import report
from tests.sweep_folders import write_metrics, write_run, write_sweep

RATES = {0.1: [0.20, 0.32], 0.01: [0.50, 0.60], 0.001: [0.48, 0.59]}
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write_page(folder: Path) -> str:
    """Report on a sweep of three rates with curves, a failed job with code in its error, and one to come."""
    write_sweep(folder, RATES | {1.0: []})
    for number in range(6):
        write_metrics(folder / str(number), 5, 4)
    write_run(folder / "6", 1.0, 0, 6, status="failed", error="</script><script>alert(1)</script>", test_accuracy=None)
    report([folder], folder)
    return (folder / "report.html").read_text()


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|\d)[^"']*""", own)
    assert "@import" not in own
    assert "url(" not in own


def test_what_comes_from_runs_is_escaped(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "</script><script>" not in page


def test_runs_are_linked_and_their_commands_can_be_copied(tmp_path: Path) -> None:
    page = write_page(tmp_path / "a b")
    for number in range(7):
        assert f'<a href="{number}/">{number}</a>' in page
    assert '<a href="7/">' not in page  # has not begun
    assert "<code>python run.py lr=0.01 seed=1</code>" in page
    report([tmp_path / "a b"], tmp_path / "elsewhere")
    assert '<a href="../a%20b/3/">../a b/3</a>' in (tmp_path / "elsewhere" / "report.html").read_text()


PROBE = """
<script>
const heading = name => [...document.querySelectorAll("#points th")].find(th => th.textContent === name);
const rows = () => [...document.getElementById("points").tBodies].map(body => body.rows[0]);
const column = name => rows().map(row => row.cells[heading(name).cellIndex].textContent);
const found = { errors: window.problems };
found.first = column("lr");
heading("lr").querySelector("button").click();
found.ascending = column("lr");
heading("lr").querySelector("button").click();
found.descending = column("lr");
heading("validation").querySelector("button").click();
found.byAccuracy = column("lr");
found.sorted = heading("validation").getAttribute("aria-sort");
document.querySelector(".open").click();
found.opened = document.querySelectorAll("tr.runs:not([hidden])").length;
found.links = [...document.querySelectorAll("tr.runs:not([hidden]) a")].map(link => link.href);
found.curves = document.querySelectorAll("#curves .scatterlayer .trace").length;
found.names = [...document.querySelectorAll("#curves .legendtext")].map(text => text.textContent);
found.sideways = document.documentElement.scrollWidth - document.documentElement.clientWidth;
Plotly.restyle("curves", { visible: "legendonly" }, [0, 1]).then(() => {
  found.afterHiding = document.querySelectorAll("#curves .scatterlayer .trace").length;
  const pre = document.createElement("pre");
  pre.id = "found";
  pre.textContent = JSON.stringify(found);
  document.body.append(pre);
});
</script>
"""


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="THERE IS NO CHROMIUM: report.html was not opened in a browser"
)


def dom(path: Path, width: int) -> str:
    """Return what a browser `width` pixels wide has made of the page."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *OPTIONS, f"--window-size={width},1000", f"--user-data-dir={path.parent / 'profile'}",
               "--virtual-time-budget=10000", "--dump-dom", f"file://{path}"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_browser
@pytest.mark.parametrize("width", [1440, 500])
def test_a_browser_sorts_opens_draws_and_hides(tmp_path: Path, width: int) -> None:
    page = write_page(tmp_path)
    listener = "<script>window.problems = []; addEventListener('error', e => problems.push(e.message));</script>"
    (tmp_path / "probed.html").write_text(
        page.replace("<head>", f"<head>{listener}").replace("</body>", f"{PROBE}</body>")
    )
    shown = dom(tmp_path / "probed.html", width)
    match = re.search(r'<pre id="found">(.*?)</pre>', shown, flags=re.DOTALL)
    assert match, shown[-2000:]
    found: dict[str, Any] = json.loads(match[1].replace("&amp;", "&"))
    assert found["errors"] == []
    assert found["first"] == ["0.01", "0.001", "0.1", "1"]
    assert found["ascending"] == ["0.001", "0.01", "0.1", "1"]
    assert found["descending"] == ["1", "0.1", "0.01", "0.001"]
    assert found["byAccuracy"] == ["0.1", "0.001", "0.01", "1"]  # what has no accuracy comes last
    assert found["sorted"] == "ascending"
    assert found["opened"] == 1
    assert found["links"] == [f"file://{tmp_path}/{number}/" for number in (0, 1)]
    assert found["curves"] == 6
    assert found["names"] == ["lr=0.01", "lr=0.001", "lr=0.1"]
    assert found["afterHiding"] == 4
    assert found["sideways"] == 0


@needs_browser
@pytest.mark.parametrize("key", ["train/loss", "val/accuracy"])
def test_a_browser_draws_no_axes_for_what_was_not_recorded(tmp_path: Path, key: str) -> None:
    write_run(tmp_path / "0", 0.1, 0)
    lines = [json.dumps({"step": step, key: 0.5}) + "\n" for step in (10, 20)]
    (tmp_path / "0" / "metrics.jsonl").write_text("".join(lines))
    report([tmp_path], tmp_path)
    titles = re.findall(r"<text class=\"y2?title[^>]*>([^<]*)<", dom(tmp_path / "report.html", 1000))
    assert titles == ["training loss" if key == "train/loss" else "validation accuracy (%)"]
