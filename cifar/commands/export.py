"""Write a trained run to one file for others to use: `cifar export outputs/DATE/TIME --format onnx`."""

from cifar.base.errors import UserError
from cifar.base.paths import absolute, shown
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser, load, split_words

KINDS = ("onnx", "torch", "safetensors")
REFERENCE = ("device.name=cpu", "device.precision=fp32")  # what the file is compared with

EXAMPLES = """\
  cifar export outputs/2026-11-23/06-11-37 --format onnx                  for onnxruntime: model.onnx in that folder
  cifar export outputs/2026-11-23/06-11-37 --format torch --output a.pt2  for torch, without this program
  cifar export multirun/2026-11-23/07-00-00 --best --format safetensors   weights, with all that belongs to them

ONNX and torch files take uint8 images (N, 3, height, width), any number of them, and give probabilities: normalisation
and softmax are inside. Class names, accuracy, command, commit and versions are in every file's metadata. Before a file
is written, its answers are compared with the run's on 100 test images. Words KEY=VALUE are as for cifar run: device,
model._target_ of your own model."""


def command() -> None:
    """Export what the command line names."""
    guard(export_run)


def export_run() -> None:
    """Export a run, and print what uses the file."""
    parser = Parser("export", "Write a trained run to one file for others to use.", EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="a run's folder or a checkpoint")
    parser.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--format", required=True, choices=KINDS, help="the kind of file")
    parser.add_argument("--output", metavar="FILE", help="where to write it: the run's folder, model.onnx and its like")
    parser.add_argument("--int8", action="store_true", help="ONNX with 8-bit convolutions; its accuracy is measured")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.add_run_options()
    options = parser.parse_intermixed_args()
    others, words = split_words(options.words)
    if others:
        raise UserError(f"{others[0]!r} is too much: one run is exported, and its words are KEY=VALUE.")
    if options.int8 and options.format != "onnx":
        raise UserError(f"--int8 is not possible for --format {options.format}: only for onnx.")
    from cifar.experiment.exports.export import FORMATS, export  # imports torch, which takes seconds

    FORMATS[options.format].refuse_missing()
    run = load(options.run, [*REFERENCE, *words], options)
    path = absolute(options.output) if options.output else run.folder / f"model{FORMATS[options.format].suffix}"
    done = export(run, options.format, path, options.force, options.int8)
    print(f"{shown(done.path)}: {done.num_bytes / 1e6:,.2f} MB. On {done.images}, in batches of 1, 7 and all,")
    before = " before it was made 8-bit" if done.accuracies else ""
    print(f"a probability differs from the run's by {done.difference:.1e} at most{before}.")
    for name, value in done.accuracies.items():
        print(f"Accuracy on the run's test images, {name}: {100 * value:.2f} %")
    print("It is used like this:")
    print("", *done.lines, sep="\n")
