"""Snapshots of other versions: what was added gets defaults, what would be lost is refused, hashes stay valid."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from smrx.engine import Engine, SnapshotError
from smrx.engine.migrations import LAYOUT_VERSION, Arrays, Migration
from smrx.engine.snapshot import HEADER, LAYOUT, NOT_STORED, STORED, Layout, layout_of, packed, unpacked
from smrx.engine.state import DTYPES, TABLES, State
from smrx.wire.codes import Side
from tests.commands import apply, join, place
from tests.engine.small_market import full_market
from tests.engine.test_snapshot import resealed

ROOT = Path(__file__).resolve().parents[2]
TABLE_NAMES = tuple(table.name for table in TABLES)
Dtypes = Mapping[str, Any]


def stored() -> dict[str, Any]:
    return {name: DTYPES[name] for name in STORED}


def with_field(dtype: Any, name: str, kind: str, *, front: bool = False) -> Any:
    """Return a record type with one field more, in front of the others or behind them, and no padding."""
    fields = [(known, dtype[known]) for known in dtype.names]
    return np.dtype([(name, kind), *fields] if front else [*fields, (name, kind)])


def snapshot_of(arrays: Arrays, layout: Layout, content_hash: int) -> bytes:
    """Return the snapshot that the version with this layout writes of these arrays."""
    return b"".join(packed({records.name: arrays[records.name] for records in layout.schema}, content_hash, layout))


def content_hash(data: bytes) -> int:
    return int(np.frombuffer(data, HEADER, 1)["content_hash"][0])


def same_values(one: Any, other: Any) -> bool:
    """Whether two arrays have the same values in the fields that both have."""
    names = [name for name in one.dtype.names or () if name in (other.dtype.names or ())]
    return len(one) == len(other) and all((one[name] == other[name]).all() for name in names)


#: A later version: every record has a field more, of another type each, in front or behind; one has a default.
ADDED = {
    name: with_field(dtype, "added", ("u1", "<i4", "<u8", "S24")[number % 4], front=number % 2 == 0)
    for number, (name, dtype) in enumerate(stored().items())
    if dtype.names
}
NEWER = layout_of(
    stored() | ADDED | {"orders": with_field(DTYPES["orders"], "added", "<i8")}, defaults={"orders.added": 7}
)


def test_layout_covers_what_is_stored_and_nothing_else() -> None:
    assert not {"turn", "scratch", "order_index"} & set(STORED)
    assert set(STORED) | set(NOT_STORED) == set(State._fields)
    assert [records.name for records in LAYOUT.schema] == list(STORED)
    assert {records.name: records.dtype for records in LAYOUT.schema} == {name: DTYPES[name] for name in STORED}


def test_next_version_reads_this_one() -> None:
    data = full_market().engine.snapshot()
    own = unpacked(data, LAYOUT)[1]
    _, arrays = unpacked(data, NEWER)
    for name, rows in own.items():
        assert same_values(rows, arrays[name]), name
        if rows.dtype.names:
            assert len(arrays[name])
            expected = 7 if name == "orders" else b"" if arrays[name].dtype["added"].kind == "S" else 0
            assert (arrays[name]["added"][int(name in TABLE_NAMES) :] == expected).all()
        else:
            assert (arrays[name] == rows).all()
    assert not arrays["orders"][0].tobytes().strip(b"\0")


def test_this_version_reads_the_next_one_as_long_as_it_uses_nothing_new() -> None:
    """So a node goes back to this version, as long as the rules of the next one are not in force."""
    engine = full_market().engine
    data = engine.snapshot()
    newer = snapshot_of(unpacked(data, NEWER)[1], NEWER, content_hash(data))
    assert newer != data
    again = Engine.restore(newer)
    assert again.snapshot() == data
    assert again.check_invariants() == []
    assert again.content_hash() == again.recompute_content_hash()


@pytest.mark.parametrize("name", list(ADDED))
def test_new_field_that_is_used_is_refused_by_name(name: str) -> None:
    data = full_market().engine.snapshot()
    arrays = unpacked(data, NEWER)[1]
    arrays[name]["added"][-1] = 1 if arrays[name].dtype["added"].kind != "S" else b"x"
    with pytest.raises(SnapshotError, match=rf"{name}\.added is not known to this version of smrx"):
        Engine.restore(snapshot_of(arrays, NEWER, content_hash(data)))


def test_added_table_is_empty_and_unknown_table_is_refused_once_it_is_used() -> None:
    dtype = np.dtype([("id", "<u8"), ("next", "<u4"), ("live", "<u4")])
    dtypes: dict[str, Any] = {}
    for name, known in stored().items():
        dtypes |= {"lists": dtype} if name == "orders" else {}
        dtypes[name] = known
    place_of_lists = list(dtypes).index("lists") - 2
    tables = (*TABLE_NAMES[:place_of_lists], "lists", *TABLE_NAMES[place_of_lists:])
    newer = layout_of(dtypes, tables=tables)
    data = full_market().engine.snapshot()
    _, arrays = unpacked(data, newer)
    assert arrays["lists"].tolist() == [(0, 0, 0)]
    assert arrays["pools"][place_of_lists].tolist() == (0, 1, 0)
    assert Engine.restore(snapshot_of(arrays, newer, content_hash(data))).snapshot() == data
    arrays["lists"] = np.array([(0, 0, 0), (5, 0, 1)], dtype)
    arrays["pools"][place_of_lists] = (0, 2, 1)
    with pytest.raises(SnapshotError, match=r"lists\.id is not known to this version of smrx, and record 0 uses it"):
        Engine.restore(snapshot_of(arrays, newer, content_hash(data)))


def older(change: Mapping[str, Any], tables: tuple[str, ...] = TABLE_NAMES) -> Layout:
    """Return the layout of the version before this one, in which some records were otherwise."""
    return layout_of(stored() | change, tables=tables)


def later(migrations: Mapping[int, Migration], version: int = LAYOUT_VERSION + 1) -> Layout:
    """Return this version's layout as if it were a later one that reads earlier ones through migrations."""
    return layout_of(stored(), version=version, migrations=migrations)


