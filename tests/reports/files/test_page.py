"""report.html: what stands in it, that nothing in it can run or break it, and how a real browser handles it."""

import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cifar.reports.report import report
from tests.browser import CHROMIUM, Page, browser
from tests.conftest import ROOT
from tests.sweep_folders import write_metrics, write_run, write_sweep

RATES = {0.1: [0.20, 0.32], 0.01: [0.50, 0.60], 0.001: [0.48, 0.59]}
EVIL = "</script><img src=x onerror=alert(1)><iframe></iframe>&amp;{{ 7*7 }}"


def write_page(folder: Path) -> str:
    """Report on a sweep of three rates with curves, a failed job with code in its error, and one to come."""
    write_sweep(folder, RATES | {1.0: []})
    for number in range(6):
        write_metrics(folder / str(number), 5, 4)
    write_run(folder / "6", 1.0, 0, 6, status="failed", error="</script><script>alert(1)</script>", test_accuracy=None)
    report([folder], folder)
    return (folder / "report.html").read_text()


def write_evil_page(folder: Path) -> Path:
    """Report on a sweep with code wherever text can stand; return the page."""
    sweep = folder / "<b>sweep"
    for number, value in enumerate([EVIL, f"{EVIL}2"]):
        write_run(sweep / str(number), 0.1, 0, number, overrides=[f"name='{value}'", f"note='{EVIL}'"],
                  config={"name": value, "note": EVIL, "seed": 0}, config_hash=str(number), point=str(number),
                  device=f"{EVIL}{number}", status=["completed", "diverged"][number], error=EVIL)  # fmt: skip
        write_metrics(sweep / str(number), 5, 4)
    report([sweep], folder)
    return folder / "report.html"


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    own = re.sub(r"<script>.*?</script>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|\d)[^"']*""", own)
    assert "@import" not in own
    assert "url(" not in own
    assert "default-src 'none'" in html.unescape(page)
    assert (ROOT / "cifar" / "reports" / "files" / "uplot.LICENSE").read_text() in page


def test_what_comes_from_runs_is_escaped(tmp_path: Path) -> None:
    text = write_evil_page(tmp_path).read_text()
    assert "alert(1)" in text
    assert "{{ 7*7 }}" in text
    assert not re.search(r"<(img|iframe|b)\b", text)
    assert text.count("</script>") == 3  # the curves, uPlot, the page's own
    (data,) = re.findall(r'<script type="application/json" id="curve-data">(.*?)</script>', text)
    assert "<" not in data
    assert all(name.startswith("name=") for name in json.loads(data)["names"])


def test_runs_are_linked_and_their_commands_can_be_copied(tmp_path: Path) -> None:
    page = write_page(tmp_path / "a b")
    for number in range(7):
        assert f'<a href="{number}/">{number}</a>' in page
    assert '<a href="7/">' not in page  # has not begun
    assert "<code>cifar run lr=0.01 seed=1</code>" in page
    report([tmp_path / "a b"], tmp_path / "elsewhere")
    assert '<a href="../a%20b/3/">../a b/3</a>' in (tmp_path / "elsewhere" / "report.html").read_text()


def test_runs_that_were_not_completed_are_listed_with_their_commands(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.5], 0.01: []})
    for number, status in enumerate(["interrupted", "diverged", "failed"], 2):
        write_run(tmp_path / str(number), 0.5, number, number, status=status, error=f"It {status}.", test_accuracy=None)
    report([tmp_path], tmp_path)
    text = (tmp_path / "report.html").read_text()
    section = text.partition('<section id="unfinished">')[2].partition("</section>")[0]
    assert re.findall(r'class="status \w+">(\w+)<', section) == ["failed", "diverged", "interrupted", "pending"]
    assert re.findall(r'class="error">(.*?)<', section) == ["It failed.", "It diverged.", "It interrupted."]
    codes = re.findall(r"<code>(.*?)</code>", section)
    assert codes[:3] == [f"cifar run lr=0.5 seed={seed}" for seed in (4, 3, 2)]
    assert codes[3].startswith("cifar run lr=0.01 seed=0")


