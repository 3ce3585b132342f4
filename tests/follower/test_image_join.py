"""Agree on a state image, with nodes that consist of an engine and its images."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.config import Config, NodeConfig
from smrx.engine import Engine
from smrx.feed.feed_errors import Disagreement
from smrx.follower.alarms import Alarms
from smrx.follower.follow_errors import NotConnected, Unattested
from smrx.follower.image_join import ImageJoin
from smrx.node.state_images import StateImages
from smrx.settlement.settlement_run import LedgerSettler, make_settler
from smrx.sinks.contract import Origin
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire import admin, state_image
from tests.commands import apply
from tests.property.flow import seeded_tape

CONFIG = Config(
    nodes=tuple(NodeConfig(id=i, port=10 * i, events_port=10 * i + 1, admin_port=10 * i + 3) for i in (1, 2, 3))
)
WRONG = (1, 1)  #: account and asset of what a test damages


class FakeNode:
    """An engine, and the answers of its admin service. A busy one applies an entry with every request."""

    def __init__(self, number: int, applied: int = 60, busy: bool = False) -> None:
        self.number = number
        self.engine, self.state_images = Engine(), StateImages()
        self._entries = iter(seeded_tape(3, 1500).batches)
        self._busy = busy
        for _ in range(applied):
            self.advance()

    def advance(self) -> None:
        batch = next(self._entries, None)
        if batch is not None:
            apply(self.engine, batch.commands, batch.time_ns)
        if self.engine.sequence >= self.state_images.next_sequence:
            self.state_images.capture(self.engine)

    def answer(self, request: admin.AnyRequest) -> admin.AnyReply:
        if self._busy:
            self.advance()
        output: dict[str, Any] = {"node_id": self.number, "sequence": self.engine.sequence}
        if isinstance(request, admin.Status):
            return self._status()
        if isinstance(request, admin.TakeStateImage):
            held = self.state_images.request(request.at, self.engine, 0.0)
            if held is None:
                return admin.StateImageReply(**output, at=request.at)
            return admin.StateImageReply(
                **output, at=request.at, position=held.position, size=len(held.data), digest=held.digest
            )
        assert isinstance(request, admin.ReadStateImage)
        held = self.state_images.get(request.at, 0.0)
        assert held is not None
        end = request.offset + 1000
        return admin.StateImagePart(
            **output, at=request.at, data=held.data[request.offset : end], more=end < len(held.data)
        )

    def _status(self) -> admin.NodeStatus:
        return admin.NodeStatus(
            node_id=self.number, sequence=self.engine.sequence, cluster=CONFIG.cluster, role="follower", term=1,
            leader_id=1, commit_index=0, applied_index=0, last_log_index=0, event_sequence=self.engine.event_sequence,
            trades=self.engine.trade_count, state_hash=self.engine.state_hash,
            agreement=admin.AgreementStatus(state="AGREE"),
        )  # fmt: skip


def join(nodes: list[FakeNode], alarms: Alarms | None = None, seconds: float = 5.0) -> tuple[bytes, Origin]:
    """Ask the nodes; those of 1 to 3 that are missing do not answer."""
    known = {node.number: node for node in nodes}

    def ask(number: int, request: admin.AnyRequest) -> admin.AnyReply | None:
        node = known.get(number)
        return None if node is None else node.answer(request)

    return ImageJoin(CONFIG, [1, 2, 3], ask, alarms or Alarms("test")).take(seconds, lambda: False)


def test_idle_nodes_give_their_current_image() -> None:
    nodes = [FakeNode(i) for i in (1, 2, 3)]
    image, origin = join(nodes)
    assert origin.attested_by == (1, 2, 3)
    assert (origin.event_sequence, origin.match_id) == (nodes[0].engine.event_sequence, nodes[0].engine.trade_count)
    assert state_image.digest(image) == origin.digest
    assert state_image.decode(image).position.state_hash == origin.state_hash == nodes[0].engine.state_hash


def test_busy_nodes_agree_on_a_place_ahead() -> None:
    nodes = [FakeNode(i, applied=applied, busy=True) for i, applied in ((1, 40), (2, 31), (3, 36))]
    image, origin = join(nodes)
    assert len(origin.attested_by) >= 2
    same = Engine()
    for batch in seeded_tape(3, 1500).batches:
        if same.sequence < origin.command_sequence:
            apply(same, batch.commands, batch.time_ns)
    assert (same.event_sequence, same.state_hash) == (origin.event_sequence, origin.state_hash)
    assert state_image.decode(image).position.command_sequence == same.sequence


def test_one_silent_node_is_tolerated_and_two_are_not() -> None:
    assert join([FakeNode(1), FakeNode(3)])[1].attested_by == (1, 3)
    with pytest.raises(Unattested, match=r"2 of 3 nodes must give .* node 1: no answer, node 2: event .* node 3: no"):
        join([FakeNode(2)], seconds=0.1)
    with pytest.raises(NotConnected, match="node 1: no answer, node 2: no answer, node 3: no answer"):
        join([], seconds=0.1)


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_wrong_balance_of_one_node_is_named(bad: int) -> None:
    """The planted fault: the state hash is the same, the balance in memory is not."""
    nodes, alarms = [FakeNode(i) for i in (1, 2, 3)], Alarms("test")
    assert nodes[bad - 1].engine.corrupt_balance(*WRONG, 1)
    assert len({node.engine.state_hash for node in nodes}) == 1
    image, origin = join(nodes, alarms)
    assert origin.attested_by == tuple(i for i in (1, 2, 3) if i != bad)
    (alarm,) = alarms.last
    assert (alarm.code, alarm.node) == ("STATES_DIFFER", bad)
    assert f"node {bad} gives another state image" in alarm.message
    assert "balances, account 1, asset 1: available" in alarm.message
    right = FakeNode(4).engine.inspect.balances()
    assert np.array_equal(_plain(state_image.decode(image).tables["balances"]), _plain(right))


def test_images_without_a_majority_are_refused() -> None:
    nodes = [FakeNode(i) for i in (1, 2, 3)]
    for node, delta in zip(nodes, (0, 1, 2), strict=True):
        assert node.engine.corrupt_balance(*WRONG, delta)
    with pytest.raises(Disagreement, match=r"node 2 gives another .* account 1, asset 1: .*; node 3 gives another"):
        join(nodes)


def test_two_that_differ_wait_for_the_third() -> None:
    nodes = [FakeNode(1), FakeNode(2)]
    assert nodes[1].engine.corrupt_balance(*WRONG, 1)
    with pytest.raises(Unattested, match="node 3: no answer"):
        join(nodes, seconds=0.1)


def test_sink_with_another_origin_is_refused(tmp_path: Path) -> None:
    image, origin = join([FakeNode(i) for i in (1, 2, 3)])

    def settling(books: str, sink: str) -> LedgerSettler:
        opened = make_settler("test", str(tmp_path / books), [CsvSink(tmp_path / sink)])
        opened.open()
        return opened

    joined = settling("books", "sink")
    joined.join(image, origin)
    assert joined.projection.sequence == origin.event_sequence
    joined.close()
    # Books from event 1 beside a sink from an image, and the other way round.
    with pytest.raises(SinkMismatch, match="expected data of which books begin with event 1, found that books begin"):
        settling("other", "sink")
    # A new sink beside the same books starts from their image.
    added = settling("books", "added")
    assert (added.origin, added.projection.sequence) == (origin, origin.event_sequence)
    assert (tmp_path / "added" / "settled_movements.csv").read_bytes() == (
        tmp_path / "sink" / "settled_movements.csv"
    ).read_bytes()
    added.close()


def test_image_changed_on_disk_is_detected(tmp_path: Path) -> None:
    image, origin = join([FakeNode(i) for i in (1, 2, 3)])
    settler = make_settler("test", str(tmp_path), [])
    settler.open()
    settler.join(image, origin)
    settler.close()
    path = tmp_path / f"opening-{origin.event_sequence}.bin"
    path.write_bytes(image[:-1] + bytes([image[-1] ^ 1]))
    with pytest.raises(SinkMismatch, match="expected the state image the checkpoint names"):
        make_settler("test", str(tmp_path), []).open()


def _plain(rows: NDArray[np.void]) -> NDArray[np.int64]:
    return np.array(list(itertools.chain(*rows.tolist())), np.int64)
