"""What the report on a sweep says in sentences: which point is the best, and how sure that is."""

from collections.abc import Sequence

from cifar.results import Point, Results
from cifar.statistics import CONFIDENCE, MAX_SEEDS, POWER, Comparison, compare
from cifar.wording import percent_with_interval

MAX_NAMED = 3
MORE_SEEDS = "Sweep with seed='range(0,3)' or more."


def verdict(results: Results) -> list[str]:
    """Return the sentences that say which point won, and how sure that is."""
    ranked = [point for point in results.points if point.mean(results.score_key) is not None]
    if not ranked:
        return ["No run has a result yet."]
    best, *others = ranked
    sentences = [best_sentence(results, best)]
    if not others:
        return sentences
    scores = best.over_seeds(results.score_key)
    comparisons = [compare(scores, point.over_seeds(results.score_key)) for point in others]
    sentences.append(compared(results, best, others[0], comparisons[0]))
    if len(others) > 1 and any(comparisons):
        sentences += all_others(others, comparisons)
    return sentences


def best_sentence(results: Results, best: Point) -> str:
    """Return the sentence that names the best point and its accuracies."""
    what = "validation" if results.has_val else "test"
    sentence = f"Best by {what} accuracy: {best.label}, {percent_with_interval(best.interval(results.score_key))}"
    if results.has_val and (tested := best.interval("test_accuracy")):
        sentence += f"; on the test images {percent_with_interval(tested)}"
    return f"{sentence}."


def all_others(others: Sequence[Point], comparisons: Sequence[Comparison | None]) -> list[str]:
    """Return what is to be said of all points but the best."""
    pairs = [*zip(others, comparisons, strict=True)]
    num_undecided = sum(comparison is None or not comparison.is_clear for comparison in comparisons)
    ahead = [point.label for point, found in pairs if found and found.is_clear and found.difference < 0]
    sentences = [f"Not told apart from the best: {num_undecided} of the {len(others)} other points."]
    if ahead:
        more = f" and {len(ahead) - MAX_NAMED} more" if len(ahead) > MAX_NAMED else ""
        sentences.append(f"Clearly ahead of it over the seeds that both have: {', '.join(ahead[:MAX_NAMED])}{more}.")
    sentences.append(
        f"The best was picked among {len(others) + 1} points, so its mean is a little flattered, and the p values are "
        "not corrected for that."
    )
    return sentences


def compared(results: Results, best: Point, second: Point, comparison: Comparison | None) -> str:
    """Return in words whether the best two points can be told apart, and how many seeds would do it."""
    if comparison is None:
        return one_seed(results, best, second)
    gap = (best.mean(results.score_key) or 0) - (second.mean(results.score_key) or 0)
    if comparison.difference < 0:
        return disagreement(best, second, comparison, gap)
    if comparison.difference == 0:
        return f"It is no better than the next, {second.label}: the means are equal{over(comparison)}."
    difference = f"difference of {in_points(comparison.difference)} points{over(comparison)}"
    if comparison.p_value is None:
        return (
            f"It can't be told whether it beats the next, {second.label}: the {difference} is the same for every seed, "
            f"and without any spread there is no measure of chance. {MORE_SEEDS}"
        )
    test = f"a {difference}, p = {comparison.p_value:.2g}, {name_of_test(comparison)}"
    differs = in_points(gap) != in_points(comparison.difference)
    ranking = f" The ranking's means differ by {in_points(gap)}." if differs else ""
    if comparison.is_clear:
        return f"It beats the next, {second.label}: {test}.{ranking}"
    seeds = f"about {comparison.num_seeds}" if comparison.num_seeds else f"more than {MAX_SEEDS}"
    return (
        f"It can't be told apart from the next, {second.label}: {test}.{ranking} If the true difference is that large, "
        f"{seeds} seeds each would show it ({POWER:.0%} power at p < {1 - CONFIDENCE:.2f})."
    )


def one_seed(results: Results, best: Point, second: Point) -> str:
    """Return why two points can't be compared of which one or both have a single seed."""
    single = [point.label for point in (best, second) if len(point.over_seeds(results.score_key)) == 1]
    which = "One seed each" if len(single) == 2 else f"The one seed of {single[0]}"
    return (
        f"{which} says nothing about chance: it can't be told whether {best.label} beats {second.label}. {MORE_SEEDS}"
    )


def disagreement(best: Point, second: Point, comparison: Comparison, gap: float) -> str:
    """Return what is to be said of a best point that is behind the second over the seeds that both have."""
    test = "" if comparison.p_value is None else f" (p = {comparison.p_value:.2g}, {name_of_test(comparison)})"
    return (
        f"The ranking and the comparison with the next, {second.label}, disagree: over all its seeds the mean of "
        f"{best.label} is {in_points(gap)} points higher, but{over(comparison)} it is "
        f"{in_points(-comparison.difference)} points lower{test}. Run the seeds that one of them lacks before choosing."
    )


def over(comparison: Comparison) -> str:
    """Return over which seeds the points are compared."""
    first, second = comparison.counts
    return f" over {first} common seeds" if comparison.kind == "paired" else f" over {first} and {second} seeds"


def name_of_test(comparison: Comparison) -> str:
    """Return the name of the test."""
    return {"paired": "paired t test", "Welch": "Welch's t test"}[comparison.kind]


def in_points(difference: float) -> str:
    """Return a difference of accuracies in percentage points."""
    return f"{100 * difference:.2f}"


def note(results: Results) -> str:
    """Return what the table's figures are."""
    means = (
        "Means over seeds, in brackets their 95 % confidence intervals (Student's t on the logit scale, by the delta "
        "method); fewer than three seeds have none and are shown themselves. Completed and diverged runs count."
    )
    if results.has_val:
        return f"{means} Ranked by validation accuracy; the test accuracy is shown, not chosen by."
    return f"{means} Ranked by test accuracy, for want of validation images."
