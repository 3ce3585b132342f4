"""What an exception means for the person at the terminal: an exit code and one sentence.

Exceptions are known by name, because importing their modules would make every command wait for parts it does not use.
A test holds the names against the classes.
"""

import errno
from typing import Final

from smrx.cli.exit_codes import Exit

#: Errors whose own message is the sentence.
EXIT_CODES: Final = {
    "smrx.config.ConfigError": Exit.USAGE,
    "smrx.node.reactor.PortInUseError": Exit.RESOURCE,
    "smrx.consensus.recovery.MetaError": Exit.RESOURCE,
    "smrx.consensus.disk_journal.JournalError": Exit.RESOURCE,
    "smrx.consensus.snapshot_files.SnapshotError": Exit.RESOURCE,
    "smrx.node.log_reader.LogReadError": Exit.USAGE,
    "smrx.consensus.storage.StorageError": Exit.RESOURCE,
    "smrx.consensus.storage.StorageFailed": Exit.DISK,
    "smrx.consensus.keys.KeysError": Exit.RESOURCE,
    "smrx.local.LocalClusterError": Exit.UNAVAILABLE,
    "smrx.bench.bench_error.BenchError": Exit.UNAVAILABLE,
    "smrx.bench.bench_error.WrongResultError": Exit.INTERNAL,
    "smrx.bench.failover_bench.OrdersDiffer": Exit.DIVERGED,
    "smrx.tape.tape_error.TapeError": Exit.USAGE,
    "smrx.client.client_errors.Refused": Exit.REFUSED,
    "smrx.client.client_errors.Unavailable": Exit.UNAVAILABLE,
    "smrx.client.client_errors.InvalidValue": Exit.USAGE,
    "smrx.client.client_errors.ProtocolError": Exit.UNAVAILABLE,
}

_LOCAL_ERRNOS: Final = {
    errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EMFILE,
    errno.EDQUOT, errno.ENOMEM,
}  # fmt: skip


class CliError(Exception):
    """A command's own verdict: one sentence and the exit code that goes with it."""

    def __init__(self, code: Exit, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def explain(error: BaseException) -> tuple[Exit, str]:
    """Return the exit code and the sentence for an exception of a command."""
    if isinstance(error, CliError):
        return error.code, str(error)
    for kind in type(error).__mro__:
        code = EXIT_CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code, str(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        code = Exit.RESOURCE if error.errno in _LOCAL_ERRNOS else Exit.USAGE
        return code, f"{name}{error.strerror or error}"
    return (
        Exit.INTERNAL,
        f"a fault of smrx itself ({type(error).__name__}: {error}); run again with --debug for the details",
    )
