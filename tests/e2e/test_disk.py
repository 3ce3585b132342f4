"""Durability on disk, on real processes: all nodes die at once, a disk fills up, files are damaged."""

from collections.abc import Callable

from cluster.flow import Flow
from cluster.proof import equal_logs, read_events
from smrx.client import Client
from smrx.client.asker import asker
from smrx.config import Limits
from smrx.consensus.snapshot_files import FOLDER, describe
from smrx.local import LocalCluster
from smrx.tape.generate import generate
from smrx.tape.market import setup_failure

MakeCluster = Callable[..., LocalCluster]


def test_all_nodes_killed_at_once_lose_nothing_acknowledged(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(durability="disk", limits=Limits(snapshot_commands=3000, compaction_entries=100))
    tape = generate(12_000, seed=5)
    with Client(cluster.config, account=0) as client:
        assert setup_failure(tape.setup, client.submit(tape.setup)) is None
    flow = Flow(cluster.config, tape.commands, rate=4000)
    flow.start()
    for share in (3, 2):
        flow.wait_for(len(tape.commands) // share, 60)
        for node in (1, 2, 3):
            cluster.process(node).kill()
        for node in (1, 2, 3):
            cluster.process(node).wait()
        cluster.start()
        cluster.wait_leader()
    record = flow.finish(60)
    with asker(cluster.config, 1.0) as ask:
        state = equal_logs(ask, [1, 2, 3], 30)
    for node in (1, 2, 3):
        assert record.check(read_events(cluster.config, [node], state.event_sequence)) == []
        snapshots = cluster.config.node_dir(node) / FOLDER
        assert describe(snapshots / "latest").metadata.sequence > 0
