"""Name the links that a network partition cuts. Pure; a link is a pair of nodes (from, to)."""

import random
from collections.abc import Sequence

from cluster.torture.link_proxies import Pair


def all_links(nodes: Sequence[int]) -> list[Pair]:
    """Return every link."""
    return [(one, other) for one in nodes for other in nodes if one != other]


def links_of(nodes: Sequence[int], node: int) -> list[Pair]:
    """Return the links from and to a node."""
    return [pair for pair in all_links(nodes) if node in pair]


def outgoing(nodes: Sequence[int], node: int) -> list[Pair]:
    """Return the links from a node: when cut, the node still receives."""
    return [pair for pair in all_links(nodes) if pair[0] == node]


def incoming(nodes: Sequence[int], node: int) -> list[Pair]:
    """Return the links to a node: when cut, the node still sends."""
    return [pair for pair in all_links(nodes) if pair[1] == node]


def across(nodes: Sequence[int], side: set[int]) -> list[Pair]:
    """Return the links between some nodes and the others."""
    return [pair for pair in all_links(nodes) if (pair[0] in side) != (pair[1] in side)]


def split(nodes: Sequence[int], chance: random.Random) -> list[Pair]:
    """Return the links between two random groups of any size."""
    mixed = chance.sample(nodes, len(nodes))
    return across(nodes, set(mixed[: chance.randint(1, len(nodes) - 1)]))


def bridge(nodes: Sequence[int], chance: random.Random) -> list[Pair]:
    """Return the links between two halves, except those of one node that stays connected to both."""
    middle, *rest = chance.sample(nodes, len(nodes))
    side = set(rest[: len(rest) // 2])
    return [pair for pair in across(nodes, side) if middle not in pair]


def describe(nodes: Sequence[int], pairs: Sequence[Pair]) -> str:
    """Return a name for these links, for the timeline."""
    found = set(pairs)
    if all(one not in nodes for one, _ in pairs):
        return f"client links to node{'s' * (len(pairs) > 1)} {', '.join(str(node) for _, node in pairs)}"
    if found == set(all_links(nodes)):
        return "all links"
    for node in nodes:
        for shape, text in (
            (links_of, "all links of node {}"),
            (outgoing, "outgoing links of node {}"),
            (incoming, "incoming links of node {}"),
        ):
            if found == set(shape(nodes, node)):
                return text.format(node)
    return f"link{'s' * (len(pairs) > 1)} {', '.join(f'{one}-{other}' for one, other in pairs)}"
