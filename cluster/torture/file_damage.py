"""Damage a file of a stopped node: flip a bit, invert bytes, blank a page, or cut off the end.

Returns what was done, for the timeline of the run.
"""

import random
from pathlib import Path
from typing import Final

from smrx.consensus.disk_journal import FILE as JOURNAL
from smrx.consensus.snapshot_files import FOLDER as SNAPSHOTS

_PAGE_BYTES: Final = 4096
_META: Final = "meta.lmdb"


def damage_file(directory: Path, chance: random.Random) -> str | None:
    """Damage one file of a node's data directory; return what was done, or None if there is no file to damage."""
    found = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.stat().st_size]
    # Mostly the journal: it holds what the node has acknowledged.
    weights = {JOURNAL: 6, _META: 2}
    found = [path for path in found if path.name in weights or SNAPSHOTS in path.parts]
    if not found:
        return None
    snapshots = sum(path.name not in weights for path in found)
    (path,) = chance.choices(found, [weights.get(path.name, 2 / max(1, snapshots)) for path in found])
    how = chance.choice((_one_bit, _many_bytes, _blank_page, _cut_off))
    data = bytearray(path.read_bytes())
    text = how(data, chance)
    path.write_bytes(data)
    return f"{path.relative_to(directory)}: {text}"


def _one_bit(data: bytearray, chance: random.Random) -> str:
    at, bit = chance.randrange(len(data)), chance.randrange(8)
    data[at] ^= 1 << bit
    return f"bit {bit} of byte {at} of {len(data)} flipped"


def _many_bytes(data: bytearray, chance: random.Random) -> str:
    step = chance.choice((100, 1000, 5000))
    places = range(chance.randrange(min(step, len(data))), len(data), step)
    for at in places:
        data[at] ^= 0xFF
    return f"{len(places)} bytes of {len(data)} inverted"


def _blank_page(data: bytearray, chance: random.Random) -> str:
    page = chance.randrange((len(data) + _PAGE_BYTES - 1) // _PAGE_BYTES)
    size = len(data[page * _PAGE_BYTES : (page + 1) * _PAGE_BYTES])
    data[page * _PAGE_BYTES : page * _PAGE_BYTES + size] = bytes(size)
    return f"page {page} of {len(data) // _PAGE_BYTES} blank"


def _cut_off(data: bytearray, chance: random.Random) -> str:
    before = len(data)
    del data[chance.randrange(before) :]
    return f"cut off after {len(data)} of {before} bytes"
