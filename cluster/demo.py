"""The whole exchange, live, in under two minutes: python -m cluster.demo (scripts/demo).

Three nodes, the verifier, a tape of order flow; the leader is killed half way and comes back. Then it is proved that
nothing was lost and nothing doubled. Every process is a child of this one and ends with it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from cluster.board import Board, NodeRow, Numbers
from cluster.cluster_checks import FAILURES, NotProved, equal_logs, read_events
from cluster.flow import Flow
from smrx import compiling
from smrx.client import Client
from smrx.client.admin_client import Ask, open_admin_client
from smrx.local import LocalCluster
from smrx.tape import lobster
from smrx.tape.convert import convert
from smrx.tape.generate import generate
from smrx.tape.tape_error import TapeError
from smrx.tape.tape_file import Tape
from smrx.tape.tape_market import setup_failure
from smrx.wire.admin import LogDigestReply, NodeStatus, Status

_COMMANDS = 400_000
_SEED = 1
#: Slow enough to be watched until the leader is killed; what comes after goes as fast as it can.
_WATCHABLE_RATE = 16_000.0
_RESTART_AFTER_SECONDS = 1.5
#: A slow machine shows less of the tape rather than keep its visitor waiting.
_FLOW_SECONDS = 70.0
_SHOW_SECONDS = 0.2


class Verifier:
    """`smrx settle run` as a process of its own, and the file it writes."""

    def __init__(self, config_path: Path, folder: Path) -> None:
        self._command = [
            *(sys.executable, "-m", "smrx", "--config", str(config_path)),
            *("settle", "run", "--out", str(folder), "--json"),
        ]
        self._file = folder / "settled_trades.csv"
        self._read = self._rows = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Listen from now on."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def settled(self) -> int:
        """Trades in the file."""
        if self._file.exists():
            with open(self._file, "rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read += len(new)
            self._rows += new.count(b"\n")
        return max(0, self._rows - 1)

    def stop(self) -> None:
        """End it where it stands; it must end well."""
        if self._process is None or self._process.poll() is not None:
            raise NotProved("the verifier ended before it was asked to")
        process = self._process
        process.send_signal(signal.SIGTERM)
        try:
            _, said = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise NotProved("the verifier did not end when it was asked to") from None
        if process.returncode != 0:
            raise NotProved(f"the verifier ended with {process.returncode}: {said.strip()}")

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def finish(self, last_event: int) -> dict[str, int]:
        """Start it once more on the same file, up to the last event, and return what it proved."""
        ended = subprocess.run(
            [*self._command, "--until-sequence", str(last_event)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if ended.returncode != 0:
            raise NotProved(f"the verifier ended with {ended.returncode}: {ended.stderr.strip()}")
        proved: dict[str, int] = json.loads(ended.stdout)
        return proved


class Demo:
    """The play: what happens when, and what is shown of it."""

    def __init__(self, cluster: LocalCluster, ask: Ask, verifier: Verifier, board: Board, tape: Tape) -> None:
        self.cluster, self.ask, self.verifier, self.board = cluster, ask, verifier, board
        self.node_ids = [node.id for node in cluster.config.nodes]
        self.tape = tape
        self.flow = Flow(cluster.config, tape.commands, rate=_WATCHABLE_RATE)
        self._rates: list[tuple[float, int]] = []

    def play(self) -> None:
        """Market, flow, the killing of the leader, its return, the rest of the flow."""
        with Client(self.cluster.config, account=0) as client:
            failure = setup_failure(self.tape.setup, client.submit(self.tape.setup))
        if failure is not None:
            raise NotProved(failure)
        self.verifier.start()
        self.board.say(f"order flow: {self.tape.name}, {len(self.tape.commands):,} commands on {self.tape.symbol}")
        started = time.monotonic()
        self.flow.start()
        half = len(self.tape.commands) // 2
        self._watch(
            lambda: self.flow.acknowledged >= half or self.flow.done or time.monotonic() - started > _FLOW_SECONDS / 2
        )
        self._kill_leader()
        self.flow.rate = None
        self._watch(lambda: self.flow.done or time.monotonic() - started > _FLOW_SECONDS)
        self.flow.stop()
        self._watch(lambda: self.flow.done)
        self.flow.wait_for(self.flow.acknowledged, 0)
        self.board.say(f"all {self.flow.acknowledged:,} commands sent are acknowledged")

    def prove(self) -> list[str]:
        """Return what is proved, a sentence each; raises NotProved."""
        state = equal_logs(self.ask, self.node_ids, 30)
        self._watch(lambda: self.verifier.settled >= state.trades, 20)
        self.verifier.stop()
        return [self._exactly_once(state), self._one_state(state), self._settled(state)]

    def _exactly_once(self, state: LogDigestReply) -> str:
        record = self.flow.record
        findings = record.check(read_events(self.cluster.config, self.node_ids, state.event_sequence))
        if findings:
            raise NotProved("; ".join(findings))
        return (
            f"acknowledged = applied exactly once: all {len(record):,} answers in the client's own record stand in the "
            "stream of events, once, in the order sent, with the same content"
        )

    def _one_state(self, state: LogDigestReply) -> str:
        return (
            f"one state: all {len(self.node_ids)} nodes have hash {state.state_hash:016x} at sequence "
            f"{state.sequence:,}, the killed one included, and log digest {state.log_digest:016x}"
        )

    def _settled(self, state: LogDigestReply) -> str:
        proved = self.verifier.finish(state.event_sequence)
        settled = self.verifier.settled
        if not state.trades == settled == proved["trades"] or proved["sequence"] != state.event_sequence:
            raise NotProved(
                f"expected {state.trades} trades and {state.event_sequence} events, found {settled} trades in the file "
                f"and events 1 to {proved['sequence']} verified"
            )
        return (
            f"nothing missing outside: the verifier saw events 1 to {proved['sequence']:,} without a gap, and "
            f"settled_trades.csv holds {settled:,} trades, as many as the exchange made"
        )

    def _kill_leader(self) -> None:
        leader = self.cluster.wait_leader()
        self.cluster.kill(leader)
        killed = time.monotonic()
        self.board.say(f"SIGKILL for node {leader}, the leader, with {self.flow.acknowledged:,} acknowledged")
        successor = self.cluster.wait_leader(30, other_than=leader)
        self.board.say(f"node {successor} leads {time.monotonic() - killed:.2f} s after the kill")
        self._watch(lambda: time.monotonic() - killed > _RESTART_AFTER_SECONDS)
        self.cluster.start_node(leader)
        self.board.say(f"node {leader} started again, with nothing in memory")
        self._watch(lambda: self._caught_up(leader), 30)
        self.board.say(f"node {leader} is back: it has the log and the state, and votes again")

    def _caught_up(self, node_id: int) -> bool:
        status = self.ask(node_id, Status())
        return isinstance(status, NodeStatus) and status.role == "follower" and status.sequence > 0

    def _watch(self, done: Callable[[], bool], timeout: float | None = None) -> None:
        """Show how it stands until something is so (or time is up: then the proof will say)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            self._show()
            if deadline is not None and time.monotonic() > deadline:
                return
            time.sleep(_SHOW_SECONDS)
        self._show()

    def _show(self) -> None:
        settled = self.verifier.settled  # Before the trades: what is settled was traded.
        rows, trades = [], 0
        for node_id in self.node_ids:
            if not self.cluster.running(node_id):
                rows.append(NodeRow(node_id, "killed"))
                continue
            status = self.ask(node_id, Status())
            if isinstance(status, NodeStatus):
                rows.append(NodeRow(node_id, status.role, status.term, status.sequence, status.state_hash))
                trades = max(trades, status.trades)
            else:
                rows.append(NodeRow(node_id, "starting"))
        self._rates = [*self._rates[-10:], (time.monotonic(), self.flow.acknowledged)]
        (then, before), (now, after) = self._rates[0], self._rates[-1]
        per_second = (after - before) / (now - then) if now > then else 0.0
        self.board.show(Numbers(tuple(rows), after, len(self.tape.commands), per_second, trades, settled))


