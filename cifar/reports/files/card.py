"""A run's model card: what a reader of a hub asks first, every number from the run's own files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cifar.base.nested import flatten
from cifar.base.run_folder import write_atomically
from cifar.experiment.config import decides_numbers
from cifar.experiment.typed.command_line import run_command
from cifar.reports.files.markdown import escape, row
from cifar.reports.findings.card import Card, shown_time
from cifar.reports.findings.classification import Share, bins, calibration_error, confusion, per_class
from cifar.reports.findings.wording import percent, printable
from cifar.reports.runs.results import show

HUB_IDS = {  # data sets that hubs know
    "cifar.data.sources.cifar10.CIFAR10": "uoft-cs/cifar10",
    "cifar.data.sources.cifar100.CIFAR100": "uoft-cs/cifar100",
}


def card_text(card: Card) -> str:
    """Return the card as Markdown, with the head in YAML that hubs read."""
    head = yaml.safe_dump(metadata(card), sort_keys=False, allow_unicode=True, width=1000)
    sections = {
        "Results": results(card),
        "Data": data(card),
        "Protocol": protocol(card),
        "Training configuration": configuration(card),
        "Hardware and time": hardware(card),
        "Limits": limits(card),
        "How to use": usage(card),
    }
    body = "".join(f"\n## {title}\n\n{chr(10).join(lines)}\n" for title, lines in sections.items())
    return f"---\n{head}---\n\n# {escape(card.name)}\n\n{introduction(card)}\n{body}"


def metadata(card: Card) -> dict[str, Any]:
    """Return the head: licence, if it is known, tags, data set, metrics and results."""
    metrics = [{"type": "accuracy", "name": "Test accuracy", "value": card.accuracy.fraction}]
    if card.tta_accuracy is not None:
        name = f"Test accuracy, test-time augmentation {card.config['tta']}"
        metrics.append({"type": "accuracy", "name": name, "value": card.tta_accuracy.fraction})
    hub_id = HUB_IDS.get(card.source)
    data_set = {"name": card.data_name, "type": hub_id or card.source.rpartition(".")[2].lower(), "split": "test"}
    task = {"type": "image-classification", "name": "Image classification"}
    return {
        **({"license": card.license} if card.license else {}),
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pytorch", card.architecture, "cifar-framework"],
        **({"datasets": [hub_id]} if hub_id else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": card.name, "results": [{"task": task, "dataset": data_set, "metrics": metrics}]}],
    }


def introduction(card: Card) -> str:
    """Return what the model is, in a sentence, and how it was made."""
    size = f" of {card.image_size[1]}×{card.image_size[0]} pixels" if card.image_size else ""
    return (
        f"{escape(card.architecture)} with {card.num_parameters:,} parameters. It takes RGB images{size} and tells "
        f"{len(card.names)} classes apart: {escape(', '.join(card.names))}. Test accuracy: "
        f"**{percent(card.accuracy.fraction)}** (95 % interval {ends(card.accuracy)}, "
        f"{card.accuracy.total:,} images)."
    )


def ends(share: Share) -> str:
    """Return the ends of an interval, such as "93.4–94.4"."""
    low, high = share.interval
    return f"{100 * low:.2f}–{100 * high:.2f} %"


def results(card: Card) -> Iterator[str]:
    """Yield the accuracies, overall and per class, and how far the confidence is true."""
    rows = [("test images", card.accuracy)]
    if card.tta_accuracy is not None:
        rows.append((f"test images, test-time augmentation {card.config['tta']}", card.tta_accuracy))
    if card.val_accuracy is not None:
        rows.append(("validation images, held out of the training set", card.val_accuracy))
    yield row(["Accuracy on", "of so many", "accuracy", "95 % interval"])
    yield "| --- | ---: | ---: | ---: |"
    for name, share in rows:
        yield row([name, f"{share.total:,}", percent(share.fraction), ends(share)])
    yield ""
    yield (
        "The intervals are Wilson's. They hold the chance in the choice of images, not that in training: this is one "
        f"run, with seed {card.config['seed']}."
    )
    yield ""
    yield row(["Class", "test images", "accuracy", "95 % interval"])
    yield "| --- | ---: | ---: | ---: |"
    for name, share in zip(card.names, per_class(card.answers), strict=False):
        if share.total:
            yield row([name, f"{share.total:,}", percent(share.fraction), ends(share)])
    found = bins(card.answers)
    yield ""
    yield (
        f"Calibration on the test images: negative log-likelihood {card.answers.loss.mean(dtype=float):.4f}, Brier "
        f"score {card.answers.brier.mean(dtype=float):.4f}, expected calibration error "
        f"{100 * calibration_error(found):.2f} % (15 bins of equal width)."
    )


def data(card: Card) -> Iterator[str]:
    """Yield what the model was trained and tested on, and how an image is normalised."""
    stored = card.config["data"]
    limit, val_size = stored["limit"], stored["val_size"]
    used = f"the first {limit:,} of its training images" if limit else "its training images"
    held_out = f", without {val_size:,} that were held out (stratified, data.split_seed={stored['split_seed']})"
    yield f"- Trained on {escape(card.data_name)}: {used}{held_out if val_size else ''}."
    first = "the first " if stored["test_limit"] else ""
    yield f"- Tested on {first}{card.accuracy.total:,} of its test images, SHA-256 {card.answers.test_set[:16]}…"
    yield (
        f"- An image is normalised as (pixels / 255 - mean) / std per channel, with mean {show(stored['mean'])} and "
        f"std {show(stored['std'])}."
    )


def protocol(card: Card) -> Iterator[str]:
    """Yield how the number came about."""
    val_size = card.config["data"]["val_size"]
    yield "- The test images were evaluated once, after training; this run chose nothing by them."
    if val_size:
        yield f"- {val_size:,} validation images were held out of the training set to choose by."
    else:
        yield "- No validation images were held out: a choice between this run and others had the test images only."
    began = card.config["init_from"]
    yield f"- The first weights: {'those of ' + escape(str(began)) if began else 'random, by the seed'}."
    if card.summary.get("skipped_steps"):
        yield f"- {card.summary['skipped_steps']:,} steps were left out, because their loss or gradient was not finite."
    if card.config["tta"] != "none":
        yield f"- Accuracies are of single views, but where test-time augmentation ({card.config['tta']}) is named."


def configuration(card: Card) -> Iterator[str]:
    """Yield the command and every value that can change the numbers."""
    if (words := card.summary.get("overrides")) is not None:
        yield from ("```bash", printable(run_command(words, card.summary.get("flags", []))), "```", "")
    yield row(["Key", "value"])
    yield "| --- | --- |"
    for key, value in flatten(card.config).items():
        if decides_numbers(key):
            yield row([key, value if isinstance(value, str) else json.dumps(value)])


def hardware(card: Card) -> Iterator[str]:
    """Yield where it was trained, for how long and with which software."""
    summary = card.summary
    steps = f", {summary['steps']:,} steps" if "steps" in summary else ""
    yield f"- {escape(', '.join(summary[key] for key in ('device', 'precision') if key in summary) or 'Unknown')}."
    if "train_seconds" in summary:
        yield (
            f"- Training: {shown_time(summary['train_seconds'])} for {show(summary.get('epochs'))} epochs{steps}"
            + (f", {summary['images_per_second']:,.0f} images/s." if "images_per_second" in summary else ".")
        )
    versions = {str(name): str(text) for name, text in summary.get("versions", {}).items()}
    yield f"- Software: {escape(', '.join(f'{name} {text}' for name, text in versions.items()) or 'unknown')}."
    known = {"Commit": "git_commit", "Hash of the configuration": "config_hash"}
    yield from (f"- {title}: {escape(summary[key])}." for title, key in known.items() if key in summary)


def limits(card: Card) -> Iterator[str]:
    """Yield what the numbers do not say, and where the model is weakest."""
    shares = [(share, name) for share, name in zip(per_class(card.answers), card.names, strict=False) if share.total]
    worst, name = min(shares, key=lambda pair: pair[0].fraction)
    yield (
        f"- Weakest class: {escape(name)}, {percent(worst.fraction)} of {worst.total:,} images "
        f"(95 % interval {ends(worst)})."
    )
    matrix = confusion(card.answers)
    matrix[range(len(matrix)), range(len(matrix))] = 0
    if matrix.max():
        true, said = divmod(int(matrix.argmax()), len(matrix))
        names = card.answers.names()
        yield f"- Most frequent mistake: {escape(names[true])} taken for {escape(names[said])}, {matrix.max():,} times."
    yield f"- Every image gets one of the {len(card.names)} classes, also one that shows something else."
    yield (
        "- Measured on images like those that it was trained on. Other sources, corrupted images, attacks and the "
        "fairness of its mistakes were not examined."
    )
    yield "- One run: another seed gives another number. Only runs over several seeds say how far they scatter."
    if not card.license:
        yield "- No licence is stated here. Ask before you use the weights or pass them on."


def usage(card: Card) -> Iterator[str]:
    """Yield the ways to classify an image."""
    yield "With the folder of the run, or its `checkpoint.pt` alone; normalisation and class names travel with it:"
    yield from ("", "```python", "import cifar", "from PIL import Image", "")
    target = card.config["model"]["_target_"]
    is_shipped = target.startswith("cifar.models.")
    word = printable(f"model._target_={target}")
    yield f'run = cifar.load_run("checkpoint.pt"{"" if is_shipped else f", [{word!r}]"})'
    yield 'names, probabilities = run.predict(Image.open("image.png"))'
    yield from (
        "```",
        "",
        "```bash",
        "cifar predict checkpoint.pt image.png",
        "cifar export checkpoint.pt --format onnx",
        "```",
    )


def write_card(card: Card, path: Path) -> None:
    """Write the card, whole or not at all."""
    write_atomically(path, lambda file: file.write(card_text(card).encode()))
