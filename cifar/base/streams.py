"""Standard output and error that may be closed, or lose their terminal, without failing a run."""

import errno
import io
import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GONE = (errno.EIO, errno.EBADF)  # what writing gives when the terminal has hung up, or the file is closed


class Output(io.FileIO):
    """A file that goes on as the null device when it is gone."""

    def write(self, data: "ReadableBuffer") -> int:
        """Write the bytes, or drop them if there is nobody left to read them."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            point_to_nothing(self.fileno())
            return memoryview(data).nbytes


def point_to_nothing(number: int) -> None:
    """Make the null device the process's file `number`, for its libraries and children too."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def secure() -> None:
    """Let the process go on whatever its standard streams can't show, and without those that are closed or go later."""
    names = ("stdin", "stdout", "stderr")
    for number in range(len(names)):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would get what is meant for the stream
            point_to_nothing(number)
    for number, name in enumerate(names):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115
        stream = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="replace")  # of a character that it can't show
        if number and is_plain(stream) and stream.fileno() == number:
            stream.flush()
            replacement = tolerant(stream, number)
            setattr(sys, name, replacement)
            for handler in logging.getLogger().handlers:  # what is shown on the console is told by its stream
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(replacement)


def is_plain(stream: object) -> bool:
    """Return whether Python opened the stream so at its start, and nobody has replaced it."""
    buffer = getattr(stream, "buffer", None)
    return type(stream) is io.TextIOWrapper and io.FileIO in (type(buffer), type(getattr(buffer, "raw", None)))


def tolerant(stream: io.TextIOWrapper, number: int) -> io.TextIOWrapper:
    """Return the stream over an `Output`, buffered if it was."""
    output = Output(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(output) if isinstance(stream.buffer, io.BufferedWriter) else output,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
