"""Run processes that die at a chosen step of a sink's work, by SIGKILL, and simulate the disk afterwards.

A step is a call that changes a file or talks to the database: every call of `os` that changes files, every statement of
psycopg, every table and transaction of LMDB. The process dies before the step, or, where bytes are written, half-way
through it. With `power_loss` whatever was not synced is taken back first: bytes, new names, renames.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from smrx.sinks.lmdb_sink import LmdbSink

#: The exit code of a process that failed instead of dying.
FAILED = 99


class Steps:
    """Counts steps, and dies at one of them. Installed in a process of its own only."""

    def __init__(self, die_at: int, directory: Path, power_loss: bool) -> None:
        self.left = die_at
        self.directory = str(directory)
        self.power_loss = power_loss
        self.synced: dict[str, int] = {}  # file -> bytes that are durable
        self.undo: list[Callable[[], None]] = []  # names that are not durable yet, newest last
        self.real: dict[str, Callable[..., Any]] = {
            name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "ftruncate", "unlink")
        }

    def step(self, half: Callable[[], Any] | None = None) -> None:
        """Count a step, and die if it is the chosen one."""
        if self.left == 0:
            self.die()
        self.left -= 1
        if half is not None:
            if self.left == 0:
                half()
                self.die()
            self.left -= 1

    def die(self) -> None:
        if self.power_loss:
            # The newest change first, so that a name that changed twice ends as it was.
            for take_back in reversed(self.undo):
                take_back()
            for path, size in self.synced.items():
                if os.path.exists(path) and os.path.getsize(path) > size:
                    os.truncate(path, size)
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        for name in self.real:
            setattr(os, name, getattr(self, f"_{name}"))
        for kind, name in (
            (psycopg.Connection, "execute"),
            (psycopg.Copy, "write"),
            (psycopg.Transaction, "__enter__"),
            (psycopg.Transaction, "__exit__"),
            (LmdbSink, "_put"),
            (LmdbSink, "_index"),
            (LmdbSink, "_commit"),
        ):
            self._wrap(kind, name)

    def _wrap(self, kind: Any, name: str) -> None:
        real = getattr(kind, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.step()
            result = real(*arguments, **options)
            self.step()
            return result

        setattr(kind, name, wrapped)

    def _open(self, path: Any, flags: int, *more: Any) -> int:
        path = os.fspath(path)
        if flags & os.O_CREAT and path.startswith(self.directory):
            self.step()
            if not os.path.exists(path):
                self.undo.append(lambda: os.path.exists(path) and self.real["unlink"](path))
                self.synced[path] = 0
            elif flags & os.O_TRUNC:
                self.synced[path] = 0
            else:
                self.synced.setdefault(path, os.path.getsize(path))
        elif flags & os.O_RDWR:
            self.synced.setdefault(path, os.path.getsize(path))
        return int(self.real["open"](path, flags, *more))

    def _write(self, file: int, data: Any) -> int:
        self.step(half=lambda: self.real["write"](file, bytes(data)[: len(data) // 2]))
        return int(self.real["write"](file, data))

    def _fsync(self, file: int) -> None:
        self.step()
        self.real["fsync"](file)
        path = os.readlink(f"/proc/self/fd/{file}")
        if os.path.isdir(path):
            self.undo.clear()
        else:
            self.synced[path] = os.fstat(file).st_size

    def _replace(self, source: Any, target: Any) -> None:
        self.step()
        source, target = os.fspath(source), os.fspath(target)
        before = Path(target).read_bytes() if os.path.exists(target) else None
        self.undo.append(lambda: Path(target).write_bytes(before) if before is not None else os.remove(target))
        self.synced[target] = max(self.synced.pop(source, 0), len(before or b""))
        self.real["replace"](source, target)

    def _ftruncate(self, file: int, size: int) -> None:
        self.step()
        self.real["ftruncate"](file, size)
        path = os.readlink(f"/proc/self/fd/{file}")
        self.synced[path] = min(self.synced.get(path, size), size)

    def _unlink(self, path: Any) -> None:
        self.step()
        before = Path(path).read_bytes()
        self.undo.append(lambda: Path(path).write_bytes(before) and None)
        self.real["unlink"](path)


def die_in_it(
    work: Callable[[Callable[[int], None]], None], die_at: int, directory: Path, power_loss: bool = False
) -> tuple[bool, int]:
    """Do work in a process that dies at step `die_at`; return whether it got there, and its last acknowledgement.

    The work is given a function to acknowledge a number with. Raises AssertionError if the work fails by itself.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        real_write = os.write
        code = FAILED
        try:
            os.close(reader)
            Steps(die_at, directory, power_loss).install()
            work(lambda number: real_write(writer, number.to_bytes(8, "little")) and None)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the process ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    message = b""
    while piece := os.read(reader, 1 << 16):
        message += piece
    os.close(reader)
    _, status = os.waitpid(process, 0)
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert died or os.waitstatus_to_exitcode(status) == 0, "the work failed; its traceback is above"
    return died, int.from_bytes(message[-8:], "little")
