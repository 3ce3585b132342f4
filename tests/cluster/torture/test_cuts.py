"""The shapes in which a network falls apart."""

import random

from cluster.torture import cuts

NODES = [1, 2, 3, 4, 5]


def test_what_a_node_says_and_hears_is_everything_around_it() -> None:
    assert set(cuts.said_by(NODES, 2)) | set(cuts.heard_by(NODES, 2)) == set(cuts.around(NODES, 2))
    assert set(cuts.said_by(NODES, 2)) & set(cuts.heard_by(NODES, 2)) == set()
    assert set(cuts.said_by(NODES, 2)) == {(2, 1), (2, 3), (2, 4), (2, 5)}


def test_a_split_leaves_two_parts_that_do_not_hear_each_other() -> None:
    for seed in range(50):
        cut = cuts.split(NODES, random.Random(seed))
        here = {1} | {node for node in NODES if (1, node) not in cut}
        there = set(NODES) - here
        assert there
        assert set(cut) == {pair for pair in cuts.between(NODES) if (pair[0] in here) != (pair[1] in here)}


def test_a_bridge_leaves_one_node_that_everybody_hears() -> None:
    for seed in range(50):
        cut = set(cuts.bridge(NODES, random.Random(seed)))
        whole = [node for node in NODES if not cut & set(cuts.around(NODES, node))]
        assert len(whole) == 1
        (middle,) = whole
        for node in set(NODES) - {middle}:
            # Two of its own half, or one and itself: it hears two others, the middle among them.
            assert len([pair for pair in cut if pair[1] == node]) == 2


def test_links_are_named_by_their_shape() -> None:
    assert cuts.named(NODES, cuts.between(NODES)) == "all links"
    assert cuts.named(NODES, cuts.around(NODES, 3)) == "all links of node 3"
    assert cuts.named(NODES, cuts.said_by(NODES, 4)) == "what node 4 says"
    assert cuts.named(NODES, cuts.heard_by(NODES, 5)) == "what node 5 hears"
    assert cuts.named(NODES, [(1, 2)]) == "link 1-2"
    assert cuts.named(NODES, [(0, 2), (0, 3)]) == "clients' links to nodes 2, 3"
    assert cuts.named(NODES, [(1, 2), (2, 1)]) == "links 1-2, 2-1"