def recorded_or_generated(commands: int) -> Tape:
    """The tape to play: a recording below the folder SMRX_TAPES if there is one, else a generated one."""
    folder = os.environ.get("SMRX_TAPES")
    if not folder:
        return generate(commands, _SEED)
    found = sorted(Path(folder).rglob("*_message_*.csv*"))
    if not found:
        raise click.UsageError(f"SMRX_TAPES: expected a folder with LOBSTER message files, found none in {folder}")
    orderbook = found[0].with_name(found[0].name.replace("_message_", "_orderbook_"))
    return convert(lobster.read(found[0], orderbook if orderbook.exists() else None)).tape().first(commands)


@click.command()
@click.option("--commands", default=_COMMANDS, show_default=True, help="How much of the tape to play.")
def main(commands: int) -> None:
    """Show three nodes, a verifier and a killed leader; exit with 1 if anything is not as promised."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        with tempfile.TemporaryDirectory(prefix="smrx-demo-") as folder:
            proved = _run(Path(folder), commands)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; no process is left behind") from None
    except TapeError as error:
        raise click.ClickException(str(error)) from None
    except FAILURES as error:
        raise click.ClickException(f"NOT PROVED: {error}") from error
    click.echo("\nproved:")
    for sentence in proved:
        click.echo(f"  * {sentence}")


def _run(folder: Path, commands: int) -> list[str]:
    with Board() as board:
        compiling.compile_engine(board.say)
        tape = recorded_or_generated(commands)
        cluster = LocalCluster(folder / "cluster")
        verifier = Verifier(cluster.config_path, folder)
        board.say("starting three nodes")
        with _ended(verifier), cluster, open_admin_client(cluster.config, 0.3) as ask:
            board.say(f"node {cluster.wait_leader()} leads")
            demo = Demo(cluster, ask, verifier, board, tape)
            try:
                demo.play()
                board.say("proving what was promised")
                return demo.prove()
            finally:
                demo.flow.end()


@contextmanager
def _ended(verifier: Verifier) -> Iterator[None]:
    """The verifier's process does not outlive this."""
    try:
        yield
    finally:
        verifier.end()


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
