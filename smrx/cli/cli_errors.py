"""Turn the exception of a command into an exit code and a message.

Exceptions are listed by name, because importing their classes would slow down every command. A test checks the names.
"""

import errno
from typing import Final

from smrx.cli.exit_codes import Exit

#: Exceptions whose own text is the message.
EXIT_CODES: Final = {
    "smrx.config.ConfigError": Exit.USAGE,
    "smrx.compile_cache.CacheError": Exit.RESOURCE,
    "smrx.node.reactor.PortInUseError": Exit.RESOURCE,
    "smrx.gateway.gateway_process.GatewayPortError": Exit.RESOURCE,
    "smrx.consensus.recovery.MetaError": Exit.RESOURCE,
    "smrx.consensus.disk_journal.JournalError": Exit.RESOURCE,
    "smrx.consensus.snapshot_files.SnapshotError": Exit.RESOURCE,
    "smrx.node.log_reader.LogReadError": Exit.USAGE,
    "smrx.consensus.storage.StorageError": Exit.RESOURCE,
    "smrx.consensus.storage.StorageFailed": Exit.DISK,
    "smrx.key_files.KeysError": Exit.RESOURCE,
    "smrx.consensus.context.UnknownRules": Exit.RULES,
    "smrx.local.LocalClusterError": Exit.UNAVAILABLE,
    "smrx.bench.bench_error.BenchError": Exit.UNAVAILABLE,
    "smrx.bench.bench_error.WrongResultError": Exit.INTERNAL,
    "smrx.bench.failover_bench.OrdersDiffer": Exit.DIVERGED,
    "smrx.tape.tape_error.TapeError": Exit.USAGE,
    "smrx.sim.versions.VersionError": Exit.USAGE,
    "smrx.client.client_errors.Refused": Exit.REFUSED,
    "smrx.client.client_errors.Unavailable": Exit.UNAVAILABLE,
    "smrx.client.client_errors.InvalidValue": Exit.USAGE,
    "smrx.client.client_errors.ProtocolError": Exit.UNAVAILABLE,
}

_LOCAL_ERRNOS: Final = {
    errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EMFILE,
    errno.EDQUOT, errno.ENOMEM, errno.ENFILE, errno.EAGAIN, errno.EIO, errno.EFBIG,
}  # fmt: skip


#: What threading says if the system refuses a thread.
_NO_THREAD: Final = "can't start new thread"


class CliError(Exception):
    """An error that a command reports: a message and an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def explain(error: BaseException) -> tuple[Exit, str]:
    """Return the exit code and the message for an exception of a command."""
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
    if isinstance(error, MemoryError):
        return Exit.RESOURCE, f"not enough memory: {str(error) or 'the system gives this process no more'}"
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return Exit.RESOURCE, (
            "the system allows no more threads; raise the limit of processes and threads of this user or container"
        )
    return (
        Exit.INTERNAL,
        f"internal error ({type(error).__name__}: {error}); run the command again with --debug for a traceback",
    )
