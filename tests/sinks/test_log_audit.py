"""`smrx settle verify --log`: stored trades and books are what a node's journal leads to, and any fault is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from smrx.cli import run
from smrx.cli.exit_codes import Exit
from smrx.config import Config, Settlement, SinkConfig, dump
from smrx.consensus.recovery import hold_directory
from smrx.node.log_reader import open_node_log
from smrx.node.state_images import capture_image
from smrx.settlement.settlement_run import make_settler
from smrx.sinks import make_sinks
from smrx.sinks.contract import Origin
from smrx.sinks.rows import Rows, time_texts
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT_LAYOUTS
from tests.node.test_log_reader import Past, write_past
from tests.sinks.forging import forge

KINDS = ("csv", "lmdb", "parquet", "postgresql")


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return write_past(tmp_path_factory.mktemp("past"), compacted=False)


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return write_past(tmp_path_factory.mktemp("compacted"), compacted=True)


class Audited:
    """What was settled of a past, and the command that audits it."""

    def __init__(self, past: Past, directory: Path, kinds: tuple[str, ...], request: pytest.FixtureRequest) -> None:
        sinks = tuple(_sink(kind, directory, request) for kind in kinds)
        settlement = Settlement(directory=str(directory / "books"), sinks=sinks)
        directory.mkdir(exist_ok=True)
        self.past = past
        self.config: Config = msgspec.structs.replace(past.config, settlement=settlement)
        self.path = directory / "cluster.toml"
        self.path.write_text(dump(self.config))

    def settle(self, events: Rows, state_hash: int | None = None) -> None:
        last, known = self.past.state.position()
        settler = make_settler(self.config.cluster, self.config.settlement.directory, make_sinks(self.config))
        settler.open()
        settler.settle(events[settler.projection.sequence :], lambda command: 0)
        hashes = {last: known if state_hash is None else state_hash}
        settler.commit(lambda command: hashes.get(command, 0))
        settler.close()

    def audit(self, capsys: pytest.CaptureFixture[str], *options: str, log: Path | None = None) -> tuple[int, str]:
        directory = str(log or self.past.config.node_dir(1))
        code = run(["settle", "verify", "--config", str(self.path), "--log", directory, *options])
        message = capsys.readouterr()
        assert not (code and message.out), message.out
        assert message.err.count("\n") == (code != 0)
        return code, message.err if code else message.out


def _sink(kind: str, directory: Path, request: pytest.FixtureRequest) -> SinkConfig:
    if kind == "postgresql":
        schema = f"audit_{abs(hash(str(directory))):x}"
        return SinkConfig(kind="postgresql", dsn=request.getfixturevalue("postgres").dsn, schema=schema)
    return msgspec.convert({"kind": kind, "path": str(directory / kind)}, SinkConfig)


@pytest.fixture
def audited(past: Past, tmp_path: Path, request: pytest.FixtureRequest) -> Audited:
    """Return the whole past, settled into CSV."""
    audited = Audited(past, tmp_path, ("csv",), request)
    audited.settle(past.events)
    return audited


def test_every_sink_holds_what_the_log_gives(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(past, tmp_path, KINDS, request)
    audited.settle(past.events)
    code, message = audited.audit(capsys, "--json")
    assert code == 0, message
    result = json.loads(message)
    assert (result["source"], result["sequence"], result["first_trade"]) == ("log", len(past.events), 1)
    assert (result["trades"], len(result["sinks"])) == (len(past.trades), len(KINDS))
    code, message = audited.audit(capsys)
    assert f"from the log of node 1 in {past.config.node_dir(1)}" in message
    assert f"compared   trades 1 to {len(past.trades)}, and movements and definitions from there on" in message


def _without(at: int) -> Callable[[Rows], Rows]:
    return lambda rows: np.delete(rows, at)


def _twice(at: int) -> Callable[[Rows], Rows]:
    return lambda rows: np.insert(rows, at, rows[at])


def _changed(at: int, column: str) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        rows = rows.copy()
        rows[column][at] += 1
        return rows

    return change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without(6), "trade 7 of the log is missing: trade 8 follows after trade 6"),
        (_without(0), "trade 1 of the log is missing: trade 2 follows\n"),
        (_without(-1), "is missing: nothing follows after trade"),
        (_twice(6), "trade 7 is stored twice: it stands again after trade 7"),
        (_changed(6, "price_ticks"), "trade 7 (event "),
        (_changed(20, "maker_account"), "trade 21 (event "),
    ],
    ids=["removed", "first removed", "last removed", "doubled", "another price", "another maker"],
)
def test_first_differing_trade_is_named(
    past: Past,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    change: Callable[[Rows], Rows],
    message: str,
) -> None:
    audited = Audited(past, tmp_path, (kind,), request)
    audited.settle(past.events)
    forge(audited.config.settlement.sinks[0], change)
    code, sentence = audited.audit(capsys)
    assert code == Exit.LOG
    assert message in sentence


def _later(line: bytes) -> bytes:
    """Return a line of a movement with another time, as number and as text."""
    cells = line.split(b",")
    cells[2] = b"9" + cells[2][1:]
    cells[3] = str(time_texts(np.array([int(cells[2])]))[0]).encode()
    return b",".join(cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:5], *lines[6:]], "of the log is missing: movement "),
        (lambda lines: [*lines[:5], lines[4], *lines[5:]], "is stored twice: it stands again after movement "),
        (lambda lines: [*lines[:5], _later(lines[5]), *lines[6:]], "differs: time_ns 9"),
    ],
    ids=["removed", "doubled", "another time"],
)
def test_first_differing_movement_is_named(
    audited: Audited,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[bytes]], list[bytes]],
    message: str,
) -> None:
    """Sums do not show two errors that cancel, nor another time."""
    path = Path(audited.config.settlement.sinks[0].path or "") / "settled_movements.csv"
    text = b"".join(change(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(text)
    checkpoint = path.with_name("settled_trades.checkpoint.json")
    held = json.loads(checkpoint.read_text())
    held["movements"]["bytes"] = len(text)
    checkpoint.write_text(json.dumps(held))
    code, sentence = audited.audit(capsys)
    assert code == Exit.LOG
    assert message in sentence


def test_differing_definition_is_named(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    events = past.events.copy()
    listed = int(np.flatnonzero(events["kind"] == EventKind.INSTRUMENT_ADDED)[0])
    events.view(EVENT_LAYOUTS[EventKind.INSTRUMENT_ADDED])["max_price_ticks"][listed] += 1
    audited = Audited(past, tmp_path, ("parquet",), request)
    audited.settle(events)
    code, sentence = audited.audit(capsys)
    assert code == Exit.LOG
    assert re.search(r"definition \d+ \(event \d+\) differs: max_price_ticks", sentence)


def test_row_removed_from_a_file_is_named(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is shorter than its checkpoint; the missing row is reported first."""
    path = Path(audited.config.settlement.sinks[0].path or "") / "settled_trades.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10] + lines[11:]))
    code, sentence = audited.audit(capsys)
    assert (code, "trade 10 of the log is missing: trade 11 follows" in sentence) == (Exit.LOG, True)


