"""The sentences on who won and how sure that is; never do they say more than the numbers they name."""

from pathlib import Path

import pytest
from scipy import stats

from cifar.reports.findings.table import note
from cifar.reports.findings.verdict import verdict
from cifar.reports.runs.reading import read_results
from tests.sweep_folders import interval_text, write_run, write_sweep

RATES = {0.1: [0.20, 0.32, 0.29], 0.01: [0.50, 0.60, 0.55], 0.001: [0.48, 0.59, 0.55]}


def sentences(folder: Path, rates: dict[float, dict[int, float]]) -> list[str]:
    """Return the verdict on runs given as lr → seed → validation accuracy."""
    for lr, accuracies in rates.items():
        for seed, accuracy in accuracies.items():
            write_run(folder / f"{lr}-{seed}", lr, seed, val_accuracy=accuracy)
    return verdict(read_results([folder]))


def test_the_verdict_names_the_test_and_the_seeds_that_would_do(tmp_path: Path) -> None:
    write_sweep(tmp_path, RATES)
    first, second, third, _ = verdict(read_results([tmp_path]))
    found = stats.ttest_rel(RATES[0.01], RATES[0.001])
    ends, p_value = found.confidence_interval(), found.pvalue
    assert ends.low < 0 < ends.high
    best = interval_text(RATES[0.01])
    assert first == f"Best by validation accuracy: lr=0.01, {best}; on the test images 50.00 % each."
    assert second == (
        f"It can't be told apart from the next, lr=0.001: a difference of 1.00 points (95 %: −{-100 * ends.low:.2f} to "
        f"{100 * ends.high:.2f}) over 3 common seeds, "
        f"p = {p_value:.2g}, paired t test. If the true difference is that large, about 10 "
        "seeds each would show it "
        "(80% power at p < 0.05)."
    )
    assert third == "Not told apart from the best: 1 of the 2 other points."


def test_a_clear_winner_and_nothing_at_all(tmp_path: Path) -> None:
    write_sweep(tmp_path / "clear", {0.1: [0.2, 0.21, 0.22], 0.01: [0.5, 0.52, 0.51]})
    p_value = stats.ttest_rel([0.2, 0.21, 0.22], [0.5, 0.52, 0.51]).pvalue
    assert verdict(read_results([tmp_path / "clear"]))[1:] == [
        "It beats the next, lr=0.1: a difference of 30.00 points (95 %: 27.52 to 32.48) over 3 common seeds, "
        f"p = {p_value:.2g}, paired t test."
    ]
    write_run(tmp_path / "failed" / "0", 0.1, 0, status="failed", test_accuracy=None)
    assert verdict(read_results([tmp_path / "failed"])) == ["No run has a result yet."]


def test_a_loser_over_the_common_seeds_never_wins(tmp_path: Path) -> None:
    rates = {0.1: {0: 0.50, 1: 0.51, 2: 0.90, 3: 0.90}, 0.2: {0: 0.60, 1: 0.611}}
    p_value = stats.ttest_rel([0.50, 0.51], [0.60, 0.611]).pvalue
    first, second = sentences(tmp_path, rates)
    assert first.startswith("Best by validation accuracy: lr=0.1, ")
    assert second == (
        "The ranking and the comparison with the next, lr=0.2, disagree: over all its seeds the mean of lr=0.1 is 9.70 "
        f"points higher, but over 2 common seeds it is 10.05 points lower (p = {p_value:.2g}, paired t test). Run the "
        "seeds that one of them lacks before choosing."
    )


def test_the_rankings_difference_is_named_where_it_is_another(tmp_path: Path) -> None:
    text = sentences(tmp_path, {0.1: {0: 0.6, 1: 0.61, 2: 0.62, 3: 0.9}, 0.2: {0: 0.5, 1: 0.51, 2: 0.521}})[1]
    assert text.startswith("It beats the next, lr=0.2: a difference of 9.97 points (95 %: 9.82 to 10.11) over 3 ")
    assert text.endswith("paired t test. The ranking's means differ by 17.22 points.")


def test_seeds_in_common_are_not_needed(tmp_path: Path) -> None:
    text = sentences(tmp_path, {0.1: {0: 0.6, 1: 0.61, 2: 0.62}, 0.2: {3: 0.5, 4: 0.52}})[1]
    found = stats.ttest_ind([0.6, 0.61, 0.62], [0.5, 0.52], equal_var=False)
    ends, p_value = found.confidence_interval(), found.pvalue
    assert text == (
        f"It beats the next, lr=0.2: a difference of 10.00 points (95 %: {100 * ends.low:.2f} to "
        f"{100 * ends.high:.2f}) over 3 and 2 seeds, p = {p_value:.2g}, Welch's t test."
    )


@pytest.mark.parametrize("second", [{0: 0.25, 1: 0.5}, {2: 0.25, 3: 0.25}])
def test_no_spread_is_not_certainty(tmp_path: Path, second: dict[int, float]) -> None:
    first = {0: 0.5, 1: 0.75} if 0 in second else {0: 0.5, 1: 0.5}
    text = sentences(tmp_path, {0.1: first, 0.2: second})[1]
    assert text.startswith("It can't be told whether it beats the next, lr=0.2: the difference of 25.00 points over ")
    assert "is the same for every seed, and without any spread there is no measure of chance." in text
    assert "p =" not in text


def test_equal_means_are_no_victory(tmp_path: Path) -> None:
    text = sentences(tmp_path, {0.1: {0: 0.2, 1: 0.3}, 0.2: {0: 0.2, 1: 0.3}})[1]
    assert text == "It is no better than the next, lr=0.2: the means are equal over 2 common seeds."


def test_one_seed_is_named(tmp_path: Path) -> None:
    text = sentences(tmp_path / "both", {0.1: {0: 0.6}, 0.2: {0: 0.5}})[1]
    assert text.startswith("One seed each says nothing about chance: it can't be told whether lr=0.1 beats lr=0.2.")
    text = sentences(tmp_path / "one", {0.1: {0: 0.6, 1: 0.7}, 0.2: {0: 0.5}})[1]
    assert text.startswith("The one seed of lr=0.2 says nothing about chance")


def test_the_other_points_are_counted_and_named(tmp_path: Path) -> None:
    rates = {
        0.1: {0: 0.60, 1: 0.61, 2: 0.62, 3: 0.99},  # the best by its mean
        0.2: {0: 0.65, 1: 0.66, 2: 0.671},  # clearly ahead over common seeds
        0.3: {0: 0.62, 1: 0.60, 2: 0.61},  # not told apart
        0.4: {0: 0.30, 1: 0.31, 2: 0.321},  # clearly behind
        0.5: {0: 0.20, 1: 0.21, 2: 0.221},
        0.6: {0: 0.29},  # one seed
    }
    _, second, third, fourth, fifth, sixth = sentences(tmp_path, rates)
    assert second.startswith("The ranking and the comparison with the next, lr=0.2, disagree")
    assert third == "Not told apart from the best: 2 of the 5 other points."
    assert fourth == "Clearly ahead of it over the seeds that both have: lr=0.2."
    assert fifth.startswith("The best was picked among 6 points")
    assert sixth == "The best lr, 0.1, is the smallest that was swept: search wider, below it."


def test_without_a_result_nothing_is_said_to_be_ranked(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.1, 0, 0, status="failed", test_accuracy=None)
    assert note(read_results([tmp_path])) == "No run has a result, so nothing is ranked."
    write_run(tmp_path / "1", 0.1, 1, 1)
    assert note(read_results([tmp_path])).endswith("Ranked by test accuracy, for want of validation images.")
