"""Guard standard output and standard error, so that a stream that cannot be written does not hide what a command did.

A full disk or a closed stream is an error of the answer, not of the command. A command that changes something runs to
its end; its answer then goes to standard error, and its exit code is Exit.UNREPORTED. A command that only reads ends at
the first write that fails. A reader that closes the pipe (`| head`) is no error. Errors of standard error are ignored:
the exit code still holds.

smrx.cli.run() uses guard() around every command; command files print as usual.
"""

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

import click

from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Commands, and groups of commands, that change nothing which outlives them. All others are taken to change something.
READS: Final = (
    *("account balances", "account list", "account positions", "account show", "asset list", "bench", "book"),
    *(
        "history",
        "cluster status",
        "instrument list",
        "key list",
        "log",
        "market show",
        "order list",
        "settle report",
        "settle verify",
    ),
    *("shadow", "sim", "snapshot list", "snapshot verify"),
)
#: Parameters that name what a command did; the answer on standard error repeats them.
_IDS: Final = ("account", "account_id", "symbol", "order_id", "client_order_id", "transfer_id", "node_id", "number")
_META: Final = "smrx.ids"
#: An answer longer than this is cut at the front: its end holds the result.
_MAX_ANSWER_BYTES: Final = 1 << 20


class OutputFailed(Exception):
    """Standard output cannot be written, and the command only reads; guard() handles it."""


class Output:
    """What the running command wrote to standard output, and whether that failed."""

    def __init__(self) -> None:
        self.fault: OSError | None = None
        self.is_lost = False
        self.only_reads = False
        self._answer = bytearray()
        self._context: click.Context | None = None

    def note_context(self) -> None:
        """Store the command that writes; when the buffer is flushed at the end, no command runs any more."""
        if self._context is None:
            self._context = click.get_current_context(silent=True)

    def written(self, data: bytes) -> None:
        """Keep a part of the answer in case it, or a later part, cannot be written."""
        self._answer += data
        del self._answer[: max(0, len(self._answer) - _MAX_ANSWER_BYTES)]

    @property
    def has_written(self) -> bool:
        """Whether the command wrote anything to standard output."""
        return bool(self._answer)

    def lost(self) -> None:
        """Handle a write that failed. Raises OutputFailed if the command only reads."""
        self.note_context()
        self.is_lost = True
        if self._context is not None and _only_reads(self._context):
            self.only_reads = True
            raise OutputFailed

    def exit_code(self, code: int) -> int:
        """Return the exit code of a command that ended with `code`; put an answer that was lost on standard error."""
        if not self.is_lost or self.fault is None or self.fault.errno == errno.EPIPE:
            return code
        why = self.fault.strerror
        if self.only_reads:
            click.echo(f"smrx: the answer could not be written to standard output: {why}", err=True)
            return code or int(Exit.RESOURCE)
        state = "the command is done" if code == Exit.OK else f"the command ended with exit code {code}"
        click.echo(
            f"smrx: {state}, but its answer could not be written to standard output: {why}. The answer:", err=True
        )
        click.echo(self._answer.decode(errors="replace").rstrip("\n"), err=True)
        ids = self._ids()
        if ids:
            click.echo(f"ids: {', '.join(f'{name} {value}' for name, value in ids.items())}", err=True)
        return code or int(Exit.UNREPORTED)

    def _ids(self) -> dict[str, object]:
        if self._context is None:
            return {}
        given = {name: self._context.params.get(name) for name in _IDS}
        found = {**given, **self._context.meta.get(_META, {})}
        return {name.replace("_", " "): value for name, value in found.items() if value is not None}


class _Ignored:
    """Drop the errors of standard error: no stream is left that could report them."""

    fault: OSError | None = None

    def note_context(self) -> None:
        """Do nothing."""

    def written(self, data: bytes) -> None:
        """Do nothing."""

    def lost(self) -> None:
        """Do nothing."""


def record_ids(**ids: object) -> None:
    """Record what the running command did, for the case that its answer cannot be written."""
    click.get_current_context().meta.setdefault(_META, {}).update(ids)


@contextmanager
def guard() -> Iterator[Output]:
    """Guard both streams of this process while a command runs. Streams that were replaced, as by a test, stay.

    A closed stream becomes /dev/null, so that no file or socket of the command gets its descriptor.
    """
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        _open_if_closed(descriptor)
    output = Output()
    # None: the stream was closed when the interpreter started.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _Text(_Standard(1, output, is_closed=sys.stdout is None), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _Text(_Standard(2, _Ignored(), is_closed=sys.stderr is None), sys.stderr)
    try:
        yield output
    finally:
        flush()
        sys.stdout, sys.stderr = before


def flush() -> None:
    """Write what is buffered for standard output; Output holds the fault if that fails."""
    with suppress(OutputFailed):
        sys.stdout.flush()


def finish(output: Output) -> None:
    """Write what is buffered, and find errors that the system reports only when a file is closed.

    A network file system, or one with quotas, may accept all writes and report at the close that they failed.
    """
    flush()
    if output.fault is not None or not output.has_written or not isinstance(sys.stdout, _Text):
        return
    try:
        # Closing any descriptor of a file reports its errors; descriptor 1 stays open.
        os.close(os.dup(1))
    except OSError as error:
        output.fault = error
        with suppress(OutputFailed):
            output.lost()


class _Standard(io.FileIO):
    """One of the two descriptors. After a write failed, it accepts and drops everything."""

    def __init__(self, descriptor: int, output: "Output | _Ignored", *, is_closed: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.output = output
        if is_closed:
            output.fault = OSError(errno.EBADF, "it is closed")

    def write(self, data: "ReadableBuffer", /) -> int:
        part = bytes(data)
        self.output.written(part)
        if self.output.fault is None:
            try:
                # None: the descriptor does not block, and another process set that; wait as if it did.
                while (count := super().write(part)) is None:
                    select.select([], [self], [])
                return count
            except OSError as error:
                self.output.fault = error
        if part:
            self.output.lost()
        return len(part)


class _Text(io.TextIOWrapper):
    """A guarded stream for text, with the encoding of the stream that it replaces."""

    def __init__(self, raw: _Standard, replaced: TextIO | None) -> None:
        super().__init__(
            io.BufferedWriter(raw),
            encoding=None if replaced is None else replaced.encoding,
            errors="backslashreplace" if replaced is None else replaced.errors,
            line_buffering=raw.fileno() == 2 or raw.isatty(),
        )
        self._output = raw.output

    def write(self, text: str, /) -> int:
        self._output.note_context()
        return super().write(text)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        os.set_inheritable(descriptor, True)


def _only_reads(context: click.Context) -> bool:
    words = context.command_path.split()[1:]
    names = {" ".join(words[:length]) for length in range(1, len(words) + 1)}
    return bool(context.params.get("dry_run")) or not names.isdisjoint(READS)
