"""Run the demo: a whole exchange, live, in under two minutes (scripts/demo, `python -m cluster demo`).

Starts three nodes and a verifier, sends a tape of orders, kills the leader half way and restarts it. Then checks that
no acknowledged command is lost or applied twice. Every process is a child of this one and ends with it.
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

from cluster.cluster_checks import FAILURES, CheckFailed, equal_logs, read_events
from cluster.demo_display import DemoDisplay, DemoFigures, NodeRow
from cluster.order_flow import OrderFlow
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
#: Commands a second until the leader is killed, slow enough to watch; the rest is sent as fast as possible.
_INITIAL_RATE = 16_000.0
_RESTART_AFTER_SECONDS = 1.5
#: The most time for the order flow; a slow machine sends only a part of the tape.
_FLOW_SECONDS = 70.0
_SHOW_SECONDS = 0.2


class DemoVerifier:
    """A `smrx settle run` process and the file it writes."""

    def __init__(self, config_path: Path, folder: Path) -> None:
        self._command = [
            *(sys.executable, "-m", "smrx", "--config", str(config_path)),
            *("settle", "run", "--out", str(folder), "--json"),
        ]
        self._file = folder / "settled_trades.csv"
        self._read = self._rows = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start to settle."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def settled(self) -> int:
        """The number of trades in the file."""
        if self._file.exists():
            with open(self._file, "rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read += len(new)
            self._rows += new.count(b"\n")
        return max(0, self._rows - 1)

    def stop(self) -> None:
        """Stop the process with SIGTERM; raises CheckFailed if it fails or does not stop."""
        if self._process is None or self._process.poll() is not None:
            raise CheckFailed("the verifier ended before SIGTERM")
        process = self._process
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise CheckFailed("the verifier did not end after SIGTERM") from None
        if process.returncode != 0:
            raise CheckFailed(f"the verifier ended with {process.returncode}: {errors.strip()}")

    def end(self) -> None:
        """Kill the process if it is still running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def finish(self, last_event: int) -> dict[str, int]:
        """Start it again on the same file, settle up to the last event, and return its report."""
        ended = subprocess.run(
            [*self._command, "--until-sequence", str(last_event)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if ended.returncode != 0:
            raise CheckFailed(f"the verifier ended with {ended.returncode}: {ended.stderr.strip()}")
        report: dict[str, int] = json.loads(ended.stdout)
        return report


class Demo:
    """The steps of the demo and what it displays."""

    def __init__(
        self, cluster: LocalCluster, ask: Ask, verifier: DemoVerifier, display: DemoDisplay, tape: Tape
    ) -> None:
        self.cluster, self.ask, self.verifier, self.display = cluster, ask, verifier, display
        self.node_ids = [node.id for node in cluster.config.nodes]
        self.tape = tape
        self.flow = OrderFlow(cluster.config, tape.flow, rate=_INITIAL_RATE)
        self._rates: list[tuple[float, int]] = []

    def run(self) -> None:
        """Set up the market, send orders, kill and restart the leader, send the rest; raises CheckFailed."""
        with Client(self.cluster.config, account=0) as client:
            failure = setup_failure(self.tape.setup, client.submit(*self.tape.setup))
        if failure is not None:
            raise CheckFailed(failure)
        self.verifier.start()
        self.display.log(f"sending {len(self.tape.commands):,} commands on {self.tape.symbol} ({self.tape.name})")
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
        self.display.log(f"all {self.flow.acknowledged:,} commands sent are acknowledged")

    def check(self) -> list[str]:
        """Check the results and return one line for each check; raises CheckFailed."""
        state = equal_logs(self.ask, self.node_ids, 30)
        self._watch(lambda: self.verifier.settled >= state.trades, 20)
        self.verifier.stop()
        return [self._exactly_once(state), self._one_state(state), self._settled(state)]

    def _exactly_once(self, state: LogDigestReply) -> str:
        record = self.flow.record
        findings = record.check(read_events(self.cluster.config, self.node_ids, state.event_sequence))
        if findings:
            raise CheckFailed("; ".join(findings))
        return (
            f"exactly once: each of the {len(record):,} commands acknowledged to the client is in the event stream "
            "once, in the order sent, with the same content"
        )

    def _one_state(self, state: LogDigestReply) -> str:
        return (
            f"one state: all {len(self.node_ids)} nodes, including the killed one, have state hash "
            f"{state.state_hash:016x} at sequence {state.sequence:,} and log digest "
            f"{state.log_digest:016x}"
        )

    def _settled(self, state: LogDigestReply) -> str:
        report = self.verifier.finish(state.event_sequence)
        settled = self.verifier.settled
        if not state.trades == settled == report["trades"] or report["sequence"] != state.event_sequence:
            raise CheckFailed(
                f"expected {state.trades} trades and {state.event_sequence} events, found {settled} trades in the file "
                f"and events 1 to {report['sequence']} verified"
            )
        return (
            f"complete settlement: the verifier received events 1 to {report['sequence']:,} without a gap; "
            f"settled_trades.csv holds {settled:,} trades, as many as the exchange matched"
        )

    def _kill_leader(self) -> None:
        leader = self.cluster.wait_leader()
        self.cluster.kill(leader)
        killed = time.monotonic()
        self.display.log(
            f"killed the leader, node {leader} (SIGKILL), after {self.flow.acknowledged:,} acknowledged commands"
        )
        successor = self.cluster.wait_leader(30, other_than=leader)
        self.display.log(f"node {successor} is the new leader, {time.monotonic() - killed:.2f} s after the kill")
        self._watch(lambda: time.monotonic() - killed > _RESTART_AFTER_SECONDS)
        self.cluster.start_node(leader)
        self.display.log(f"restarted node {leader} with empty memory")
        self._watch(lambda: self._caught_up(leader), 30)
        self.display.log(f"node {leader} has restored the log and the state and votes again")

    def _caught_up(self, node_id: int) -> bool:
        status = self.ask(node_id, Status())
        return isinstance(status, NodeStatus) and status.role == "follower" and status.sequence > 0

    def _watch(self, done: Callable[[], bool], timeout: float | None = None) -> None:
        """Update the display until a condition holds, or until `timeout`: then the checks report what is missing."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            self._update_display()
            if deadline is not None and time.monotonic() > deadline:
                return
            time.sleep(_SHOW_SECONDS)
        self._update_display()

    def _update_display(self) -> None:
        settled = self.verifier.settled  # Read before the trades, so that it is not greater.
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
        self.display.update(DemoFigures(tuple(rows), after, len(self.tape.commands), per_second, trades, settled))


def recorded_or_generated(commands: int) -> Tape:
    """Return a recorded tape from the folder SMRX_TAPES, or a generated one if that is not set."""
    folder = os.environ.get("SMRX_TAPES")
    if not folder:
        return generate(commands, _SEED)
    found = sorted(Path(folder).rglob("*_message_*.csv*"))
    if not found:
        raise click.UsageError(f"SMRX_TAPES: there are no LOBSTER message files in {folder}")
    orderbook = found[0].with_name(found[0].name.replace("_message_", "_orderbook_"))
    return convert(lobster.read(found[0], orderbook if orderbook.exists() else None)).tape().first(commands)


@click.command()
@click.option("--commands", default=_COMMANDS, show_default=True, help="Commands to send.")
def main(commands: int) -> None:
    """Run three nodes and a verifier, kill the leader, and check the results; exit code 1 if a check fails."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="smrx-demo-") as folder:
            checks = _run(Path(folder), commands)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; all processes have ended") from None
    except TapeError as error:
        raise click.ClickException(str(error)) from None
    except FAILURES as error:
        raise click.ClickException(f"CHECK FAILED: {error}") from error
    click.echo("\nchecked:")
    for line in checks:
        click.echo(f"  * {line}")


def _run(folder: Path, commands: int) -> list[str]:
    with DemoDisplay() as display:
        compiling.compile_engine(display.log)
        tape = recorded_or_generated(commands)
        cluster = LocalCluster(folder / "cluster")
        verifier = DemoVerifier(cluster.config_path, folder)
        display.log("starting three nodes")
        with _ended(verifier), cluster, open_admin_client(cluster.config, 0.3) as ask:
            display.log(f"node {cluster.wait_leader()} is the leader")
            demo = Demo(cluster, ask, verifier, display, tape)
            try:
                demo.run()
                display.log("checking the results")
                return demo.check()
            finally:
                demo.flow.end()


@contextmanager
def _ended(verifier: DemoVerifier) -> Iterator[None]:
    """Kill the verifier at the end of the block."""
    try:
        yield
    finally:
        verifier.end()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
