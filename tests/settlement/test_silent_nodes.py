"""Nodes that stop and return, over real sockets: a silent node is not excluded, and the run is not restarted."""

import time
from pathlib import Path

import numpy as np

from smrx.config import load
from smrx.follower.alarms import Alarms
from smrx.settlement.settlement_run import LedgerRunner, make_runner, make_settler, summarize
from smrx.sinks.csv_sink import CsvSink
from tests.feed.stub import TIMEOUT_S, StubNode
from tests.settlement.market import market_events
from tests.settlement.settle_helpers import Events, expected_rows, publish_all, rows, write_config


def settle_up_to(runner: LedgerRunner, last: int, nodes: list[StubNode]) -> None:
    """Turn until event `last` is settled, with heartbeats of the nodes."""
    deadline = time.monotonic() + TIMEOUT_S
    while runner.sequence < last:
        assert time.monotonic() < deadline, summarize(runner, [])
        runner.turn(0.05)
        for node in nodes:
            node.heartbeat()


def restarted(node: StubNode, events: Events, runner: LedgerRunner) -> StubNode:
    """Return the same node as another process: it has applied everything again, and publishes what follows."""
    again = StubNode(node.node, port=node.port)
    again.ring.append(events)
    again.newest_command = int(events["command_sequence"][-1])
    wait_subscribed(again, runner)
    return again


def wait_subscribed(node: StubNode, runner: LedgerRunner) -> None:
    """Turn until the node has the subscription of the runner."""
    deadline = time.monotonic() + TIMEOUT_S
    while not node.is_subscribed():
        assert time.monotonic() < deadline
        runner.turn(0.05)
    node.wait_subscribed()


def test_node_that_returns_counts_in_the_majority(tmp_path: Path) -> None:
    events = market_events()
    ends = [int(end) + 1 for end in np.flatnonzero(np.diff(events["command_sequence"]))]
    first, second = ends[len(ends) // 3], ends[2 * len(ends) // 3]
    one, two, three = nodes = [StubNode(node) for node in (1, 2, 3)]
    settler = make_settler("local", str(tmp_path / "books"), [CsvSink(tmp_path)])
    settler.open()
    runner = make_runner(load(write_config(tmp_path, nodes)), settler, Alarms("local"))
    try:
        for node in nodes:
            wait_subscribed(node, runner)
            publish_all(node, events[:first])
        settle_up_to(runner, first, nodes)
        three.close()
        for node in (one, two):
            publish_all(node, events[first:second])
        settle_up_to(runner, second, [one, two])
        assert runner.quorum.attested_by == [1, 2]
        three = restarted(three, events[:second], runner)
        one.close()
        for node in (two, three):
            publish_all(node, events[second:])
        settle_up_to(runner, len(events), [two, three])
        assert (runner.quorum.attested_by, runner.quorum.excluded) == ([2, 3], [])
        assert runner.alarms.count == 0
        runner.settler.commit(runner.quorum.hash_after)
    finally:
        runner.close()
        settler.close()
        for node in (two, three):
            node.close()
    assert rows(tmp_path) == expected_rows(events)
