"""Which links a cut takes: every shape in which a network falls apart. Pure; pairs are (from, to)."""

import random
from collections.abc import Sequence

from cluster.torture.proxies import Pair


def between(nodes: Sequence[int]) -> list[Pair]:
    """Every link."""
    return [(one, other) for one in nodes for other in nodes if one != other]


def around(nodes: Sequence[int], centre: int) -> list[Pair]:
    """Whatever one node says or hears."""
    return [pair for pair in between(nodes) if centre in pair]


def said_by(nodes: Sequence[int], speaker: int) -> list[Pair]:
    """What one node says: it hears the others, and they do not hear it."""
    return [pair for pair in between(nodes) if pair[0] == speaker]


def heard_by(nodes: Sequence[int], listener: int) -> list[Pair]:
    """What one node hears: it is heard, and hears nobody."""
    return [pair for pair in between(nodes) if pair[1] == listener]


def across(nodes: Sequence[int], here: set[int]) -> list[Pair]:
    """Whatever passes between some nodes and the others."""
    return [pair for pair in between(nodes) if (pair[0] in here) != (pair[1] in here)]


def split(nodes: Sequence[int], chance: random.Random) -> list[Pair]:
    """Two parts of any size that do not hear each other."""
    mixed = chance.sample(nodes, len(nodes))
    return across(nodes, set(mixed[: chance.randint(1, len(nodes) - 1)]))


def bridge(nodes: Sequence[int], chance: random.Random) -> list[Pair]:
    """Two halves that hear each other only through one node between them."""
    middle, *rest = chance.sample(nodes, len(nodes))
    here = set(rest[: len(rest) // 2])
    return [pair for pair in across(nodes, here) if middle not in pair]


def named(nodes: Sequence[int], pairs: Sequence[Pair]) -> str:
    """Links as people say it."""
    found = set(pairs)
    if all(one not in nodes for one, _ in pairs):
        return f"clients' links to node{'s' * (len(pairs) > 1)} {', '.join(str(node) for _, node in pairs)}"
    if found == set(between(nodes)):
        return "all links"
    for node in nodes:
        for shape, words in (
            (around, "all links of node {}"),
            (said_by, "what node {} says"),
            (heard_by, "what node {} hears"),
        ):
            if found == set(shape(nodes, node)):
                return words.format(node)
    return f"link{'s' * (len(pairs) > 1)} {', '.join(f'{one}-{other}' for one, other in pairs)}"
