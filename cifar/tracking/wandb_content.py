"""Pictures, tables and charts as Weights & Biases takes them: of the test images and of a sweep's report."""

import csv
from pathlib import Path
from typing import Any

from cifar.tracking.predictions import Predictions

NUM_WRONG = 32  # most confidently wrong images that are shown


def of_predictions(test: Predictions) -> dict[str, Any]:
    """Return confusion matrix, accuracy per class and the most confidently wrong images with their pictures."""
    import wandb

    names = test.names()
    matrix = wandb.plot.confusion_matrix(
        y_true=test.labels.tolist(), preds=test.predicted.tolist(), class_names=names, title="Test images"
    )
    accuracies = test.class_accuracies()
    classes = wandb.Table(columns=["class", "accuracy"], data=[[*pair] for pair in accuracies.items()])
    wrong = wandb.Table(columns=["picture", "class", "predicted", "confidence"])
    pictures = []  # beside the table: an offline run holds only these where wandb leet finds them
    for index in test.most_confidently_wrong(NUM_WRONG):
        actual, predicted = (names[int(label[index])] for label in (test.labels, test.predicted))
        confidence = float(test.confidences[index])
        caption = f"{actual}, predicted {predicted} ({100 * confidence:.1f} %)"
        pictures.append(wandb.Image(test.images[index].permute(1, 2, 0).numpy(), caption=caption))  # (H, W, C)
        wrong.add_data(pictures[-1], actual, predicted, confidence)
    return {
        "test/confusion_matrix": matrix,
        "test/class_accuracy": wandb.plot.bar(classes, "class", "accuracy", title="Accuracy on the test images"),
        "test/most_confidently_wrong": wrong,
        "test/most_confidently_wrong_pictures": pictures,
    }


def of_report(folder: Path) -> dict[str, Any]:
    """Return a sweep's report: the page, the figures as pictures, the table of points."""
    import wandb

    content: dict[str, Any] = {}
    if (page := folder / "report.html").is_file():
        content["report/page"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
    for figure in sorted(folder.glob("*.png")):
        content[f"report/{figure.stem}"] = wandb.Image(str(figure))
    if (table := folder / "report.csv").is_file():
        heading, *rows = csv.reader(table.read_text(encoding="utf-8").splitlines())
        content["report/points"] = wandb.Table(columns=[*heading], data=rows)
    return content
