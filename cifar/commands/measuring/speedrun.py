"""Time recipes over many seeds as the published speed scripts do: cifar speedrun --seeds 100 --device cuda

What a run has to compute counts: first weights from the images, training, and the evaluation with test-time
augmentation. What is done once for a recipe does not: importing, reading the data, compiling, recording, which a first
run, whose time is given apart, does for all.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from cifar.base.run_folder import git_commit, library_versions, prepare_results, write_results
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser
from cifar.experiment.building import build_parts
from cifar.experiment.config import check
from cifar.experiment.loaders import build_loaders
from cifar.experiment.run import fit_to_images, new_trainer
from cifar.experiment.typed.compose import compose_words
from cifar.reports.findings.wording import percent, percent_with_interval
from cifar.reports.runs.statistics import interval
from cifar.tracking.tracking import RunInfo
from cifar.training.steps.kept import keep
from cifar.training.warm_up import warm_up

EXAMPLES = """\
  cifar speedrun --recipes speedrun86 --seeds 5
  cifar speedrun --recipes speedrun94 --seeds 100 --device cuda --json s.json"""


def timed_run(words: list[str]) -> dict[str, Any]:
    """Train and test what the words describe, and return its accuracies and seconds."""
    cfg, _ = compose_words(words)
    check(cfg)
    parts = build_parts(cfg, RunInfo("speedrun", None, {}))
    loaders = build_loaders(cfg, parts)
    trainer = new_trainer(cfg, parts, loaders)
    warmup_seconds = warm_up(trainer, loaders.test, cfg.tta)
    elapsed = parts.device.stopwatch()
    fit_to_images(parts.model, loaders.train)
    trainer.fit()
    test = trainer.test(loaders.test, cfg.tta)
    seconds = elapsed()
    keep(parts.train_step, parts.step_key)
    return {
        "seed": cfg.seed,
        "accuracy": test.accuracy,
        "tta": cfg.tta,
        "tta_accuracy": test.tta_accuracy,
        "seconds": seconds,
        "train_seconds": trainer.counters.train_seconds,
        "eval_seconds": trainer.counters.eval_seconds,
        "warmup_seconds": warmup_seconds,
        "device": parts.device.describe(),
    }


def time_recipe(words: list[str], num_seeds: int) -> Iterator[dict[str, Any]]:
    """Run once for what is done once, then with every seed; yield what is known after each."""
    print(f"{words[0]}: a first run, for what is done once …", file=sys.stderr, flush=True)
    first = timed_run([*words, "seed=0"])
    runs: list[dict[str, Any]] = []
    for seed in range(num_seeds):
        runs.append(timed_run([*words, f"seed={seed}"]))
        yield {"words": words, "git_commit": git_commit(), "versions": library_versions(), "first": first, "runs": runs}


def line(run: dict[str, Any]) -> str:
    """Return one run in words."""
    views = "" if run["tta_accuracy"] is None else f", {percent(run['tta_accuracy'])} with TTA"
    return f"seed {run['seed']}: {percent(run['accuracy'])}{views}, {run['seconds']:.3f} s"


def table(results: list[dict[str, Any]]) -> str:
    """Return the recipes in words, a line each."""
    lines = [
        f"{results[0]['runs'][0]['device']}; 95 % intervals, Student's t on the logit scale",
        f"{'recipe':<12} seeds  {'test':>22}  {'with TTA':>22}  std of it  {'seconds':>8}  {'std':>6}  first run",
    ]
    for result in results:
        runs = result["runs"]
        name = result["words"][0].partition("=")[2]
        plain = [run["accuracy"] for run in runs]
        views = [run["tta_accuracy"] for run in runs if run["tta_accuracy"] is not None]
        seconds, judged = [run["seconds"] for run in runs], views or plain
        spread = percent(stdev(judged)) if len(judged) > 1 else "–"
        seconds_spread = f"{stdev(seconds):.3f}" if len(seconds) > 1 else "–"
        whole, augmented = (percent_with_interval(interval(values)) for values in (plain, views))
        lines.append(
            f"{name:<12} {len(runs):5}  {whole:>22}  {augmented:>22}  {spread:>9}  {mean(seconds):8.3f}  "
            f"{seconds_spread:>6}  {result['first']['seconds'] + result['first']['warmup_seconds']:7.1f} s"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time every recipe that the command line names."""
    parser = Parser("speedrun", "Time recipes over many seeds, compilation apart.", EXAMPLES)
    parser.add_argument("--recipes", nargs="+", default=["speedrun94"], help="experiments of run.py's")
    parser.add_argument("--seeds", type=int, default=10, help="how many; 0, 1, 2 …")
    parser.add_argument("--device", default="auto", help="one of run.py's choices of device")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="more of run.py's words")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds takes 1 or more")
    common = [f"device={options.device}", *options.set, "tracker=none"]
    recipes = {recipe: [f"experiment={recipe}", *common] for recipe in options.recipes}
    for words in recipes.values():  # all of them before the first one trains
        check(compose_words(words)[0])
    prepare_results(options.json)
    results: list[dict[str, Any]] = []
    for recipe, words in recipes.items():
        for result in time_recipe(words, options.seeds):
            write_results(options.json, [*results, result])
            print(recipe, line(result["runs"][-1]), flush=True)
        results.append(result)
    print(table(results), flush=True)


def command() -> None:
    """Do what the command line says."""
    guard(main)
