"""Read the golden files of a version and add up what they hold; make those of this version.

    python -m tests.golden.golden_sets 2

makes set 2: `2.tar.xz`, with every durable format, and `2.json`, with what a reader must find in it. See README.md.
"""

import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from inspect import signature
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from smrx.config import Config, NodeConfig
from smrx.consensus import MetaStore
from smrx.consensus.disk_journal import open_journal
from smrx.consensus.messages import NO_OP
from smrx.consensus.snapshot_files import FOLDER, STATE, Position, SnapshotFiles
from smrx.engine import Engine
from smrx.follower import checkpoint_store
from smrx.node.node_storage import NodeStorage
from smrx.node.replicated_state import ReplicatedState
from smrx.node.state_images import capture_image
from smrx.settlement.image_books import books_of
from smrx.settlement.ledger import Ledger
from smrx.settlement.settlement_run import make_settler
from smrx.sinks.lmdb_reader import LmdbReader
from smrx.sinks.lmdb_sink import LmdbSink
from smrx.wire import batches, state_image
from smrx.wire.record_schema import read_file_head
from tests.property.flow import SWITCHED, Batch, seeded_tape

HERE = Path(__file__).parent
CLUSTER = "golden"
SEED, STEPS = 11, 300
Sums = dict[str, Any]


def config_in(folder: Path) -> Config:
    """Return the configuration of the golden node, whose data are in this folder."""
    return Config(cluster=CLUSTER, durability="disk", data_dir=str(folder), nodes=(NodeConfig(id=1, port=28_000),))


def empty_state() -> ReplicatedState:
    """Return a state whose rings, however many a version has, hold everything."""
    rings: Any = [1 << 16] * len(signature(ReplicatedState).parameters)
    return ReplicatedState(*rings)


def entry_of(batch: Batch) -> bytes:
    """Return the log entry of a batch, whose commands are records, or records and their details."""
    commands: Any = batch.commands
    records = getattr(commands, "records", commands)
    details = [commands.details.tobytes()] if records is not commands else []
    return batches.encode(records.tobytes(), batch.time_ns, 0, 0, *details)


# Readers: what each format holds, as numbers that do not depend on the version that reads.


def engine_sums(engine: Engine) -> Sums:
    """Return the numbers of a state; raises AssertionError if it is inconsistent."""
    assert engine.check_invariants() == []
    assert engine.content_hash() == engine.recompute_content_hash()
    inspect = engine.inspect
    orders, balances = inspect.orders(), inspect.balances()
    return {
        "sequence": engine.sequence,
        "state_hash": f"{engine.state_hash:016x}",
        "event_sequence": engine.event_sequence,
        "trades": engine.trade_count,
        "time_ns": engine.time_ns,
        "kept_hashes": xxhash.xxh3_64_hexdigest(
            b"".join(int(engine.hash_at(n) or 0).to_bytes(8, "little") for n in range(engine.sequence + 1))
        ),
        "orders": len(orders),
        "order_ids": int(orders["order_id"].sum()),
        "leaves": int((orders["quantity_lots"] - orders["cum_lots"]).sum()),
        "funds": {str(asset): funds_of(balances, asset) for asset in np.unique(balances["asset"])},
        "accounts": len(inspect.accounts()),
        "sessions": len(inspect.sessions()),
        "last_requests": int(inspect.sessions()["last_request_id"].sum()),
    }


def funds_of(balances: Any, asset: int) -> list[int]:
    """Return the available and the held amounts of an asset, over all accounts."""
    rows = balances[balances["asset"] == asset]
    return [int(rows[name].sum()) for name in ("available", "held")]


def read_engine(folder: Path) -> Sums:
    """Read the snapshot of an engine."""
    return engine_sums(Engine.restore((folder / "engine.snapshot").read_bytes()))


def read_node(folder: Path) -> Sums:
    """Start a node from its directory: meta data, journal, snapshots with all their parts."""
    config = config_in(folder)
    meta = MetaStore(config.node_dir(1), cluster=CLUSTER, node_id=1)
    state = empty_state()
    try:
        storage = NodeStorage(config, 1, meta, state)
        try:
            events = state.events
            return {
                "term": meta.term,
                "log_index": storage.restarted.log_index,
                "first_index": storage.journal.first_index,
                "snapshots": [stored.metadata.sequence for stored in storage.restarted.snapshots],
                "log_digest": f"{state.log_digest:016x}",
                "events": [events.oldest, events.newest],
                "parts": {
                    name: records_in(name, b"".join(pieces))
                    for name, pieces in state.snapshot_parts().items()
                    if name != STATE
                },
                **engine_sums(state.engine),
            }
        finally:
            storage.close()
    finally:
        meta.close()


def records_in(name: str, data: bytes) -> int:
    """Return how many records a part of a snapshot has."""
    start, found = read_file_head(data, name)
    return (len(data) - start) // found.itemsize


def ledger_sums(ledger: Ledger) -> Sums:
    """Return the numbers of some books."""
    leaves = ledger.order_leaves()
    return {
        "sequence": ledger.sequence,
        "command_sequence": ledger.command_sequence,
        "trades": ledger.trades,
        "supply": ledger.supply(),
        "orders": len(leaves),
        "leaves": sum(leaves.values()),
        "balances": ledger.balances_digest().balances,
    }


def read_image(folder: Path) -> Sums:
    """Read a state image and start books from it."""
    data = (folder / "state.image").read_bytes()
    image = state_image.decode(data)
    books = books_of(image)
    books.check_sums()
    position = image.position
    return {
        "digest": state_image.digest(data),
        "position": [position.event_sequence, position.command_sequence, position.match_id, position.time_ns],
        "state_hash": f"{position.state_hash:016x}",
        **{name: len(rows) for name, rows in image.tables.items()},
        "books": ledger_sums(books),
    }


