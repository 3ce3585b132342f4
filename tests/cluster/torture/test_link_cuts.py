"""The links that each kind of partition cuts."""

import random

from cluster.torture import link_cuts

NODES = [1, 2, 3, 4, 5]


def test_outgoing_and_incoming_links_are_all_links_of_a_node() -> None:
    assert set(link_cuts.outgoing(NODES, 2)) | set(link_cuts.incoming(NODES, 2)) == set(link_cuts.links_of(NODES, 2))
    assert set(link_cuts.outgoing(NODES, 2)) & set(link_cuts.incoming(NODES, 2)) == set()
    assert set(link_cuts.outgoing(NODES, 2)) == {(2, 1), (2, 3), (2, 4), (2, 5)}


def test_split_cuts_all_links_between_two_groups() -> None:
    for seed in range(50):
        cut = link_cuts.split(NODES, random.Random(seed))
        here = {1} | {node for node in NODES if (1, node) not in cut}
        there = set(NODES) - here
        assert there
        assert set(cut) == {pair for pair in link_cuts.all_links(NODES) if (pair[0] in here) != (pair[1] in here)}


def test_bridge_leaves_one_node_connected_to_all() -> None:
    for seed in range(50):
        cut = set(link_cuts.bridge(NODES, random.Random(seed)))
        uncut = [node for node in NODES if not cut & set(link_cuts.links_of(NODES, node))]
        assert len(uncut) == 1
        (middle,) = uncut
        for node in set(NODES) - {middle}:
            # Every other node loses its links from the two nodes of the other half.
            assert len([pair for pair in cut if pair[1] == node]) == 2


def test_description_names_the_shape() -> None:
    assert link_cuts.describe(NODES, link_cuts.all_links(NODES)) == "all links"
    assert link_cuts.describe(NODES, link_cuts.links_of(NODES, 3)) == "all links of node 3"
    assert link_cuts.describe(NODES, link_cuts.outgoing(NODES, 4)) == "outgoing links of node 4"
    assert link_cuts.describe(NODES, link_cuts.incoming(NODES, 5)) == "incoming links of node 5"
    assert link_cuts.describe(NODES, [(1, 2)]) == "link 1-2"
    assert link_cuts.describe(NODES, [(0, 2), (0, 3)]) == "client links to nodes 2, 3"
    assert link_cuts.describe(NODES, [(1, 2), (2, 1)]) == "links 1-2, 2-1"
