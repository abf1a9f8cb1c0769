"""The figures that a search adds to its report: its history, and how much each parameter mattered."""

from pathlib import Path
from typing import TYPE_CHECKING

from cifar.figures import COLOURS, GREY, Figure, new_canvas, save
from cifar.study import latest_trials, open_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from optuna.trial import FrozenTrial

MIN_TRIALS = 4  # completed ones, before anything can be said about importance


def draw_study(folder: Path) -> list[Figure]:
    """Draw the study in the folder into it; raise `UserError` if it can't be read."""
    from optuna.trial import TrialState

    found = latest_trials(open_study(folder))
    done = {number: trial for number, trial in sorted(found.items()) if trial.state == TrialState.COMPLETE}
    pruned = {number: trial for number, trial in sorted(found.items()) if trial.state == TrialState.PRUNED}
    drawn = []
    if done:
        drawn.append((Figure("history", "Trials in their order"), draw_history(done, pruned)))
    if shares := importances(folder):
        drawn.append((Figure("importances", "How much each parameter mattered"), draw_importances(shares)))
    for figure, canvas in drawn:
        save(canvas, folder / figure.stem)
    return [figure for figure, _ in drawn]


def importances(folder: Path) -> dict[str, float]:
    """Return every searched key's share of the accuracy's variance, the largest first; empty with too few trials.

    They are Optuna's default, which looks at completed trials only.
    """
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    study = open_study(folder)
    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if len(values) < MIN_TRIALS or len({*values}) < 2:
        return {}
    return get_param_importances(study)


def draw_history(done: "dict[int, FrozenTrial]", pruned: "dict[int, FrozenTrial]") -> "Canvas":
    """Draw the validation accuracy of every run against its number, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    canvas, (axes,) = new_canvas(7, 4)
    scores = [100 * (trial.value or 0) for trial in done.values()]
    best = [max(scores[: index + 1]) for index in range(len(scores))]
    axes.step([*done], best, where="post", color=COLOURS[0], linewidth=1.8, label="best so far", zorder=1)
    axes.plot([*done], scores, "o", color=COLOURS[0], markersize=5, label="trial")
    cut = {number: trial.value for number, trial in pruned.items() if trial.value is not None}
    if cut:
        axes.plot([*cut], [100 * value for value in cut.values()], "o", color=GREY, fillstyle="none", markersize=5,
                  label="pruned: when it ended")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy (%)")
    axes.legend(frameon=False, fontsize=8)
    return canvas


def draw_importances(shares: dict[str, float]) -> "Canvas":
    """Draw a bar for each parameter, the most important on top."""
    names = [*reversed(shares)]
    canvas, (axes,) = new_canvas(7, 1 + 0.4 * len(names))
    axes.grid(visible=False, axis="y")
    bars = axes.barh(names, [100 * shares[name] for name in names], color=COLOURS[0], height=0.6)
    axes.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8)
    axes.set_xlim(0, 110)
    axes.set_xlabel("share of the accuracy's variance (%)")
    return canvas
