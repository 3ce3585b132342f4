"""`smrx settle run` beside a cluster that is being broken, itself killed and stopped, and what it stored judged.

A verifier settles what a majority of the nodes published alike. Nodes that start again forget old events, so a verifier
that was away for long may find that nobody has what it missed: it says so and ends, what it stored stays, and another
begins with the state as it is. What each of them stored must be what the log of the cluster leads to, as far as it
went; nothing but such a gap may end one; and in the end everything must be settled.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from cluster.torture.field import Field, Life, environment
from cluster.torture.tap import Said, told_of_entry
from smrx.cli.exit_codes import Exit
from smrx.cli.settle_shared import config_with_out
from smrx.cli.settle_stored_commands import compare_with_log
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.messages import NO_OP
from smrx.feed.feed_errors import FeedError
from smrx.node.log_reader import LogReader, LogReadError
from smrx.settlement.settlement_errors import SettlementError
from smrx.sim.checker import Violation
from smrx.sinks.sink_errors import SinkFault

#: A verifier that hears nobody, or no majority, is started again after a while; the storm has to end for it.
_AGAIN: Final = (Exit.UNAVAILABLE, Exit.UNATTESTED)
_AGAIN_SECONDS: Final = 1.0
#: What a node that starts again may cause; any other alarm means that somebody published something else.
_HARMLESS: Final = {"GAP", "UNATTESTED"}
_ALARM: Final = re.compile(r"alarm ([A-Z_]+): (.*)")
#: For one that can settle everything; and for one that begins anew, or is asked to end.
_SETTLE_SECONDS: Final = 30.0
_END_SECONDS: Final = 60.0
_TURN_SECONDS: Final = 0.05


class Settled(msgspec.Struct, frozen=True):
    """What the verifiers of an ordeal stored, all of it found in the log."""

    #: How many there were: one more than found a gap.
    verifiers: int
    trades: int
    #: The last event settled.
    sequence: int


class Bookkeeper:
    """One verifier at a time, each with a folder of its own. Use as a context manager: leaving it ends the process."""

    def __init__(self, field: Field, say: Callable[[str], None]) -> None:
        self._field = field
        self._say = say
        self._folders: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0

    def __enter__(self) -> "Bookkeeper":
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether a verifier is there, stopped or not."""
        return self._process is not None

    @property
    def committed(self) -> int:
        """The last event the newest verifier has settled for good."""
        path = _checkpoint(self._folders[-1])
        held = msgspec.json.decode(path.read_bytes())["checkpoint"] if path.exists() else None
        return int(held["event_sequence"]) if held else 0

    def start(self) -> None:
        """Go on where the last process was killed, if none runs."""
        if self._process is not None:
            return
        folder = self._folders[-1]
        # Where nothing is settled yet, all but the first begin with the state as it is.
        anew = ["--join"] if len(self._folders) > 1 else []
        with open(_log(folder), "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "smrx", "--config", str(self._field.client_path), "settle", "run"),
                    *("--out", str(folder), "--connect-timeout", "30", *anew),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(),
            )

    def kill(self) -> None:
        """SIGKILL it, in the middle of whatever it does."""
        process, self._process = self._process, None
        self._start_at = float("inf")
        if process is not None:
            process.kill()
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; to one that is gone, nothing."""
        if self._process is not None:
            self._process.send_signal(number)

    def look(self) -> None:
        """Let another begin where one ended for want of events or nodes; raises Violation if it ended otherwise."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self.start()
            return
        code = self._process.poll()
        if code is None:
            return
        self._process, self._start_at = None, time.monotonic() + _AGAIN_SECONDS
        said = self._last_line()
        self._check_alarms()
        if code == Exit.GAP:
            self._say(f"the verifier came to event {self.committed} and ends: {said}; another one joins")
            self._begin()
        elif code not in _AGAIN:
            raise Violation(f"settlement: the verifier ended by itself with code {code}; the last it said: {said}")

    def finish(self, last_event: int) -> None:
        """Return when every event up to that one is settled and the verifier has ended; raises Violation.

        The cluster is whole by now.
        """
        self.start()
        self._wait_for(last_event, _SETTLE_SECONDS)
        if self.committed < last_event:
            # Some events were published by fewer nodes than a majority, and the others have taken over a later state.
            self._say(f"the verifier came to event {self.committed} of {last_event}; another one joins")
            self._end()
            self._begin()
            self._wait_for(last_event, _END_SECONDS)
            if self.committed < last_event:
                raise Violation(
                    f"settlement: {_END_SECONDS:g} s after it joined a cluster that is whole the verifier has settled "
                    f"event {self.committed} of {last_event}; the last it said: {self._last_line()}"
                )
        self._end()
        self._check_alarms()
        self._say(f"everything is settled, to event {self.committed}")

    def audit(self, lives: Iterable[Life]) -> Settled:
        """Hold what was stored against the log that the nodes told, which was judged before; raises Violation."""
        journal = _Told(lives)
        trades = sequence = 0
        for folder in self._folders:
            if not _checkpoint(folder).exists():
                continue
            history = LogReader(journal, [], 0)
            try:
                found = compare_with_log(
                    config_with_out(self._field.config, str(folder)), history, "log of the cluster"
                )
            except (SettlementError, SinkFault, FeedError, LogReadError) as error:
                raise Violation(f"settlement: {folder.name}: {error}") from None
            trades += found.trades
            sequence = max(sequence, found.sequence)
        return Settled(len(self._folders), trades, sequence)

    def _begin(self) -> None:
        folder = self._field.directory / f"verifier-{len(self._folders) + 1}"
        folder.mkdir()
        self._folders.append(folder)
        self.start()

    def _wait_for(self, last_event: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.committed < last_event and time.monotonic() < deadline:
            self.look()
            time.sleep(_TURN_SECONDS)

    def _end(self) -> None:
        """Ask it to end; whatever it has is committed then."""
        process, self._process = self._process, None
        self._start_at = float("inf")
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process = process
            raise Violation(
                f"settlement: the verifier was asked to end and is there {_END_SECONDS:g} s later"
            ) from None
        if code not in (Exit.OK, Exit.GAP, *_AGAIN):
            raise Violation(
                f"settlement: the verifier was asked to end and did so with {code}; the last it said: "
                f"{self._last_line()}"
            )

    def _check_alarms(self) -> None:
        for code, message in _ALARM.findall(_log(self._folders[-1]).read_text(errors="replace")):
            if code not in _HARMLESS:
                raise Violation(f"settlement: alarm {code}: {message}")

    def _last_line(self) -> str:
        lines = _log(self._folders[-1]).read_text(errors="replace").splitlines()
        return lines[-1] if lines else "nothing"


class _Told(MemoryJournal):
    """The log of the cluster as its nodes told it; what is no command was not told, and stands in it as nothing."""

    def __init__(self, lives: Iterable[Life]) -> None:
        super().__init__()
        entries: dict[int, tuple[int, bytes]] = {}
        for life in lives:
            for record in life.stream.records():
                if record.kind == Said.APPLIED:
                    _, entry, _ = told_of_entry(record.body)
                    entries[record.first] = record.second, entry
        for index in range(self.last_index + 1, max(entries, default=0) + 1):
            term, entry = entries.get(index, (0, NO_OP))
            self.add(entry, index, term)

    def getRaftCommitIndex(self) -> int:
        return self.last_index


def _log(folder: Path) -> Path:
    return folder.with_suffix(".log")


def _checkpoint(folder: Path) -> Path:
    return folder / "settlement" / "checkpoint.json"
