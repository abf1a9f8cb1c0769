"""What the report on a sweep says in sentences: which point is the best, and how sure that is."""

from collections.abc import Sequence

from cifar.reports.findings.edges import search_wider
from cifar.reports.findings.importance import shown_keys
from cifar.reports.findings.rivals import Rival, num_compared, rivals
from cifar.reports.findings.wording import percent_with_interval
from cifar.reports.runs.results import Point, Results
from cifar.reports.runs.statistics import CONFIDENCE, MAX_SEEDS, POWER, Comparison

MAX_NAMED = 3
MORE_SEEDS = "Sweep with seed='range(0,3)' or more."


def verdict(results: Results) -> list[str]:
    """Return the sentences that say which point won, and how sure that is."""
    ranked = rivals(results)
    if not ranked:
        return ["No run has a result yet."]
    best, *others = ranked
    keys = shown_keys(results)
    sentences = [best_sentence(results, best.point.named(keys), best.point)]
    if others:
        sentences.append(compared(results, best.point, others, [best.point.named(keys), others[0].point.named(keys)]))
    if len(others) > 1 and any(rival.comparison for rival in others):
        sentences += all_others([rival.point.named(keys) for rival in others], others)
    return sentences + search_wider(results)


def best_sentence(results: Results, name: str, best: Point) -> str:
    """Return the sentence that names the best point and its accuracies."""
    what = "validation" if results.has_val else "test"
    sentence = f"Best by {what} accuracy: {name}, {percent_with_interval(best.interval(results.score_key))}"
    if results.has_val and (tested := best.interval("test_accuracy")):
        sentence += f"; on the test images {percent_with_interval(tested)}"
    return f"{sentence}."


def all_others(names: Sequence[str], others: Sequence[Rival]) -> list[str]:
    """Return what is to be said of all points but the best."""
    num_undecided = sum(not rival.is_clear for rival in others)
    num_plain = sum(rival.comparison is None or not rival.comparison.is_clear for rival in others)
    plain = f" (by plain p values {num_plain})" if num_plain != num_undecided else ""
    ahead = [name for name, rival in zip(names, others, strict=True) if rival.is_ahead]
    sentences = [f"Not told apart from the best: {num_undecided} of the {len(names)} other points{plain}."]
    if ahead:
        more = f" and {len(ahead) - MAX_NAMED} more" if len(ahead) > MAX_NAMED else ""
        sentences.append(f"Clearly ahead of it over the seeds that both have: {', '.join(ahead[:MAX_NAMED])}{more}.")
    sentence = f"The best was picked among {len(names) + 1} points, so its mean is a little flattered."
    if (count := num_compared(others)) > 1:
        sentence += (
            f" The p values are corrected for their number, {count}, by Holm's method, and told apart is what is below "
            f"{1 - CONFIDENCE:.2f} then."
        )
    return [*sentences, sentence]


def compared(results: Results, best: Point, others: Sequence[Rival], names: Sequence[str]) -> str:
    """Return in words whether the best two points can be told apart, and how many seeds would do it."""
    second, comparison = others[0], others[0].comparison
    if comparison is None:
        seeds = [len(point.over_seeds(results.score_key)) for point in (best, second.point)]
        return one_seed(names, [name for name, count in zip(names, seeds, strict=True) if count == 1])
    gap = (best.mean(results.score_key) or 0) - (second.point.mean(results.score_key) or 0)
    if comparison.difference < 0:
        return disagreement(names, comparison, gap)
    if comparison.difference == 0:
        return f"It is no better than the next, {names[1]}: the means are equal{over(comparison)}."
    difference = f"difference of {in_points(comparison.difference)} points{ends(comparison)}{over(comparison)}"
    if comparison.p_value is None:
        return (
            f"It can't be told whether it beats the next, {names[1]}: the {difference} is the same for every seed, "
            f"and without any spread there is no measure of chance. {MORE_SEEDS}"
        )
    plain, corrected = (f"{p_value:.2g}" for p_value in (comparison.p_value, second.corrected))
    both = plain if plain == corrected else f"{plain} ({corrected} corrected)"
    test = f"a {difference}, p = {both}, {name_of_test(comparison)}"
    differs = in_points(gap) != in_points(comparison.difference)
    ranking = f" The ranking's means differ by {in_points(gap)} points." if differs else ""
    if second.is_clear:
        return f"It beats the next, {names[1]}: {test}.{ranking}"
    if comparison.is_clear:
        return f"Among so many points it can't be told apart from the next, {names[1]}: {test}.{ranking}"
    needed = f"about {comparison.num_seeds}" if comparison.num_seeds else f"more than {MAX_SEEDS}"
    return (
        f"It can't be told apart from the next, {names[1]}: {test}.{ranking} If the true difference is that large, "
        f"{needed} seeds each would show it ({POWER:.0%} power at p < {1 - CONFIDENCE:.2f})."
    )


def one_seed(names: Sequence[str], single: Sequence[str]) -> str:
    """Return why two points can't be compared of which one or both have a single seed."""
    which = "One seed each" if len(single) == 2 else f"The one seed of {single[0]}"
    return f"{which} says nothing about chance: it can't be told whether {names[0]} beats {names[1]}. {MORE_SEEDS}"


def disagreement(names: Sequence[str], comparison: Comparison, gap: float) -> str:
    """Return what is to be said of a best point that is behind the second over the seeds that both have."""
    test = "" if comparison.p_value is None else f" (p = {comparison.p_value:.2g}, {name_of_test(comparison)})"
    return (
        f"The ranking and the comparison with the next, {names[1]}, disagree: over all its seeds the mean of "
        f"{names[0]} is {in_points(gap)} points higher, but{over(comparison)} it is "
        f"{in_points(-comparison.difference)} points lower{test}. Run the seeds that one of them lacks before choosing."
    )


def ends(comparison: Comparison) -> str:
    """Return the interval of the difference in points, in brackets; nothing without spread."""
    if comparison.ends is None:
        return ""
    low, high = comparison.ends
    return f" (95 %: {in_points(low)} to {in_points(high)})"


def over(comparison: Comparison) -> str:
    """Return over which seeds the points are compared."""
    first, second = comparison.counts
    return f" over {first} common seeds" if comparison.kind == "paired" else f" over {first} and {second} seeds"


def name_of_test(comparison: Comparison) -> str:
    """Return the name of the test."""
    return {"paired": "paired t test", "Welch": "Welch's t test"}[comparison.kind]


def in_points(difference: float) -> str:
    """Return a difference of accuracies in percentage points."""
    return f"{100 * difference:.2f}".replace("-", "−")
