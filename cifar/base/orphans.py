"""A launcher's workers end themselves when the process that started them is gone, however it went."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.5


class Watch:
    """Look whether the parent process still lives; when it does not, save what runs and end."""

    def __init__(self) -> None:
        self.parent = os.getppid()
        self.is_working = threading.Lock()
        threading.Thread(target=self.look, daemon=True).start()

    def look(self) -> None:
        """Wait for the parent's end, then for that of the job, which a signal asks for."""
        while os.getppid() == self.parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        with self.is_working:
            os._exit(128 + signal.SIGTERM)


_watch: Watch | None = None  # one process has one parent


@contextmanager
def ended_with_parent() -> Iterator[None]:
    """Do the work of a worker, which its parent's death ends early."""
    global _watch
    _watch = _watch or Watch()
    with _watch.is_working:
        yield
