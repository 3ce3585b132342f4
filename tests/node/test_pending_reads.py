"""Reads are answered in turn: of each peer in its order, of many peers one each."""

from smrx.consensus.read_index import ReadState, ReadTicket
from smrx.node.pending_reads import PendingReads


def ticket(number: int) -> ReadTicket:
    return ReadTicket(1, number, number)


def new(of_peer: int = 4, in_all: int = 6) -> PendingReads[str, int]:
    return PendingReads(of_peer=of_peer, in_all=in_all)


def taken(reads: PendingReads[str, int]) -> list[tuple[str, int, bool]]:
    found = []
    while (answerable := reads.take()) is not None:
        found.append(tuple(answerable))
    return found


def test_peers_take_turns() -> None:
    reads = new()
    for number in range(4):
        reads.add("many", number, None)
    reads.add("one", 9, None)
    assert taken(reads) == [("many", 0, False), ("one", 9, False), *(("many", n, False) for n in (1, 2, 3))]
    assert len(reads) == 0
    assert not reads.has_answerable()


def test_numbers_are_bounded_for_a_peer_and_in_all() -> None:
    reads = new()
    for number in range(4):
        assert reads.has_space("a")
        reads.add("a", number, ticket(number))
    assert not reads.has_space("a")
    reads.add("b", 0, None)
    reads.add("b", 1, None)
    assert reads.is_full
    assert not reads.has_space("c")
    assert taken(reads) == [("b", 0, False), ("b", 1, False)]
    assert reads.has_space("c")
    assert not reads.has_space("a")


def test_reads_wait_for_their_tickets_in_order() -> None:
    reads = new()
    for number in range(3):
        reads.add("a", number, ticket(number))
    assert reads.take() is None
    reads.release(lambda given: ReadState.READY if given.log_index < 2 else ReadState.WAITING)
    assert taken(reads) == [("a", 0, False), ("a", 1, False)]
    reads.release(lambda given: ReadState.LOST)
    assert taken(reads) == [("a", 2, True)]


def test_blocked_peer_is_passed_over() -> None:
    reads = new()
    reads.add("blocked", 1, None)
    reads.add("free", 2, None)
    assert reads.take({"blocked"}) == ("free", 2, False)
    assert reads.take({"blocked"}) is None
    assert not reads.has_answerable({"blocked"})
    assert reads.take() == ("blocked", 1, False)


def test_reads_of_a_peer_that_is_gone_are_dropped() -> None:
    reads = new()
    reads.add("gone", 1, None)
    reads.add("gone", 2, ticket(2))
    reads.add("other", 3, ticket(3))
    assert reads.drop("gone") == 2
    assert reads.drop("gone") == 0
    assert len(reads) == 1
    reads.release(lambda given: ReadState.READY)
    assert taken(reads) == [("other", 3, False)]
