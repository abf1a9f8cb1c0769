"""What a run, its project, tags and metrics are called at Weights & Biases, within the service's limits."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar.base.errors import UserError
from cifar.tracking.tracking import RunInfo

if TYPE_CHECKING:
    from wandb import Settings

# Characters that the service takes.
NAME_LIMIT, TAG_LIMIT, ID_LIMIT, KEY_LIMIT = 128, 64, 64, 128


@dataclass(frozen=True)
class Called:
    """What the configuration says that runs are called."""

    name: str | None
    group: str | None
    job_type: str | None


def names_of_run(info: RunInfo, called: Called, own: "Settings") -> dict[str, Any]:
    """Return the run's name, its group and its kind; `own` is what the environment says."""
    name = called.name or own.run_name
    if name and info.group is not None:
        name = f"{name} {info.name}"
    found = {
        "name": name or info.name,
        "group": called.group or own.run_group or info.group,
        "job_type": info.job_type or called.job_type or own.run_job_type,
    }
    return {key: text and fitting(text, NAME_LIMIT) for key, text in found.items()}


def project_name(project: str | None) -> str | None:
    """Return the project's name; raise `UserError` for one that the service does not take."""
    if project is not None and (len(project) > NAME_LIMIT or re.search(r"[/\\#?%:]", project) or not project):
        raise UserError(
            f"tracker.project={project!r} is not possible: it takes a name of at most {NAME_LIMIT} characters "
            "without / \\ # ? % :"
        )
    return project


def as_text(key: str, value: Any) -> str | None:
    """Return a value of the configuration as text: a project may be called 2026; raise `UserError` for a list."""
    if isinstance(value, (list, dict)):
        raise UserError(f"tracker.{key}={value!r} is not possible: it takes a text.")
    return None if value is None else str(value)


def fitting(text: str, limit: int) -> str:
    """Return the text, or if it is too long its beginning and end, with a hash between that tells it from others."""
    text = text.encode(errors="replace").decode()
    if len(text) <= limit:
        return text
    middle = f"…{hashlib.sha256(text.encode()).hexdigest()[:8]}…"
    tail = (limit - len(middle)) // 2
    return f"{text[: limit - len(middle) - tail]}{middle}{text[-tail:]}"


def fitting_tags(tags: list[str]) -> list[str]:
    """Return the tags as the service takes them: none empty, none too long."""
    return [fitting(tag.strip(), TAG_LIMIT) for tag in tags if tag.strip()]


def fitting_keys(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics, pictures or figures with keys that the service takes."""
    return {fitting(key, KEY_LIMIT): value for key, value in metrics.items()}