def test_the_page_stays_below_a_megabyte_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    for number in range(120):
        rate = 0.001 * (number + 1)
        write_run(tmp_path / str(number), rate, 0, number, val_accuracy=number / 120,
                  status=["completed", "diverged"][number % 2],
                  overrides=[f"lr={rate:.3f}", f"++note={'x' * 12_000}"])  # fmt: skip
        write_metrics(tmp_path / str(number), 100, 2)
    report([tmp_path], tmp_path)
    page = (tmp_path / "report.html").read_bytes()
    assert len(page) <= 1_000_000
    shown = int(re.findall(rb"The best (\d+) of 120 points are shown.", page)[0])
    assert page.count(b'<tr class="runs"') == shown
    assert 20 < shown < 120
    assert b"report.csv and runs.csv have all." in page
    listed = page.partition(b'<section id="unfinished">')[2].partition(b"</section>")[0].count(b"<code>")
    assert 10 < listed < 60
    assert f"{60 - listed} more stand in runs.csv." in page.decode()
    assert b"The 50 best of 120 points are drawn." in page


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="THERE IS NO CHROMIUM: report.html was not opened in a browser"
)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser for all tests of this file."""
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


PROBE = """(() => {
const heading = name => [...document.querySelectorAll("#points th")].find(th => th.textContent === name);
const rows = () => [...document.getElementById("points").tBodies].map(body => body.rows[0]);
const column = name => rows().map(row => row.cells[heading(name).cellIndex].textContent);
const found = { first: column("lr") };
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
return found;
})()"""
CURVES = "plots.map(plot => plot.ranks.filter((_, place) => plot.series[place + 1].show).sort())"
BUTTONS = "[...document.querySelectorAll('#legend button')]"
DOUBLE_CLICK = "dispatchEvent(new MouseEvent('dblclick', { bubbles: true }))"


@needs_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_a_browser_sorts_opens_draws_and_hides(tmp_path: Path, window: Page, width: int) -> None:
    write_page(tmp_path)
    window.open(tmp_path / "report.html", width)
    found = window.evaluate(PROBE)
    assert found["first"] == ["0.01", "0.001", "0.1", "1"]
    assert found["ascending"] == ["0.001", "0.01", "0.1", "1"]
    assert found["descending"] == ["1", "0.1", "0.01", "0.001"]
    assert found["byAccuracy"] == ["0.1", "0.001", "0.01", "1"]  # what has no accuracy comes last
    assert found["sorted"] == "ascending"
    assert found["opened"] == 1
    assert found["links"] == [f"file://{tmp_path}/{number}/" for number in (0, 1)]
    assert window.evaluate(CURVES) == [[0, 1, 2], [0, 1, 2]]
    assert window.evaluate(f"{BUTTONS}.map(button => button.textContent)") == ["lr=0.01", "lr=0.001", "lr=0.1"]
    window.evaluate(f"{BUTTONS}[1].click()")
    assert window.evaluate(CURVES) == [[0, 2], [0, 2]]
    assert window.evaluate(f"{BUTTONS}.map(button => button.ariaPressed)") == ["true", "false", "true"]
    window.evaluate(f"{BUTTONS}[1].{DOUBLE_CLICK}")
    assert window.evaluate(CURVES) == [[1], [1]]
    assert window.errors == []


@needs_browser
def test_the_pointer_reads_values_off_a_curve(tmp_path: Path, window: Page) -> None:
    write_page(tmp_path)
    window.open(tmp_path / "report.html", 1440)
    window.evaluate(f"{BUTTONS}[0].{DOUBLE_CLICK}")
    window.evaluate("plots[1].root.scrollIntoView()")
    x, y = window.evaluate("""(() => {
        const box = plots[1].over.getBoundingClientRect();
        return [box.left + plots[1].valToPos(120, "x"), box.top + plots[1].valToPos(60, "y")];
    })()""")
    window.move(x - 50, y)
    window.move(x + 3, y - 3)
    window.wait_for("document.querySelectorAll('.tip')[1].offsetParent !== null")
    assert window.evaluate("document.querySelectorAll('.tip')[1].textContent") == "lr=0.01: 60 at step 120"
    assert window.errors == []


def write_curve(folder: Path, losses: Sequence[float], accuracies: Sequence[float]) -> None:
    """Write a metrics.jsonl with a loss and an accuracy at the steps 10, 20, …"""
    lines = [{"step": 10 * place, "train/loss": loss, "val/accuracy": accuracy}
             for place, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@needs_browser
def test_bands_reach_from_the_lowest_to_the_highest_seed_and_go_with_their_curve(tmp_path: Path, window: Page) -> None:
    write_sweep(tmp_path, {0.1: [0.5, 0.6, 0.7], 0.01: [0.3]})
    for number, (losses, accuracies) in enumerate([([2, 1], [0.1, 0.5]), ([3, 1], [0.2, 0.6]), ([4, 1], [0.3, 0.7])]):
        write_curve(tmp_path / str(number), losses, accuracies)
    write_curve(tmp_path / "3", [2, 2], [0.1, 0.1])
    report([tmp_path], tmp_path)
    window.open(tmp_path / "report.html", 1440)
    assert window.evaluate("plots.map(plot => plot.bandRanks)") == [[0, 0], [0, 0]]
    assert window.evaluate("plots.map(plot => plot.data.slice(3))") == [[[2, 1], [4, 1]], [[10, 50], [30, 70]]]
    shown = "plots.map(plot => plot.series.slice(1).map(series => series.show))"
    window.evaluate(f"{BUTTONS}[0].click()")
    assert window.evaluate(shown) == [[True, False, False, False]] * 2  # the best is the last of the curves
    window.evaluate(f"{BUTTONS}[0].click()")
    pixel = """(() => {
        const plot = plots[1], x = plot.valToPos(13.3, "x", true), y = plot.valToPos(%s, "y", true);
        return [...plot.ctx.getImageData(Math.round(x), Math.round(y), 1, 1).data];
    })()"""
    inside, outside = window.evaluate(pixel % 40.5), window.evaluate(pixel % 47)
    assert inside[3] > 0  # painted, between the mean and the end of the band at 43
    assert outside[3] == 0
    window.evaluate("plots[1].root.scrollIntoView()")
    x, y = window.evaluate("""(() => {
        const box = plots[1].over.getBoundingClientRect();
        return [box.left + plots[1].valToPos(20, "x"), box.top + plots[1].valToPos(60, "y")];
    })()""")
    window.move(x - 40, y)
    window.move(x - 3, y - 2)
    window.wait_for("document.querySelectorAll('.tip')[1].offsetParent !== null")
    tip = window.evaluate("document.querySelectorAll('.tip')[1].textContent")
    assert tip == "lr=0.1: 60 at step 20, seeds 50 to 70"
    assert window.errors == []


@needs_browser
def test_pictures_beside_the_page_follow_the_dark_mode_too(tmp_path: Path, window: Page) -> None:
    write_page(tmp_path)
    for is_dark in (False, True):
        window.open(tmp_path / "accuracy_vs_lr.svg", 1000, is_dark)
        fills = "[...document.querySelectorAll('%s')].map(element => getComputedStyle(element).fill)"
        assert {*window.evaluate(fills % "text")} == {"rgb(230, 232, 235)" if is_dark else "rgb(29, 33, 38)"}
        assert window.evaluate(fills % "#patch_1 path") == ["rgb(21, 24, 28)" if is_dark else "rgb(255, 255, 255)"]


@needs_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_an_open_row_keeps_command_and_copy_in_the_window(tmp_path: Path, window: Page, width: int) -> None:
    for number, path in enumerate(["a" * 400, "b/" * 200]):
        write_run(tmp_path / str(number), 0.1, 0, number, overrides=[f"init_from={path}", "seed=0"], error="e" * 400,
                  config={"init_from": path, "seed": 0}, config_hash=path, point=path, status="diverged")  # fmt: skip
    report([tmp_path], tmp_path)
    window.open(tmp_path / "report.html", width)
    table = "document.getElementById('points').offsetWidth"
    before = window.evaluate(table)
    window.evaluate("document.querySelectorAll('.open').forEach(button => button.click())")
    assert window.evaluate(table) == before
    assert window.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    boxes = window.evaluate("""[...document.querySelectorAll("code, .copy, .error")].map(element => {
        const box = element.getBoundingClientRect();
        return [box.left, box.right, box.height];
    })""")
    assert len(boxes) == 12
    assert all(0 <= left < right <= width and height > 0 for left, right, height in boxes)


@needs_browser
def test_a_click_copies_the_command(tmp_path: Path, window: Page) -> None:
    write_page(tmp_path)
    window.open(tmp_path / "report.html", 1440)
    window.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
    window.evaluate("document.querySelector('.open').click(); document.querySelector('.copy').click()")
    window.wait_for("document.querySelector('.copy').textContent === 'copied'")
    assert window.evaluate("copied") == "cifar run lr=0.01 seed=0"
    window.evaluate("navigator.clipboard.writeText = undefined")
    window.evaluate("document.querySelectorAll('.copy')[1].click()")
    assert window.evaluate("getSelection().toString()") == "cifar run lr=0.01 seed=1"
    assert window.errors == []


@needs_browser
def test_code_from_runs_does_not_run_and_stands_there_as_text(tmp_path: Path, window: Page) -> None:
    path = write_evil_page(tmp_path)
    window.open(path, 1440)
    assert window.evaluate("document.querySelectorAll('img, iframe, b').length") == 0
    assert EVIL in window.evaluate("document.querySelector('.warning').parentElement.textContent")
    assert window.evaluate("document.querySelector('dd').textContent") == EVIL
    assert window.evaluate(CURVES) == [[0, 1], [0, 1]]
    assert window.errors == []
    text = path.read_text().replace("</main>", "<script>window.ran = 1</script><img src=x onerror='ran = 1'></main>")
    path.write_text(text)
    window.open(path, 1440)
    assert window.evaluate("typeof ran") == "undefined"
    assert any("Content Security Policy" in error for error in window.errors)
    window.errors.clear()


@needs_browser
def test_figures_follow_the_dark_mode(tmp_path: Path, window: Page) -> None:
    write_page(tmp_path)
    for is_dark in (False, True):
        window.open(tmp_path / "report.html", 1440, is_dark)
        styles = "[...document.querySelectorAll('figure svg %s')].map(element => getComputedStyle(element).fill)"
        ink = window.evaluate("getComputedStyle(document.body).color")
        assert ink == ("rgb(230, 232, 235)" if is_dark else "rgb(29, 33, 38)")
        assert {*window.evaluate(styles % "text")} == {ink}
        assert "rgb(255, 255, 255)" not in window.evaluate(styles % "path")
        assert window.evaluate("plots[0].axes[0].stroke()") == ("#9aa4af" if is_dark else "#5d6670")
    assert window.errors == []


@needs_browser
@pytest.mark.parametrize("key", ["train/loss", "val/accuracy"])
def test_a_browser_draws_no_axes_for_what_was_not_recorded(tmp_path: Path, window: Page, key: str) -> None:
    write_run(tmp_path / "0", 0.1, 0)
    lines = [json.dumps({"step": step, key: 0.5}) + "\n" for step in (10, 20)]
    (tmp_path / "0" / "metrics.jsonl").write_text("".join(lines))
    report([tmp_path], tmp_path)
    window.open(tmp_path / "report.html", 1000)
    titles = window.evaluate("[...document.querySelectorAll('#curves h3')].map(title => title.textContent)")
    assert titles == ["training loss" if key == "train/loss" else "validation accuracy (%)"]
    assert window.errors == []
