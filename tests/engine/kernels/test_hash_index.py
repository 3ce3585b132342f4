"""The hash index compared with a dict: clusters, wrap-around, holes."""

import random
from typing import Any

import numpy as np
import pytest
from numba import njit

from smrx.engine.checks.index_invariants import _hashes
from smrx.engine.kernels import hash_index, lookup
from smrx.engine.kernels.numba_tables import table_of
from smrx.engine.state import CELL, ORDER, SIZE, in_use


@njit
def find(cells: Any, orders: Any, key: Any, extra: Any) -> Any:
    return hash_index.find(table_of(cells), table_of(orders), lookup.has_client_order_id, key, extra)


@njit
def insert(cells: Any, key: Any, extra: Any, slot: Any) -> None:
    hash_index.insert(table_of(cells), key, extra, slot)


@njit
def remove(cells: Any, key: Any, extra: Any, slot: Any) -> None:
    hash_index.remove(table_of(cells), key, extra, slot)


@njit
def key_hash(key: Any, extra: Any) -> Any:
    return hash_index.key_hash(key, extra)


def keys_with_one_home(cells: Any, count: int) -> list[int]:
    """Return keys whose search begins in the last cell, so that their cluster wraps around."""
    last = len(cells) - 1
    found: list[int] = []
    key = 0
    while len(found) < count:
        key += 1
        if int(key_hash(np.uint64(key), np.uint32(0))) & last == last:
            found.append(key)
    return found


def keys_with_one_hash() -> list[int]:
    """Return keys of which each shares all stored hash bits with another; with second part 0."""
    keys = np.random.default_rng(5).integers(0, 1 << 64, 1 << 19, dtype=np.uint64)
    hashes = _hashes(keys, np.zeros(len(keys), np.uint32))
    _, where, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    found = keys[counts[where] > 1][np.argsort(hashes[counts[where] > 1])]
    return [int(key) for key in found[:40]]


@pytest.mark.parametrize("keys", ["few", "sequential", "huge", "one home", "one hash"])
def test_index_equals_a_dict(keys: str) -> None:
    array, orders = np.zeros(128, CELL), np.zeros(4_001, ORDER)
    array[SIZE] = 64
    cells = in_use(array)
    source = random.Random(5)
    choices = {
        "few": list(range(40)),
        "sequential": list(range(1_000_000, 1_000_040)),
        "huge": [(1 << 64) - 1 - (number << 40) for number in range(40)],
        "one home": keys_with_one_home(cells, 40),
        "one hash": keys_with_one_hash(),
    }[keys]
    model: dict[tuple[int, int], int] = {}
    for step in range(4_000):
        key, extra = source.choice(choices), source.choice((0, 0, 1, (1 << 32) - 1))
        found = int(find(cells, orders, np.uint64(key), np.uint32(extra)))
        assert found == model.get((key, extra), 0)
        if found:
            remove(cells, np.uint64(key), np.uint32(extra), np.uint32(found))
            del model[key, extra]
        elif len(model) < 32:
            orders["client_order_id"][step + 1], orders["account_id"][step + 1] = key, extra
            insert(cells, np.uint64(key), np.uint32(extra), np.uint32(step + 1))
            model[key, extra] = step + 1
    assert sorted((cells[cells != 0] & np.uint64(0xFFFF_FFFF)).tolist()) == sorted(model.values())


@pytest.mark.parametrize("step", [1, 2, 7, 64, 1_000, 1 << 20, 1 << 32, 1 << 52])
def test_regular_keys_are_spread(step: int) -> None:
    """Ids are consecutive and prices lie on a grid: neither may crowd in a few cells."""
    homes = {int(key_hash(np.uint64(number * step), np.uint32(0))) & 4_095 for number in range(1 << 11)}
    # Random keys would use 1,612 of 2,048.
    assert len(homes) > 1_300
