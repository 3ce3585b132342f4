"""Run the processes of a replicated peer on this machine, each with a folder of its own, and read their processor time.

A member ends when its standard input does, so none outlives this process. Called by the adapters of replicated peers.
"""

import contextlib
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import msgspec

from smrx.bench import process_time
from smrx.bench.peers.peer_calls import PeerUnavailable

_STOP_S: Final = 10.0
#: In memory mode the files of a peer that cannot do without are here, if the system has it.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a folder with a random name is made in it
#: Beyond the measured time: starting, connecting, an election.
LOAD_OVERHEAD_S: Final = 90.0


class LoadResult(msgspec.Struct, frozen=True):
    """What the load generator of a driver prints as one line of JSON."""

    acknowledged: int  #: requests sent and answered in the measured time
    seconds: float
    p50_us: float
    p99_us: float
    cpu_s: float  #: processor time of the generator in it


class Members:
    """Processes of one peer. Use as a context manager, which stops all of them at the end."""

    def __init__(self, *, in_memory: bool) -> None:
        """Make a folder, in memory if the system has such a place and `in_memory` asks for it."""
        place = str(_MEMORY) if in_memory and _MEMORY.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="smrx-peer-", dir=place)
        self.directory = Path(self._folder.name)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []

    def __enter__(self) -> "Members":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for log in self._logs:
            log.close()
        self._folder.cleanup()

    def start(self, command: Sequence[str], *, is_read: bool = False) -> None:
        """Start a member. Its output goes to a log; with `is_read`, first_line() reads standard output."""
        log = open(self.directory / f"member-{len(self._processes)}.log", "wb")  # noqa: SIM115  # closed at the end
        self._logs.append(log)
        output = subprocess.PIPE if is_read else log
        self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=log))

    def first_line(self, timeout_s: float) -> bytes:
        """Return the first line that a member prints; raises PeerUnavailable."""
        readers = {process.stdout: process for process in self._processes if process.stdout is not None}
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            for output in select.select(readers, [], [], left_s)[0]:
                if line := output.readline():
                    return bytes(line)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    readers.pop(output).wait(_STOP_S)
                self.check()
        raise PeerUnavailable(f"no member printed a result within {timeout_s:.0f} s")

    def check(self) -> None:
        """Raise PeerUnavailable with the end of its log if a member has ended."""
        for number, process in enumerate(self._processes):
            if process.poll() is not None:
                raise PeerUnavailable(
                    f"member {number} ended with exit code {process.returncode}: {_last_line(self._log(number))}"
                )

    def cpu_seconds(self) -> float:
        """Return the processor time of all members so far."""
        return sum(process_time.cpu_seconds(process.pid) for process in self._processes)

    def _log(self, number: int) -> bytes:
        return (self.directory / f"member-{number}.log").read_bytes()


def run_load(command: Sequence[str], members: Members, seconds: float) -> LoadResult:
    """Run the load generator of a driver; raises PeerUnavailable if it fails."""
    limit = seconds + LOAD_OVERHEAD_S
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        members.check()
        raise PeerUnavailable(f"its load generator did not end within {limit:.0f} s and was killed") from None
    if done.returncode:
        members.check()
        raise PeerUnavailable(
            f"its load generator ended with exit code {done.returncode}: {_last_line(done.stderr or done.stdout)}"
        )
    return parse_load(done.stdout)


def parse_load(printed: bytes) -> LoadResult:
    """Return the result in the last line that a load generator printed; raises PeerUnavailable."""
    lines: list[Any] = printed.strip().splitlines()
    try:
        found = msgspec.json.decode(lines[-1] if lines else b"", type=LoadResult)
    except msgspec.DecodeError as error:
        raise PeerUnavailable(f"its load generator printed no result: {error}") from None
    if found.acknowledged <= 0 or not found.seconds > 0:
        raise PeerUnavailable("no request was answered in the measured time")
    return found


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