def read_books(folder: Path) -> Sums:
    """Resume settlement from its directory: checkpoint, projection and journal."""
    settler = make_settler(CLUSTER, str(folder / "books"), [])
    settler.open()
    try:
        settler.projection.check_sums()
        return ledger_sums(settler.projection)
    finally:
        settler.close()


def read_sink(folder: Path) -> Sums:
    """Read the rows of an LMDB sink."""
    with LmdbReader(folder / "sink") as reader:
        trades = [rows for rows in reader.trades() if len(rows)]
        assert reader.checkpoint is not None
        return {
            "sequence": reader.checkpoint.event_sequence,
            "trades": sum(map(len, trades)),
            "notional": sum(int((rows["price_ticks"] * rows["quantity_lots"]).sum()) for rows in trades),
            "movements": sum(map(len, reader.movements())),
            "definitions": len(reader.definitions()),
        }


READERS: dict[str, Callable[[Path], Sums]] = {
    "engine": read_engine,
    "node": read_node,
    "image": read_image,
    "books": read_books,
    "sink": read_sink,
}


def unpack(number: str, folder: Path) -> None:
    """Put the files of a set into a folder."""
    with tarfile.open(HERE / f"{number}.tar.xz") as archive:
        archive.extractall(folder, filter="data")


def expected_of(number: str) -> dict[str, Sums]:
    """Return what each reader must find in a set."""
    text = (HERE / f"{number}.json").read_text(encoding="utf-8")
    # Set 2 records the digest of the balances, too: that is of the version that made it.
    found: dict[str, Sums] = json.loads(re.sub(r'"Digest\(balances=(\d+), value=\d+\)"', r"\1", text))["expected"]
    return found


def numbers() -> list[str]:
    """Return the numbers of the sets."""
    return sorted((path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz")), key=int)


# Writers: always those of this version.


def write_node(folder: Path, tape: list[Batch]) -> ReplicatedState:
    """Write a node's directory: two snapshots, the log after the older one, a few entries after the newer one."""
    config = config_in(folder)
    directory = config.node_dir(1)
    meta = MetaStore(directory, cluster=CLUSTER, node_id=1)
    meta.set_term(3, 1)
    meta.set_initialized()
    meta.set_joined()
    meta.sync()
    journal = open_journal(directory, meta, cluster=CLUSTER, node_id=1)
    journal.attach(meta)
    state = empty_state()
    files = SnapshotFiles(directory / FOLDER, cluster=CLUSTER, node_id=1)
    kept = [len(tape) // 2, len(tape) * 3 // 4]
    journal.add(NO_OP, 2, 1)
    for number, batch in enumerate(tape):
        index, term = 3 + number, 1 + 2 * number // len(tape)
        journal.add(entry_of(batch), index, term)
        state.apply(index, term, entry_of(batch))
        if number in kept:
            files.write(Position(index, term, *state.position()), state.snapshot_parts())
    journal.setRaftCommitIndex(journal.last_index)
    journal.compact(3 + kept[0])
    journal.sync()
    journal.sync_commit_index()
    journal.close()
    meta.close()
    return state


def write_settlement(folder: Path, events: Any) -> None:
    """Settle the events into books and an LMDB sink, with a projection file and a journal."""
    settler = make_settler(CLUSTER, str(folder / "books"), [LmdbSink(folder / "sink")])
    settler.open()
    ends = np.flatnonzero(np.diff(events["command_sequence"])) + 1
    start = 0
    for end in [int(ends[len(ends) * part // 5]) for part in (1, 2, 3, 4)] + [len(events)]:
        settler.settle(events[start:end], lambda command: command)
        settler.commit(lambda command: command)
        start = end
    settler.close()


def write(folder: Path) -> None:
    """Write every format into a folder."""
    # A log begins with the first version of the rules.
    tape = list(seeded_tape(SEED, STEPS, SWITCHED).batches)
    state = write_node(folder, tape)
    (folder / "engine.snapshot").write_bytes(state.engine.snapshot())
    (folder / "state.image").write_bytes(capture_image(state.engine).data)
    events = state.events.range(state.events.oldest, state.events.newest)
    assert events is not None
    assert state.events.oldest == 1
    limits = vars(checkpoint_store)
    before = limits["_MIN_JOURNAL_BYTES"]
    # So that few events make a projection file and a journal.
    limits["_MIN_JOURNAL_BYTES"] = 16 << 10
    try:
        write_settlement(folder, events)
    finally:
        limits["_MIN_JOURNAL_BYTES"] = before


def main() -> int:
    """Make the set whose number is the argument; refuse one that exists."""
    number = sys.argv[1]
    if number in numbers():
        print(f"set {number} exists: sets are only added")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as archive:
            for path in sorted(folder.rglob("*")):
                member = archive.gettarinfo(path, path.relative_to(folder).as_posix())
                member.uid = member.gid = member.mtime = 0
                member.uname = member.gname = ""
                with path.open("rb") if member.isreg() else BytesIO() as file:
                    archive.addfile(member, file)
        (HERE / f"{number}.tar.xz").write_bytes(packed.getvalue())
    with tempfile.TemporaryDirectory() as name:
        unpack(number, Path(name))
        expected = {kind: read(Path(name)) for kind, read in READERS.items()}
    content = {"made_by": f"smrx {version('smrx')}", "expected": expected}
    (HERE / f"{number}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"set {number}: {len(packed.getvalue())} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
