"""Lay out a Weights & Biases project: cifar workspace --entity TEAM --project cifar

Creates a saved view whose panels are those that the README lists. It needs the extra `workspaces` and a login.
"""

import logging
from typing import Any

from cifar.base.errors import UserError
from cifar.base.paths import python
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser
from cifar.tracking.wandb_settings import PROJECT, answers, environment, has_api_key

TIMEOUT_SECONDS = 20
# The sections of the view, with the keys that each panel shows.
LAYOUT: dict[str, list[list[str]]] = {
    "Accuracy": [["val/accuracy"], ["test/accuracy"], ["train/accuracy"]],
    "Loss": [["train/loss"], ["val/loss"], ["test/loss"]],
    "Training": [["lr"], ["train/grad_norm"], ["train/images_per_second"]],
}
PICTURES = ["test/confusion_matrix_table", "test/class_accuracy_table", "test/most_confidently_wrong"]

EXAMPLES = """\
  cifar workspace --entity TEAM --project cifar"""


def make_workspace(entity: str, project: str, name: str) -> Any:
    """Return the view, not yet saved: a section for each of `LAYOUT`, then one for the test images."""
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError(
            "cifar.commands.workspace needs a package that is not installed: pip install 'cifar-framework[workspaces]'"
        ) from error
    sections = [
        workspaces.Section(
            name=title, is_open=True, panels=[panels.LinePlot(title=keys[0], x="Step", y=keys) for keys in rows]
        )
        for title, rows in LAYOUT.items()
    ]
    tables = [panels.WeavePanelSummaryTable(table_name=name) for name in PICTURES]
    sections.append(workspaces.Section(name="Test images", is_open=True, panels=tables))
    return workspaces.Workspace(entity=entity, project=project, name=name, sections=sections)


def main() -> None:
    """Create the view that the command line names."""
    parser = Parser("workspace", "Create a view with this project's panels in Weights & Biases.", EXAMPLES)
    parser.add_argument("--entity", help="a user or a team, default: WANDB_ENTITY")
    parser.add_argument("--project", help=f"default: WANDB_PROJECT, or {PROJECT}")
    parser.add_argument("--name", default="CIFAR-10", help="the view's name, default: CIFAR-10")
    options = parser.parse_args()
    logging.getLogger("wandb").setLevel(logging.CRITICAL)
    own = environment()
    url, entity = own.base_url, options.entity or own.entity
    if entity is None:
        raise UserError("Whose project is it? Give --entity TEAM, or set WANDB_ENTITY.")
    workspace = make_workspace(entity, options.project or own.project or PROJECT, options.name)
    if not has_api_key(url):
        raise UserError(f"There is no API key; {python()} -m wandb login stores one.")
    if not answers(url, TIMEOUT_SECONDS):
        raise UserError(f"There is no answer from {url}.")
    try:
        workspace.save()
    except Exception as error:  # whatever the server or its client objects to
        reason = " ".join(str(error).split())
        raise UserError(f"The view could not be saved: {type(error).__name__}: {reason}") from error
    print(workspace.url)


def command() -> None:
    """Do what the command line says."""
    guard(main)
