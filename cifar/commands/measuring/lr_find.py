"""Smith's range test of a configuration: `cifar lr-find model=resnet18 optimizer=sgd`."""

import shlex
from pathlib import Path
from typing import Any

from cifar.base.errors import UserError
from cifar.base.paths import absolute, shown
from cifar.base.run_folder import git_commit, library_versions, write_json
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser, split_words

EXAMPLES = """\
  cifar lr-find model=resnet18 optimizer=sgd                   100 steps at rates from 1e-6 to 10
  cifar lr-find experiment=demo --low 1e-4 --high 1 --steps 50
  cifar lr-find model=vgg16_bn optimizer=sam --output outputs/vgg

Words are those of cifar run. Each step has a higher rate than the one before, until the loss blows up. Nothing is kept
of that training: only lr_find.png, lr_find.svg and lr_find.json are written."""
LIMITS = """\
What a range test can't know: the best rate of a whole training. It sees the first steps only, at rates that rise; a
schedule that falls, a longer run, another batch size, weight decay or seed can move that rate several times up or down.
Search around a tenth of the rate with the lowest loss, and choose by validation images:
  {command}"""


def command() -> None:
    """Do what the command line says."""
    guard(lr_find)


def lr_find() -> None:
    """Make the test, write its files and say what it shows."""
    parser = Parser("lr-find", "Find the range of learning rates at which a configuration learns.", EXAMPLES)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for cifar run")
    parser.add_argument("--low", type=float, default=1e-6, help="the first rate")
    parser.add_argument("--high", type=float, default=10.0, help="the last rate")
    parser.add_argument("--steps", type=int, default=100, help="how many rates, one a step")
    parser.add_argument("--output", type=Path, default=Path("."), metavar="DIR", help="the folder for its three files")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own YAML files, as for cifar run")
    options = parser.parse_intermixed_args()
    others, words = split_words(options.words)
    if others:
        raise UserError(f"{others[0]!r} is no word KEY=VALUE.")
    if not 0 < options.low < options.high < 1e6:
        raise UserError(f"--low {options.low:g} --high {options.high:g} is not possible: 0 < low < high < 1e6.")
    if options.steps < 10:
        raise UserError(f"--steps {options.steps} is not possible: it takes 10 or more.")
    folder = absolute(str(options.output))
    facts = tested(words, options)
    folder.mkdir(parents=True, exist_ok=True)
    write(facts, folder)


def tested(words: list[str], options: Any) -> dict[str, Any]:
    """Return what the test found, for the JSON file, and the test itself."""
    from cifar.base import signals
    from cifar.experiment.building import build_parts
    from cifar.experiment.loaders import build_loaders
    from cifar.experiment.python import compose
    from cifar.experiment.run import fit_to_images
    from cifar.tracking.tracking import RunInfo
    from cifar.training.steps.range_test import range_test, rates

    cfg = compose([*words, "tracker=none"], options.config_dir)
    parts = build_parts(cfg, RunInfo("lr-find", None, {}))
    loaders = build_loaders(cfg, parts)
    if cfg.init_from is None:
        fit_to_images(parts.model, loaders.train)
    lrs = rates(options.low, options.high, options.steps)
    with signals.deferred(lambda: None):
        found = range_test(parts.train_step, loaders.train, lrs, signals.check)
    if len(found.losses) < 3:
        raise UserError(f"The loss is not finite from the first rates on: try a smaller --low than {options.low:g}.")
    facts = {
        "words": words,
        "lowest": found.lowest,
        "steepest": found.steepest,
        "has_blown_up": found.has_blown_up,
        "lrs": found.lrs,
        "losses": found.losses,
        "smoothed": found.smoothed,
        "config_lr": cfg.lr,
        "batch_size": cfg.batch_size,
        "num_images": len(loaders.train.labels),
        "device": parts.device.describe(),
        "git_commit": git_commit(),
        "versions": library_versions(),
    }
    return facts | {"found": found}


def write(facts: dict[str, Any], folder: Path) -> None:
    """Write the figure and the JSON file, and print what they show."""
    from cifar.reports.figures.range_test import STEM, draw_range_test

    found, warnings = facts.pop("found"), list[str]()
    write_json(folder / f"{STEM}.json", facts)
    draw_range_test(found, folder, warnings)
    end = "where the loss blew up" if found.has_blown_up else "the last one; the loss did not blow up"
    print(f"{len(found.lrs)} steps at rates from {found.lrs[0]:.1e} to {found.lrs[-1]:.1e}, {end}.")
    steep = "never falls" if found.steepest is None else f"falls most steeply at {found.steepest:.1e}"
    print(f"The smoothed loss {steep}, and is lowest at {found.lowest:.1e}.")
    if not found.has_blown_up and found.lowest == found.lrs[-1]:
        print("That is the last rate that was tried: a larger --high would tell more.")
    middle = found.lowest / 10
    lrs = f"lr={middle / 3:.1g},{middle:.1g},{3 * middle:.1g}"
    sweep = shlex.join(["cifar", "run", "-m", *facts["words"], lrs, f"data.val_size={facts['num_images'] // 10}"])
    print(LIMITS.format(command=sweep))
    print(f"Figure: {shown(folder / f'{STEM}.png')} (and {STEM}.svg, {STEM}.json)", *warnings, sep="\n")
