"""What can become of a file while nobody looks: bits that flip, a page of nothing, an end that is missing.

Called while the node is down. What was done is said, so that a run's timeline can be followed.
"""

import random
from pathlib import Path
from typing import Final

from smrx.consensus.disk_journal import FILE as JOURNAL
from smrx.consensus.snapshot_files import FOLDER as SNAPSHOTS

_PAGE_BYTES: Final = 4096
_META: Final = "meta.lmdb"


def damage(directory: Path, chance: random.Random) -> str | None:
    """Damage one file of a node's data directory; what was done, or None if there is nothing to damage."""
    # The journal is where a node's promises are.
    wanted = chance.choice((JOURNAL, JOURNAL, JOURNAL, SNAPSHOTS, _META))
    below = directory / wanted
    files = sorted(path for path in below.rglob("*") if path.is_file()) if below.is_dir() else [below]
    files = [path for path in files if path.is_file() and path.stat().st_size]
    if not files:
        return None
    path = chance.choice(files)
    how = chance.choice((_one_bit, _many_bytes, _blank_page, _cut_off))
    data = bytearray(path.read_bytes())
    told = how(data, chance)
    path.write_bytes(data)
    return f"{path.relative_to(directory)}: {told}"


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
