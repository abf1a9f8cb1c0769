"""Every point against the best: Holm's correction against its definition, and where both p values are written."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cifar.reports.findings.rivals import rivals
from cifar.reports.report import report
from cifar.reports.runs.reading import read_results
from cifar.reports.runs.statistics import holm
from tests.sweep_folders import write_sweep

RATES = {
    0.1: [0.60, 0.61, 0.62, 0.61],
    0.2: [0.59, 0.59, 0.61, 0.606],  # clear by itself, not after the correction
    0.3: [0.50, 0.52, 0.51, 0.50],
    0.4: [0.61, 0.60, 0.60, 0.60],
    0.5: [0.3],
}


def stepped_down(p_values: list[float], alpha: float) -> list[bool]:
    """Return which hypotheses Holm's procedure rejects: the smallest at alpha/m, the next at alpha/(m - 1), …"""
    rejected = [False] * len(p_values)
    for num_smaller, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if p_values[place] > alpha / (len(p_values) - num_smaller):
            break
        rejected[place] = True
    return rejected


@pytest.mark.parametrize("case", range(20))
def test_a_corrected_p_value_is_the_level_at_which_holms_procedure_rejects(case: int) -> None:
    rng = np.random.default_rng(case)
    p_values = [*(rng.uniform(size=rng.integers(1, 9)) ** rng.uniform(1, 4))]
    corrected = holm(p_values)
    for place, level in enumerate(corrected):
        assert p_values[place] <= level <= 1
        if level < 1:
            assert stepped_down(p_values, level * (1 + 1e-9))[place]
        assert not stepped_down(p_values, level * (1 - 1e-9))[place]


@pytest.mark.parametrize(
    ("p_values", "expected"),  # those of statsmodels.stats.multitest.multipletests, version 0.14, method="holm"
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.2, 0.01, 0.011, 0.5, 0.01], [0.4, 0.05, 0.05, 0.5, 0.05]),
        ([0.9, 0.8], [1, 1]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_is_that_of_statsmodels(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected, rel=1e-12)


def expected_p_values() -> tuple[list[float], list[float]]:
    """Return the plain p values of scipy's paired test for 0.4, 0.2 and 0.3, the ranking, and the corrected ones."""
    plain = [float(stats.ttest_rel(RATES[0.1], RATES[rate]).pvalue) for rate in (0.4, 0.2, 0.3)]
    order = np.argsort(plain)
    stepped = np.maximum.accumulate([(3 - number) * plain[place] for number, place in enumerate(order)])
    return plain, [float(min(1, stepped[[*order].index(place)])) for place in range(3)]


def test_the_ranked_points_are_compared_with_the_first(tmp_path: Path) -> None:
    write_sweep(tmp_path, RATES)
    best, *others = rivals(read_results([tmp_path]))
    assert (best.point.values["lr"], best.comparison, best.corrected) == (0.1, None, None)
    assert [rival.point.values["lr"] for rival in others] == [0.4, 0.2, 0.3, 0.5]
    plain, corrected = expected_p_values()
    assert [rival.comparison.p_value for rival in others[:3] if rival.comparison] == pytest.approx(plain)
    assert [rival.corrected for rival in others] == [*(pytest.approx(value) for value in corrected), None]
    assert [rival.is_clear for rival in others] == [False, False, True, False]


def test_table_page_and_csv_have_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, RATES)
    report([tmp_path], tmp_path)
    plain, corrected = expected_p_values()
    rows = [*csv.DictReader((tmp_path / "report.csv").read_text().splitlines())]
    assert [row["test_against_best"] for row in rows] == ["", "paired", "paired", "paired", ""]
    assert [float(row["p_value"]) for row in rows[1:4]] == pytest.approx(plain)
    assert [float(row["p_value_holm"]) for row in rows[1:4]] == pytest.approx(corrected)
    assert rows[0]["p_value"] == rows[0]["p_value_holm"] == rows[4]["p_value"] == ""
    lines = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    place = cells[0].index("p")
    assert cells[0][place + 1] == "p (Holm)"
    shown = [[f"{value:.2g}" for value in pair] for pair in zip(plain, corrected, strict=True)]
    assert [row[place : place + 2] for row in cells[2:]] == [["–", "–"], *shown, ["–", "–"]]
    page = (tmp_path / "report.html").read_text()
    assert f'data-value="{corrected[2]}">' in page
    text = capsys.readouterr().out
    assert "Not told apart from the best: 3 of the 4 other points (by plain p values 2)." in text
    assert "The p values are corrected for their number, 3, by Holm's method" in text


def test_among_many_points_a_plain_p_value_is_no_victory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, {0.1: RATES[0.1], 0.2: RATES[0.2], 0.3: [0.60, 0.50, 0.55, 0.40], 0.5: [0.61, 0.5, 0.5, 0.4]})
    report([tmp_path], tmp_path)
    found = stats.ttest_rel(RATES[0.1], RATES[0.2])
    ends, p_value = found.confidence_interval(), found.pvalue
    assert p_value < 0.05 < 3 * p_value
    assert (
        "Among so many points it can't be told apart from the next, lr=0.2: a difference of 1.10 points (95 %: "
        f"{100 * ends.low:.2f} to {100 * ends.high:.2f}) over 4 common seeds, p = {p_value:.2g} "
        f"({3 * p_value:.2g} corrected), paired t test."
    ) in capsys.readouterr().out
