"""What Weights & Biases is told of a run: by the command line, else its environment variables, else our defaults.

Its settings files (`wandb login`, `wandb init`, `wandb offline`) count as its environment variables do, but after them.
"""

import atexit
import http.client
import netrc
import os
import shutil
import ssl
import tempfile
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cifar.base.errors import UserError
from cifar.base.paths import has_home, python
from cifar.tracking.wandb_names import fitting_tags

if TYPE_CHECKING:
    from wandb import Settings

PROJECT, TIMEOUT_SECONDS = "cifar", 20.0  # where neither the command line nor the environment says something
LONGEST_SECONDS = 86_400  # to wait for the server
OLD_MODES = {"dryrun": "offline", "run": "online"}
# Its console output is ours to make, unless the environment asks for its own.
QUIET: dict[str, Any] = {"silent": True, "console": "off"}


def environment() -> "Settings":
    """Return what its environment variables and settings files say; raise `UserError` if that is impossible."""
    do_without_home()
    if tags := os.environ.get("WANDB_TAGS"):
        os.environ["WANDB_TAGS"] = ",".join(fitting_tags(tags.split(",")))
        if not os.environ["WANDB_TAGS"]:
            del os.environ["WANDB_TAGS"]
    import wandb  # a second, so only when used
    from pydantic import ValidationError

    paths = os.environ.pop("WANDB_CONFIG_PATHS", None)  # which it documents, and stumbles over
    own = wandb.Settings(config_paths=paths.split(",")) if paths else None
    try:
        if wandb.setup(own).did_environment_change():
            wandb.teardown()  # it reads the environment once, and a process may make several runs
        return wandb.setup(own).settings
    except ValidationError as error:
        problem = error.errors()[0]
        name = variable_with(problem["input"]) or str(problem["loc"][0])
        reason = problem["msg"].removeprefix("Value error, ").rstrip(".")
        raise UserError(f"{name}={problem['input']} is not possible for Weights & Biases: {reason}.") from error
    except wandb.errors.UsageError as error:
        raise UserError(f"The environment is not possible for Weights & Biases: {error}") from error
    finally:
        if paths is not None:
            os.environ["WANDB_CONFIG_PATHS"] = paths


def variable_with(value: Any) -> str | None:
    """Return the environment variable of Weights & Biases that has the value, if there is one."""
    return next((name for name, text in os.environ.items() if name.startswith("WANDB_") and text == value), None)


def settings_of_run(own: "Settings") -> dict[str, Any]:
    """Return the settings that are ours, where the environment has none of its own."""
    return {name: value for name, value in QUIET.items() if name not in own.model_fields_set}


def do_without_home() -> None:
    """Give the library a place for its own files until the process ends, if the user has no home to keep them in."""
    if not has_home() and "WANDB_CACHE_DIR" not in os.environ:
        place = tempfile.mkdtemp(prefix="cifar-wandb-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ["WANDB_CACHE_DIR"] = place
        os.environ.setdefault("XDG_DATA_HOME", place)  # it is asked for even beside WANDB_DATA_DIR
        if not os.path.isdir(os.path.expanduser("~")):
            os.environ.setdefault("WANDB_CONFIG_DIR", place)


def has_api_key(url: str) -> bool:
    """Return whether there is a way to log in to the server: a key in WANDB_API_KEY or in netrc, or a token's file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = os.environ.get("NETRC") or next(
        (path for path in map(os.path.expanduser, ("~/.netrc", "~/_netrc")) if os.path.isfile(path)), None
    )
    try:
        return path is not None and netrc.netrc(path).authenticators(urlsplit(url).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def answers(url: str, timeout_seconds: float, is_verified: bool = True) -> bool:
    """Return whether a web server answers at `url` at all, be it with an error.

    Its certificate must be good, unless `is_verified` is False.
    """
    context = ssl.create_default_context()
    if not is_verified:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        urllib.request.urlopen(url, timeout=timeout_seconds, context=context).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


def choose_mode(asked: str, own: "Settings", timeout_seconds: float) -> tuple[str, str]:
    """Return the mode for wandb.init when tracker.mode is `asked`, and why; `own` is what the environment says.

    Raises `UserError` if tracker.mode=online is not possible.
    """
    if asked == "offline":
        return "offline", "tracker.mode=offline"
    wanted = OLD_MODES.get(own.mode, own.mode) if asked == "auto" else asked
    if wanted in ("offline", "disabled"):
        return wanted, f"WANDB_MODE={own.mode}" if "WANDB_MODE" in os.environ else "wandb's settings say so"
    if not has_api_key(own.base_url):
        problem = f"no API key; {python()} -m wandb login stores one"
    elif not answers(own.base_url, timeout_seconds, is_verified=not own.insecure_disable_ssl):
        problem = f"no answer from {own.base_url}"
    else:
        return wanted, "an API key is configured"
    if asked == "online":
        raise UserError(f"tracker.mode=online is not possible: {problem}. Use tracker.mode=offline or tracker=none.")
    return "offline", problem


def refuse_timeout(value: Any) -> None:
    """Raise `UserError` if the value can't be the seconds to wait for a server."""
    if value is not None and not (isinstance(value, (int, float)) and 0 < value <= LONGEST_SECONDS):
        raise UserError(
            f"tracker.timeout_seconds={value!r} is not possible: it takes a positive number, at most {LONGEST_SECONDS}."
        )