def test_field_with_content_is_dropped_only_by_a_declared_migration() -> None:
    data = full_market().engine.snapshot()
    before = older({"balances": with_field(DTYPES["balances"], "rate", "<u4")})
    arrays = unpacked(data, before)[1]
    arrays["balances"]["rate"][1:] = 5
    old = snapshot_of(arrays, before, content_hash(data))
    with pytest.raises(SnapshotError, match=r"balances\.rate is not known"):
        unpacked(old, LAYOUT)
    declared = later({LAYOUT_VERSION: Migration(dropped=frozenset({"balances.rate"}))})
    result = unpacked(old, declared)[1]
    assert snapshot_of(result, LAYOUT, content_hash(data)) == data


def test_table_with_content_is_dropped_only_by_a_declared_migration() -> None:
    dtypes = stored()
    dtypes["lists"] = np.dtype([("id", "<u8"), ("next", "<u4"), ("live", "<u4")])
    order = ("core", "pools", *TABLE_NAMES, "lists", "books", "answers", "runs", "heap", "ring")
    before = layout_of({name: dtypes[name] for name in order}, tables=(*TABLE_NAMES, "lists"))
    data = full_market().engine.snapshot()
    arrays = unpacked(data, before)[1]
    arrays["lists"] = np.array([(0, 0, 0), (5, 0, 1)], dtypes["lists"])
    arrays["pools"][-1] = (0, 2, 1)
    old = snapshot_of(arrays, before, content_hash(data))
    with pytest.raises(SnapshotError, match=r"lists\.id is not known"):
        unpacked(old, LAYOUT)
    result = unpacked(old, later({LAYOUT_VERSION: Migration(dropped=frozenset({"lists"}))}))[1]
    assert snapshot_of(result, LAYOUT, content_hash(data)) == data


