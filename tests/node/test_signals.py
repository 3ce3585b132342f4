"""`smrx node` ends cleanly on each signal that stops it, and logs which one did."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smrx.local import LocalCluster


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_node_ends_cleanly_and_logs_the_signal(number: signal.Signals, tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        cluster.wait_leader()
        cluster.signal(1, number)
        assert cluster.process(1).wait(30) == 0
        log = cluster.log_path(1).read_text()
    assert log.count(f"node 1 stops on {number.name}\n") == 1
    assert log.endswith("node 1 stopped\n")


def test_node_ignores_sighup_under_nohup(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, nodes=1)
    log = tmp_path / "nohup.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["nohup", sys.executable, "-m", "smrx", "--config", str(cluster.config_path), "node", "--id", "1"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        cluster.wait_for(lambda: "leads in term" in log.read_text(), 60, "a leader")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert "stops on SIGTERM" in log.read_text()
    assert "SIGHUP" not in log.read_text()
