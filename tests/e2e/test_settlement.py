"""Settlement beside a real cluster: verifier and nodes are killed, and the books balance exactly."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cluster.order_flow import OrderFlow
from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.config import Limits
from smrx.local import LocalCluster
from smrx.tape.generate import generate
from smrx.tape.tape_file import Tape
from smrx.wire.command_list import CommandList

MakeCluster = Callable[..., LocalCluster]


class Verifier:
    """A `smrx settle run` process."""

    def __init__(self, cluster: LocalCluster, out: Path) -> None:
        self._command = [sys.executable, "-m", "smrx", "--config", str(cluster.config_path), "settle"]
        self._options = ["--out", str(out), "--json"]
        self._out = out
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self._command, "run", *self._options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def finish(self, last_event: int) -> dict[str, Any]:
        """Settle up to an event, then verify the books and compare them with the nodes."""
        report: dict[str, Any] = {}
        for arguments in (["run", "--until-sequence", str(last_event)], ["verify"], ["verify", "--from-nodes"]):
            ended = subprocess.run(
                [*self._command, *arguments, *self._options], capture_output=True, text=True, timeout=60, check=False
            )
            assert ended.returncode == 0, ended.stderr
            report[" ".join(arguments[-1:])] = json.loads(ended.stdout)
        return report

    def committed(self) -> int:
        path = self._out / "settlement" / "checkpoint.json"
        return int(json.loads(path.read_bytes())["checkpoint"]["event_sequence"]) if path.exists() else 0

    def further_than(self, sequence: int) -> bool | None:
        """Return True once an event after `sequence` is committed, else None."""
        return self.committed() > sequence or None


def quarters_of(tape: Tape) -> list[CommandList]:
    count = len(tape.commands) // 4
    return [tape.flow.part(at * count, (at + 1) * count) for at in range(4)]


def test_books_balance_after_kills_of_verifier_and_nodes(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster()
    tape = generate(12_000, seed=1)
    with Client(cluster.config, account=0) as client:
        client.submit(*tape.setup)
    verifier = Verifier(cluster, tmp_path / "out")
    quarters = [OrderFlow(cluster.config, part, rate=3_000.0) for part in quarters_of(tape)]
    try:
        for flow in quarters[:3]:
            before = verifier.committed()
            verifier.start()
            flow.start()
            cluster.wait_for(partial(verifier.further_than, before), 60, "settlement to go on")
            verifier.kill()
            flow.wait_for(len(flow.commands), 60)
        verifier.start()
        quarters[3].start()
        quarters[3].wait_for(500, 60)
        leader = cluster.leader() or 1
        cluster.kill(leader)
        quarters[3].wait_for(len(quarters[3].commands), 60)
        cluster.start_node(leader)
        sequence = max(status.event_sequence for status in cluster.statuses().values())
        cluster.wait_for(partial(verifier.further_than, sequence - 1), 60, "everything to be settled")
        assert verifier.process is not None
        verifier.process.send_signal(signal.SIGTERM)
        out, error = verifier.process.communicate(timeout=30)
    finally:
        if verifier.process is not None and verifier.process.poll() is None:
            verifier.kill()
    assert error == "stopped on SIGTERM\n"
    report = json.loads(out)
    assert (report["exit_code"], report["excluded"], report["alarms"]) == (0, [], 0)
    assert report["balances_compared"] >= 1
    final = verifier.finish(sequence)
    trades = max(status.trades for status in cluster.statuses().values())
    assert final[str(sequence)]["trades"] == final["verify"]["trades"] == final["--from-nodes"]["trades"] == trades
    lines = (tmp_path / "out" / "settled_trades.csv").read_bytes().count(b"\n")
    assert lines == trades + 1


def test_log_audit_verifies_settlement_and_fills_gaps(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """The event rings are short: only the journal of a stopped node holds the events the verifier missed."""
    cluster = make_cluster(durability="disk", limits=Limits(event_ring=2_000))
    tape = generate(5_000, seed=2)
    smrx = [sys.executable, "-m", "smrx", "--config", str(cluster.config_path), "settle"]
    out = ["--out", str(tmp_path / "out")]

    def settle(*arguments: str) -> tuple[int, str]:
        ended = subprocess.run([*smrx, *arguments, *out], capture_output=True, text=True, timeout=60, check=False)
        return ended.returncode, ended.stdout + ended.stderr

    def stop(node_id: int) -> str:
        cluster.signal(node_id, signal.SIGTERM)
        cluster.wait_for(lambda: None if cluster.running(node_id) else True, 60, f"node {node_id} to stop")
        return str(cluster.config.node_dir(node_id))

    with Client(cluster.config, account=0) as client:
        client.submit(*tape.setup)
        client.submit(tape.commands[:4_500])
        code, output = settle("run", "--idle", "1")
        assert (code, "read it with --from-log" in output) == (Exit.GAP, True), output
        follower = next(node for node in (1, 2, 3) if node != cluster.leader())
        log = stop(follower)
        client.submit(tape.commands[4_500:])
        code, output = settle("run", "--idle", "3", "--from-log", log)
        assert (code, "from the log of node" in output) == (Exit.OK, True), output
        last = max(status.event_sequence for status in cluster.statuses().values())
        assert f"verified   events 1 to {last:,}" in output
    code, output = settle("verify", "--log", log)
    assert (code, "but more is settled" in output) == (Exit.LOG, True), output
    code, output = settle("verify", "--log", stop(next(node for node in (1, 2, 3) if node != follower)))
    assert code == Exit.OK, output
    trades = tmp_path / "out" / "settled_trades.csv"
    lines = trades.read_bytes().splitlines(keepends=True)
    trades.write_bytes(b"".join(lines[:7] + lines[8:]))
    other = next(node for node in (1, 2, 3) if not cluster.running(node) and node != follower)
    code, output = settle("verify", "--log", str(cluster.config.node_dir(other)))
    assert (code, "trade 7 of the log is missing" in output) == (Exit.LOG, True), output