def narrower(arrays: Arrays) -> Arrays:
    """Return assets whose supply is two words: high and low, as if a version had stored them so."""
    fields = [(name, DTYPES["assets"][name]) for name in DTYPES["assets"].names if name != "supply"]
    rows = np.zeros(len(arrays["assets"]), [*fields, ("supply_high", "<u4"), ("supply_low", "<u4")])
    for name, _ in fields:
        rows[name] = arrays["assets"][name]
    rows["supply_high"] = arrays["assets"]["supply"] >> 32
    rows["supply_low"] = arrays["assets"]["supply"] & 0xFFFF_FFFF
    return arrays | {"assets": rows}


def wider(arrays: Arrays) -> Arrays:
    """Undo narrower()."""
    old = arrays["assets"]
    rows = np.zeros(len(old), DTYPES["assets"])
    for name in old.dtype.names or ():
        if name in (rows.dtype.names or ()):
            rows[name] = old[name]
    rows["supply"] = old["supply_high"].astype(np.int64) << 32 | old["supply_low"]
    return arrays | {"assets": rows}


def test_other_type_and_meaning_need_a_declared_migration() -> None:
    data = full_market().engine.snapshot()
    own = unpacked(data, LAYOUT)[1]
    arrays = narrower(dict(own))
    before = older({"assets": arrays["assets"].dtype})
    old = snapshot_of(arrays, before, content_hash(data))
    with pytest.raises(SnapshotError, match=r"assets\.supply_high is not known"):
        Engine.restore(old)
    result = unpacked(old, later({LAYOUT_VERSION: Migration(change=wider)}))[1]
    assert snapshot_of(result, LAYOUT, content_hash(data)) == data

    retyped = np.dtype([(name, "<u4" if name == "cap" else DTYPES["assets"][name]) for name in DTYPES["assets"].names])
    rows = np.zeros(len(own["assets"]), retyped)
    with pytest.raises(SnapshotError, match=r"assets\.cap has type <u4, this version of smrx has <i8"):
        Engine.restore(snapshot_of(own | {"assets": rows}, older({"assets": retyped}), content_hash(data)))


def test_migrations_are_applied_one_after_the_other() -> None:
    data = full_market().engine.snapshot()
    arrays = narrower(dict(unpacked(data, LAYOUT)[1]))
    before = older({"assets": with_field(arrays["assets"].dtype, "rate", "<u4")})
    arrays["assets"] = unpacked(snapshot_of(arrays, older({"assets": arrays["assets"].dtype}), 0), before)[1]["assets"]
    arrays["assets"]["rate"] = 3
    old = snapshot_of(arrays, before, content_hash(data))
    steps = {
        LAYOUT_VERSION: Migration(dropped=frozenset({"assets.rate"})),
        LAYOUT_VERSION + 1: Migration(change=wider),
    }
    result = unpacked(old, later(steps, LAYOUT_VERSION + 2))[1]
    assert snapshot_of(result, LAYOUT, content_hash(data)) == data
    del steps[LAYOUT_VERSION]
    with pytest.raises(SnapshotError, match="which this version of smrx no longer reads"):
        unpacked(old, later(steps, LAYOUT_VERSION + 2))


def test_migration_that_changes_what_is_hashed_is_refused() -> None:
    """The planted fault: a migration that makes another state of it. No hash of the log would fit any more."""

    def double(arrays: Arrays) -> Arrays:
        rows = arrays["accounts"].copy()
        rows["max_open_orders"][1:] += 1
        return arrays | {"accounts": rows}

    data = full_market().engine.snapshot()
    result = unpacked(data, later({LAYOUT_VERSION: Migration(change=double)}))[1]
    with pytest.raises(SnapshotError, match="account 0: the stored hash is wrong"):
        Engine.restore(snapshot_of(result, LAYOUT, content_hash(data)))


