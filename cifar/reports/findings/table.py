"""The table of the report on a sweep: a row per point, the best first."""

from cifar.reports.findings.importance import shown_keys
from cifar.reports.findings.rivals import rivals
from cifar.reports.findings.wording import NOTHING, Column, number, percent_with_interval
from cifar.reports.runs.results import Point, Results, Run, show
from cifar.sweeps.plan import time_text

P_HOLM = "p (Holm)"
TROUBLES = ("failed", "diverged", "interrupted", "running", "pending")


def columns(results: Results) -> list[Column]:
    """Return the table's columns, a row per point, in order of importance."""
    points = results.points
    ranks, counts = [*range(1, len(points) + 1)], [len(point.seeds) for point in points]
    table = [
        Column("rank", [*map(str, ranks)], ranks),
        *[swept_column(results, key) for key in shown_keys(results)],
        Column("seeds", [*map(str, counts)], counts),
    ]
    for name, title in results.accuracies.items():
        texts = [percent_with_interval(point.interval(name)) for point in points]
        table.append(Column(title, texts, [point.mean(name) for point in points]))
    statuses = [point.status_text for point in points]
    losses, speeds = ([point.mean(name) for point in points] for name in ("train_loss", "images_per_second"))
    times = [wall_seconds(point) for point in points]
    return [
        *table,
        Column("status", statuses, statuses),
        *p_columns(results),
        Column("train loss", [*map(number, losses)], losses),
        Column("time", [NOTHING if time is None else time_text(time) for time in times], times),
        Column("images/s", [*map(number, speeds)], speeds),
    ]


def p_columns(results: Results) -> list[Column]:
    """Return the columns of the p values of every point against the best, plain and corrected; none without any."""
    found = {id(rival.point): rival for rival in rivals(results) if rival.corrected is not None}
    rows = [found.get(id(point)) for point in results.points]
    plain = [rival.comparison.p_value if rival and rival.comparison else None for rival in rows]
    corrected = [rival.corrected if rival else None for rival in rows]
    pairs = (("p", plain), (P_HOLM, corrected)) if found else ()
    return [Column(title, [*map(p_text, values)], values) for title, values in pairs]


def p_text(value: float | None) -> str:
    """Return a p value such as "0.031"."""
    return NOTHING if value is None else f"{value:.2g}"


def swept_column(results: Results, key: str) -> Column:
    """Return the column of a swept key."""
    values = [point.values[key] for point in results.points]
    return Column(key, [show(value) for value in values], values)


def wall_seconds(point: Point) -> float | None:
    """Return the mean seconds of a run, training and evaluation; None if no run counts."""
    parts = [value for name in ("train_seconds", "eval_seconds") if (value := point.mean(name)) is not None]
    return sum(parts) if parts else None


def unfinished(results: Results) -> list[Run]:
    """Return the runs that were not completed: what went wrong first, what is still to come last."""
    runs = [run for run in results.runs if run.status in TROUBLES]
    return sorted(runs, key=lambda run: TROUBLES.index(run.status))


def note(results: Results) -> str:
    """Return what the table's figures are."""
    if all(run.figure("test_accuracy") is None for run in results.runs):
        return "No run has a result, so nothing is ranked."
    means = (
        "Means over seeds, in brackets their 95 % confidence intervals (Student's t on the logit scale, by the delta "
        "method); fewer than three seeds have none and are shown themselves. Completed and diverged runs count."
    )
    if p_columns(results):
        means += (
            " p is that of a difference from the best point, two-sided, by the paired t test over common seeds, else "
            f"Welch's; {P_HOLM} is corrected for the number of points."
        )
    if results.has_val:
        return f"{means} Ranked by validation accuracy; the test accuracy is shown, not chosen by."
    return f"{means} Ranked by test accuracy, for want of validation images."
