"""What ${…:…} in the configuration computes; importing this registers it. Nothing here imports torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from cifar.base.errors import UserError
from cifar.data.files.class_folders import content_of, num_classes_in

# What OmegaConf puts before the message of a resolver of ours
RESOLVING = f"{UserError.__name__} raised while resolving interpolation: "


def pick(name: Any, choices: dict[str, Any]) -> Any:
    """Return the value of a choice."""
    if name not in choices:
        raise UserError(f"{name!r} is not possible: it takes one of {', '.join(choices)}.")
    return choices[name]


# ${constructor:${model._target_}} is "resnet50": a name for a folder that belongs to one model
OmegaConf.register_new_resolver("constructor", lambda target: target.rpartition(".")[2], replace=True)
# ${times:0.05,${batch_size}} is a learning rate for the mean of a batch that was found for the sum
OmegaConf.register_new_resolver("times", lambda first, second: first * second, replace=True)
# ${num_classes:${data.classes},10} is as many as are chosen, or all ten
OmegaConf.register_new_resolver("num_classes", lambda chosen, all: all if chosen is None else len(chosen), replace=True)
# ${pick:${data.source.labels},{fine:100,coarse:20}} is what stands beside the name
OmegaConf.register_new_resolver("pick", pick, replace=True)
# ${classes_in:${data.root}} and ${pictures_in:${data.root}} tell of a folder how many classes and what files it has
OmegaConf.register_new_resolver("classes_in", num_classes_in, replace=True)
OmegaConf.register_new_resolver("pictures_in", content_of, replace=True)


@contextmanager
def resolvers_heard() -> Iterator[None]:
    """Raise the `UserError` of a resolver of ours as it is, which OmegaConf has wrapped."""
    try:
        yield
    except InterpolationResolutionError as error:
        if not (error.msg or "").startswith(RESOLVING):
            raise
        raise UserError(str(error.msg).removeprefix(RESOLVING).splitlines()[0]) from None