#: Without a free run the runs are zeros, as a new array is.
@pytest.mark.parametrize("name", [name for name in STORED if name != "runs"])
def test_missing_array_is_refused(name: str) -> None:
    dtypes = stored()
    del dtypes[name]
    data = full_market().engine.snapshot()
    arrays = unpacked(data, LAYOUT)[1]
    layout = layout_of(dtypes, tables=tuple(table for table in TABLE_NAMES if table != name))
    with pytest.raises(SnapshotError):
        Engine.restore(b"".join(packed({"core": arrays["core"]} | arrays, content_hash(data), layout)))


def test_counter_of_a_missing_array_allocates_nothing() -> None:
    """A hostile count of expiring orders: a heap of 16 GiB."""
    dtypes = stored()
    del dtypes["heap"]
    data = full_market().engine.snapshot()
    arrays = unpacked(data, LAYOUT)[1]
    core = arrays["core"].copy()
    core["expiring"] = (1 << 32) - 1
    layout = layout_of(dtypes)
    with pytest.raises(SnapshotError, match="heap: expected 4294967296 records, found no such array"):
        Engine.restore(b"".join(packed(arrays | {"core": core}, content_hash(data), layout)))


@given(st.data())
def test_mutated_schema_never_gives_another_state(data: st.DataObject) -> None:
    raw = bytearray(SNAPSHOT)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(HEADER.itemsize, HEADER.itemsize + len(LAYOUT.encoded) + 8 * len(STORED) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        again = Engine.restore(resealed(bytes(raw)))
    except SnapshotError:
        return
    assert again.snapshot() == SNAPSHOT


SNAPSHOT = full_market().engine.snapshot()

#: What the engine of another version does: restore, apply, save.
_APPLY = """
import sys
from pathlib import Path
import numpy as np
import xxhash
from smrx.engine import Engine
from smrx.engine.state import BALANCE
from smrx.wire.records import COMMAND
folder = Path(sys.argv[1])
engine = Engine.restore((folder / "before.bin").read_bytes())
result = engine.apply(np.frombuffer((folder / "commands.bin").read_bytes(), COMMAND), 2_000_000_000_000)
(folder / "after.bin").write_bytes(engine.snapshot())
assert engine.check_invariants() == [], engine.check_invariants()
print("added" in BALANCE.names, f"{engine.state_hash:016x}", xxhash.xxh3_64_hexdigest(result.events.tobytes()))
"""


def test_engine_with_another_record_continues_with_the_same_hashes(tmp_path: Path) -> None:
    """A version whose padded records have a field more, in front, restores the state, and this one restores its."""
    shutil.copytree(ROOT / "smrx", tmp_path / "smrx", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "smrx/engine/state.py"
    text = source.read_text(encoding="utf-8")
    packed_fields = "    packed = np.dtype(fields)\n"
    assert text.count(packed_fields) == 1
    more = '    fields, size = [("added", "<i8"), *fields], size + CACHE_LINE\n'
    text = text.replace(packed_fields, more + packed_fields)
    source.write_text(text, encoding="utf-8")

    market = full_market()
    (tmp_path / "before.bin").write_bytes(market.engine.snapshot())
    commands = join([place(market.sender(1), 1, Side.BUY, 9, price) for price in range(80, 130, 3)])
    (tmp_path / "commands.bin").write_bytes(commands.records.tobytes())
    (tmp_path / "apply.py").write_text(_APPLY, encoding="utf-8")
    # Interpreted: compiling an engine for one test takes minutes.
    done = subprocess.run(
        [sys.executable, "apply.py", tmp_path],
        cwd=tmp_path,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = apply(market.engine, commands, 2_000_000_000_000)
    digest = xxhash.xxh3_64_hexdigest(result.events.tobytes())
    assert done.stdout.split() == ["True", f"{market.engine.state_hash:016x}", digest]
    # The field is not used, so this version takes the state back.
    after = (tmp_path / "after.bin").read_bytes()
    assert Engine.restore(after).snapshot() == market.engine.snapshot() != after
