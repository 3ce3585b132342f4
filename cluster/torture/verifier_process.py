"""Run `smrx settle run` beside the cluster under test, kill and pause it, and check what it stored.

A verifier settles what a majority of the nodes attests. Nodes that restart in memory mode lose old events, so a
verifier that was away for long may find a gap that no node can fill. It then ends with exit code GAP, and the next
verifier joins from a state image, with a folder of its own. What each of them stored must equal what the log of the
cluster leads to. A verifier may end for no other reason, and at the end of the run everything must be settled.
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

from cluster.torture.applied_entries_pipe import NodeRecordKind, decode_applied
from cluster.torture.cluster_under_test import ClusterUnderTest, NodeIncarnation, environment
from smrx.cli.exit_codes import Exit
from smrx.cli.settle_shared import config_with_out
from smrx.cli.settle_stored_commands import compare_with_log
from smrx.consensus.journal import MemoryJournal
from smrx.consensus.messages import NO_OP
from smrx.feed.feed_errors import FeedError
from smrx.follower.follow_errors import FollowError
from smrx.node.log_reader import LogReader, LogReadError
from smrx.sim.checker import Violation
from smrx.sinks.sink_errors import SinkFault

#: A verifier that reaches no node, or no majority, is started again later.
_RETRY: Final = (Exit.UNAVAILABLE, Exit.UNATTESTED)
_RETRY_SECONDS: Final = 1.0
#: The alarms that a restarted node may cause; any other means that a node published other events.
_EXPECTED_ALARMS: Final = {"GAP", "UNATTESTED"}
_ALARM: Final = re.compile(r"alarm ([A-Z_]+): (.*)")
#: How long a verifier may take to settle everything; and to do so after joining again, or to end after SIGTERM.
_SETTLE_SECONDS: Final = 30.0
_END_SECONDS: Final = 60.0
_TURN_SECONDS: Final = 0.05


class SettlementResult(msgspec.Struct, frozen=True):
    """What the verifiers of a run stored, all of it equal to the log."""

    #: How many there were: one more than the number of gaps.
    verifiers: int
    trades: int
    #: The last event settled.
    sequence: int


class VerifierProcess:
    """One verifier at a time, each with a folder of its own. Leaving the context kills the process."""

    def __init__(self, cluster: ClusterUnderTest, report: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._report = report
        self._folders: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0

    def __enter__(self) -> "VerifierProcess":
        self._start_new()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether a verifier is running, paused or not."""
        return self._process is not None

    @property
    def committed(self) -> int:
        """The last event in the checkpoint of the newest verifier."""
        path = _checkpoint(self._folders[-1])
        held = msgspec.json.decode(path.read_bytes())["checkpoint"] if path.exists() else None
        return int(held["event_sequence"]) if held else 0

    def start(self) -> None:
        """Start the newest verifier again, if it is not running."""
        if self._process is not None:
            return
        folder = self._folders[-1]
        # Every verifier but the first starts from a state image.
        join = ["--join"] if len(self._folders) > 1 else []
        with open(_log(folder), "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "smrx", "--config", str(self._cluster.client_path), "settle", "run"),
                    *("--out", str(folder), "--connect-timeout", "30", *join),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(),
            )

    def kill(self) -> None:
        """Kill the verifier with SIGKILL."""
        process, self._process = self._process, None
        self._start_at = float("inf")
        if process is not None:
            process.kill()
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the verifier, if it is running."""
        if self._process is not None:
            self._process.send_signal(number)

    def check(self) -> None:
        """Replace a verifier that ended because of missing events or nodes; raises Violation if it ended otherwise."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self.start()
            return
        code = self._process.poll()
        if code is None:
            return
        self._process, self._start_at = None, time.monotonic() + _RETRY_SECONDS
        last_line = self._last_line()
        self._check_alarms()
        if code == Exit.GAP:
            self._report(f"the verifier settled up to event {self.committed} and ended: {last_line}; another one joins")
            self._start_new()
        elif code not in _RETRY:
            raise Violation(f"settlement: the verifier ended by itself with code {code}; its last line: {last_line}")

    def finish(self, last_event: int) -> None:
        """Wait until every event up to `last_event` is settled, and stop the verifier; raises Violation.

        Call when the cluster is repaired.
        """
        self.start()
        self._wait_for(last_event, _SETTLE_SECONDS)
        if self.committed < last_event:
            # Some events were published by a minority only; the other nodes have restored a later state.
            self._report(f"the verifier settled up to event {self.committed} of {last_event}; another one joins")
            self._stop()
            self._start_new()
            self._wait_for(last_event, _END_SECONDS)
            if self.committed < last_event:
                raise Violation(
                    f"settlement: {_END_SECONDS:g} s after it joined the repaired cluster, the verifier has settled up "
                    f"to event {self.committed} of {last_event}; its last line: {self._last_line()}"
                )
        self._stop()
        self._check_alarms()
        self._report(f"everything is settled, up to event {self.committed}")

    def audit(self, incarnations: Iterable[NodeIncarnation]) -> SettlementResult:
        """Compare what was stored with the log that the nodes recorded; raises Violation."""
        journal = _RecordedLog(incarnations)
        trades = sequence = 0
        for folder in self._folders:
            if not _checkpoint(folder).exists():
                continue
            log = LogReader(journal, [], 0)
            try:
                found = compare_with_log(config_with_out(self._cluster.config, str(folder)), log, "log of the cluster")
            except (FollowError, SinkFault, FeedError, LogReadError) as error:
                raise Violation(f"settlement: {folder.name}: {error}") from None
            trades += found.trades
            sequence = max(sequence, found.sequence)
        return SettlementResult(len(self._folders), trades, sequence)

    def _start_new(self) -> None:
        folder = self._cluster.directory / f"verifier-{len(self._folders) + 1}"
        folder.mkdir()
        self._folders.append(folder)
        self.start()

    def _wait_for(self, last_event: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.committed < last_event and time.monotonic() < deadline:
            self.check()
            time.sleep(_TURN_SECONDS)

    def _stop(self) -> None:
        """Stop the verifier with SIGTERM; it writes a checkpoint of what it has settled."""
        process, self._process = self._process, None
        self._start_at = float("inf")
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process = process
            raise Violation(f"settlement: the verifier is still running {_END_SECONDS:g} s after SIGTERM") from None
        if code not in (Exit.OK, Exit.GAP, *_RETRY):
            raise Violation(
                f"settlement: the verifier ended with code {code} after SIGTERM; its last line: {self._last_line()}"
            )

    def _check_alarms(self) -> None:
        for code, message in _ALARM.findall(_log(self._folders[-1]).read_text(errors="replace")):
            if code not in _EXPECTED_ALARMS:
                raise Violation(f"settlement: alarm {code}: {message}")

    def _last_line(self) -> str:
        lines = _log(self._folders[-1]).read_text(errors="replace").splitlines()
        return lines[-1] if lines else "none"


class _RecordedLog(MemoryJournal):
    """The log of the cluster as its nodes recorded it; entries without commands were not recorded and become NO_OPs."""

    def __init__(self, incarnations: Iterable[NodeIncarnation]) -> None:
        super().__init__()
        entries: dict[int, tuple[int, bytes]] = {}
        for incarnation in incarnations:
            for record in incarnation.stream.records():
                if record.kind == NodeRecordKind.APPLIED:
                    _, entry, _ = decode_applied(record.body)
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
