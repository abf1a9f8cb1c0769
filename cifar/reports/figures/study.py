"""The figures that a search adds to its report: its history, and how much each parameter mattered."""

import math
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from cifar.reports.figures.drawing import (
    COLOURS,
    GREY,
    SCREEN,
    Drawing,
    Figure,
    Style,
    add_legend,
    letters_in,
    new_canvas,
    render,
    width_of,
)
from cifar.reports.figures.ticks import set_accuracy_axis
from cifar.reports.findings.wording import short_names
from cifar.sweeps.home import Home
from cifar.sweeps.study import latest_trials, open_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from optuna.trial import FrozenTrial

MIN_TRIALS = 4  # completed ones, before anything can be said about importance
MAX_BARS = 20


def draw_study(home: Home, output: Path, warnings: list[str], style: Style = SCREEN) -> list[Figure]:
    """Draw a search's study into `output`; raise `UserError` if it can't be read."""
    from optuna.trial import TrialState

    found = latest_trials(open_study(home))
    done = {number: trial for number, trial in sorted(found.items()) if trial.state == TrialState.COMPLETE}
    pruned = {number: trial for number, trial in sorted(found.items()) if trial.state == TrialState.PRUNED}
    drawings: list[Drawing] = []
    if done:
        drawings.append((Figure("history", "Trials in their order"), partial(draw_history, done, pruned)))
    if shares := importances(home):
        title = "How much each parameter mattered"
        title += f": the first {MAX_BARS} of {len(shares)}" * (len(shares) > MAX_BARS)
        drawings.append((Figure("importances", title), partial(draw_importances, shares)))
    return render(drawings, output, warnings, style)


def importances(home: Home) -> dict[str, float]:
    """Return every searched key's share of the accuracy's variance, the largest first; empty with too few trials.

    They are Optuna's default, which looks at completed trials only.
    """
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    study = open_study(home)
    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if len(values) < MIN_TRIALS or len({*values}) < 2:
        return {}
    return get_param_importances(study)


def draw_history(
    done: "dict[int, FrozenTrial]", pruned: "dict[int, FrozenTrial]", width: float | None = None
) -> "Canvas":
    """Draw the validation accuracy of every run against its number, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    width = width or 7
    height = 0.55 * width
    canvas, (axes,) = new_canvas(width, height)
    scores = [100 * (trial.value or 0) for trial in done.values()]
    best = [*accumulate(scores, max)]
    (line,) = axes.step([*done], best, where="post", color=COLOURS[0], linewidth=1.8, zorder=1)
    (dots,) = axes.plot([*done], scores, "o", color=COLOURS[0], markersize=5)
    entries = [(line, "best so far"), (dots, "trial")]
    cut = {number: 100 * trial.value for number, trial in pruned.items() if trial.value is not None}
    if cut:
        (hollow,) = axes.plot([*cut], [*cut.values()], "o", color=GREY, fillstyle="none", markersize=5)
        entries.append((hollow, "pruned: when it ended"))
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    set_accuracy_axis(axes, [*scores, *cut.values()], height - 0.8)
    add_legend(canvas, entries)
    return canvas


def draw_importances(shares: dict[str, float], width: float | None = None) -> "Canvas":
    """Draw a bar for each of the most important parameters, the first on top."""
    keys = [*shares][:MAX_BARS][::-1]
    names = short_names(keys, letters_in(0.45 * width if width else math.inf))
    canvas, (axes,) = new_canvas(width or 4.5 + width_of(names), 1 + (0.25 if width else 0.4) * len(keys))
    axes.grid(visible=False, axis="y")
    bars = axes.barh(range(len(keys)), [100 * shares[key] for key in keys], color=COLOURS[0], height=0.6)
    axes.set_yticks(range(len(keys)), names)
    axes.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8)
    axes.set_xlim(0, 110)
    axes.set_xticks(range(0, 101, 20 if width is None or width > 4.5 else 50))
    axes.set_xlabel("share of the accuracy's variance (%)" if width is None or width > 4.5 else "share (%)")
    return canvas
