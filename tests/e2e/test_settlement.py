"""Settlement beside a real cluster: verifier and nodes are killed, and the books balance to the unit."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cluster.flow import Flow
from smrx.client import Client
from smrx.local import LocalCluster
from smrx.tape.generate import generate

MakeCluster = Callable[..., LocalCluster]


class Verifier:
    """`smrx settle run` as a process."""

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
        """Run to an event, and then derive everything once more."""
        told: dict[str, Any] = {}
        for arguments in (["run", "--until-sequence", str(last_event)], ["verify"], ["verify", "--from-nodes"]):
            ended = subprocess.run(
                [*self._command, *arguments, *self._options], capture_output=True, text=True, timeout=60, check=False
            )
            assert ended.returncode == 0, ended.stderr
            told[" ".join(arguments[-1:])] = json.loads(ended.stdout)
        return told

    def committed(self) -> int:
        path = self._out / "settlement" / "checkpoint.json"
        return int(json.loads(path.read_bytes())["checkpoint"]["event_sequence"]) if path.exists() else 0

    def further_than(self, sequence: int) -> bool | None:
        """True once more than that is committed."""
        return self.committed() > sequence or None


def test_killed_verifiers_and_nodes_end_with_books_that_balance(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster()
    tape = generate(12_000, seed=1)
    with Client(cluster.config, account=0) as client:
        client.submit(tape.setup)
    verifier = Verifier(cluster, tmp_path / "out")
    quarters = [Flow(cluster.config, part, rate=3_000.0) for part in np.array_split(tape.commands, 4)]
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
    assert error == ""
    told = json.loads(out)
    assert (told["exit_code"], told["excluded"], told["alarms"]) == (0, [], 0)
    assert told["balances_compared"] >= 1
    final = verifier.finish(sequence)
    trades = max(status.trades for status in cluster.statuses().values())
    assert final[str(sequence)]["trades"] == final["verify"]["trades"] == final["--from-nodes"]["trades"] == trades
    lines = (tmp_path / "out" / "settled_trades.csv").read_bytes().count(b"\n")
    assert lines == trades + 1