def test_failure_is_printed_as_json_too(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    forge(audited.config.settlement.sinks[0], _without(3))
    log = str(audited.past.config.node_dir(1))
    assert run(["settle", "verify", "--config", str(audited.path), "--log", log, "--json"]) == Exit.LOG
    message = capsys.readouterr()
    result = json.loads(message.out)
    assert (result["exit_code"], f"smrx: {result['error']}\n") == (Exit.LOG, message.err)


def test_running_node_is_refused(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    with hold_directory(audited.past.config.node_dir(1)):
        code, sentence = audited.audit(capsys)
    assert (code, "stop the node that runs there first" in sentence) == (Exit.RESOURCE, True)


def test_directory_without_a_journal_is_refused(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, sentence = audited.audit(capsys, log=tmp_path)
    assert (code, "expected the data directory of a node with a journal" in sentence) == (Exit.RESOURCE, True)


def test_nothing_is_created_where_nothing_is_settled(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(past, tmp_path, ("csv",), request)
    code, sentence = audited.audit(capsys)
    assert (code, "run `smrx settle run` first" in sentence) == (Exit.SINK, True)
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.toml"]


def test_last_trade_stored_twice_is_named(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    last = len(audited.past.trades)
    forge(audited.config.settlement.sinks[0], lambda rows: np.append(rows, rows[-1:]))
    code, sentence = audited.audit(capsys)
    assert (code, f"trade {last} is stored twice: it stands again after trade {last}" in sentence) == (Exit.LOG, True)


def test_trade_that_is_not_in_the_log_is_named(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    def one_more(rows: Rows) -> Rows:
        rows = np.append(rows, rows[-1:])
        rows["match_id"][-1] += 1
        return rows

    forge(audited.config.settlement.sinks[0], one_more)
    code, sentence = audited.audit(capsys)
    assert code == Exit.LOG
    assert f"trade {len(audited.past.trades) + 1} is stored and is none of the log's" in sentence


def test_log_that_ends_earlier_is_refused(audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = write_past(tmp_path / "short", compacted=False, lost=5)
    code, sentence = audited.audit(capsys, log=short.config.node_dir(1))
    assert code == Exit.LOG
    assert (
        f"expected the log of node 1 to reach command {audited.past.state.engine.sequence}, but its committed part ends"
        in sentence
    )


def test_log_of_a_killed_node_counts_up_to_the_attested_command(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = write_past(tmp_path / "killed", compacted=False, unknown=2)
    assert audited.audit(capsys, log=killed.config.node_dir(1))[0] == 0
    forge(audited.config.settlement.sinks[0], _changed(-1, "price_ticks"))
    code, sentence = audited.audit(capsys, log=killed.config.node_dir(1))
    assert (code, f"trade {len(killed.trades)} (event " in sentence) == (Exit.LOG, True)


def test_books_with_other_balances_are_detected(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row is the log's, and the books are not."""
    events = past.events.copy()
    at = int(np.flatnonzero(events["kind"] == EventKind.DEPOSITED)[-1])
    deposits = events.view(EVENT_LAYOUTS[EventKind.DEPOSITED])
    for column in ("amount", "available_after"):
        deposits[column][at] += 5
    true, forged = (Audited(past, tmp_path / name, ("csv",), request) for name in ("true", "forged"))
    true.settle(past.events)
    forged.settle(events)
    shutil.rmtree(tmp_path / "forged" / "csv")
    shutil.copytree(tmp_path / "true" / "csv", tmp_path / "forged" / "csv")
    code, sentence = forged.audit(capsys)
    assert code == Exit.BALANCE
    assert f"account {deposits[at]['account']}, asset {deposits[at]['asset']}: the log gives " in sentence


def test_checkpoint_with_another_state_hash_is_detected(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(past, tmp_path, ("csv",), request)
    audited.settle(past.events, state_hash=past.state.position()[1] ^ 1)
    code, sentence = audited.audit(capsys)
    assert code == Exit.LOG
    assert "has state hash" in sentence


def test_differing_asset_from_before_the_log_is_detected(
    compacted: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    events = compacted.events.copy()
    added = int(np.flatnonzero(events["kind"] == EventKind.ASSET_ADDED)[0])
    events.view(EVENT_LAYOUTS[EventKind.ASSET_ADDED])["decimals"][added] += 1
    audited = Audited(compacted, tmp_path, ("csv",), request)
    audited.settle(events)
    first = audited.audit(capsys)[1].rstrip().rpartition("--first-trade ")[2]
    code, sentence = audited.audit(capsys, "--first-trade", first)
    assert code == Exit.LOG
    assert "asset 10 is stored as id 10" in sentence


def test_books_that_stop_inside_a_log_entry_are_audited(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(past, tmp_path, ("lmdb",), request)
    command = past.events["command_sequence"][int(np.flatnonzero(past.events["kind"] == EventKind.TRADE)[30])]
    audited.settle(past.events[past.events["command_sequence"] <= command])
    code, message = audited.audit(capsys, "--json")
    assert (code, json.loads(message)["trades"]) == (0, np.count_nonzero(past.trades["command_sequence"] <= command))


def test_sink_ahead_of_the_books_is_audited_to_its_end(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(past, tmp_path, ("csv",), request)
    half = int(np.flatnonzero(past.events["kind"] == EventKind.NEW)[400])
    audited.settle(past.events[:half])
    books = Path(audited.config.settlement.directory)
    shutil.copytree(books, tmp_path / "before")
    audited.settle(past.events)
    shutil.rmtree(books)
    (tmp_path / "before").rename(books)
    assert audited.audit(capsys)[0] == 0
    forge(audited.config.settlement.sinks[0], _changed(-1, "quantity_lots"))
    code, sentence = audited.audit(capsys)
    assert code == Exit.LOG
    assert f"trade {len(past.trades)} (event " in sentence


def test_books_from_an_image_are_compared_from_there(
    past: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(past, tmp_path, ("csv", "lmdb"), request)
    with open_node_log(past.config, 1) as history:
        held = capture_image(history.state_after(600).engine)
    place = held.position
    origin = Origin(place.event_sequence, 600, place.match_id, place.state_hash, held.digest, (1,), 1)
    settler = make_settler(audited.config.cluster, audited.config.settlement.directory, make_sinks(audited.config))
    settler.open()
    settler.join(held.data, origin)
    settler.close()
    audited.settle(past.events)
    code, message = audited.audit(capsys, "--json")
    assert code == 0, message
    result = json.loads(message)
    assert (result["origin"]["event_sequence"], result["first_trade"]) == (place.event_sequence, place.match_id + 1)
    assert result["trades"] == len(past.trades) - place.match_id
    forge(audited.config.settlement.sinks[1], _without(0))
    code, sentence = audited.audit(capsys)
    assert (code, f"trade {place.match_id + 1} of the log is missing" in sentence) == (Exit.LOG, True)


def test_rest_of_a_compacted_log_is_compared(
    compacted: Past, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(compacted, tmp_path, ("csv",), request)
    audited.settle(compacted.events)
    code, sentence = audited.audit(capsys)
    assert code == Exit.USAGE
    first = sentence.rstrip().rpartition("--first-trade ")[2]
    code, message = audited.audit(capsys, "--first-trade", first, "--json")
    assert (code, json.loads(message)["first_trade"]) == (0, int(first))
    forge(audited.config.settlement.sinks[0], _without(int(first) - 1))
    code, sentence = audited.audit(capsys, "--first-trade", first)
    assert (code, f"trade {first} of the log is missing" in sentence) == (Exit.LOG, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from-nodes",), "cannot be combined"),
        (("--first-trade", "1000000"), "is not settled; the last one is"),
    ],
)
def test_conflicting_options_are_refused(
    audited: Audited, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    arguments: list[Any] = ["--log", str(audited.past.config.node_dir(1)), *options]
    assert run(["settle", "verify", "--config", str(audited.path), *arguments]) == Exit.USAGE
    assert message in capsys.readouterr().err


def test_journal_of_another_cluster_is_refused(
    audited: Audited, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = msgspec.structs.replace(audited.config, cluster="beta")
    audited.path.write_text(dump(other))
    code, sentence = audited.audit(capsys)
    assert (code, "expected the journal of cluster 'beta'" in sentence) == (Exit.RESOURCE, True)
