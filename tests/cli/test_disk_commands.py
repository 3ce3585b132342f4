"""`smrx snapshot`, `smrx log` and `smrx node --rebuild` on the files of nodes that do not run."""

import contextlib
import io
import json
from pathlib import Path

import click
import msgspec
import pytest

from smrx import cli
from smrx.cli import node_processes
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.config import dump
from smrx.consensus.disk_journal import FILE
from smrx.consensus.recovery import hold_directory
from smrx.consensus.snapshot_files import FOLDER
from smrx.local import LocalCluster
from smrx.node.log_reader import open_node_log
from tests.node.test_log_reader import Past, write_past


@pytest.fixture
def past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Past:
    past = write_past(tmp_path / "data", compacted=False)
    (tmp_path / "cluster.toml").write_text(dump(past.config))
    monkeypatch.setenv("SMRX_CONFIG", str(tmp_path / "cluster.toml"))
    return past


def smrx(*arguments: str, code: int = Exit.OK) -> str:
    """Run a command; return what it printed, on stderr if it failed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.run(list(arguments)) == code, err.getvalue() + out.getvalue()
    return out.getvalue() if code == Exit.OK else out.getvalue() + err.getvalue()


def test_commands_are_dumped_as_lines_of_json(past: Past) -> None:
    rows = [json.loads(line) for line in smrx("log", "dump", "--node", "1", "--from", "30", "--to", "33").splitlines()]
    assert [row["sequence"] for row in rows] == [30, 31, 32, 33]
    assert rows[0]["command"]["kind"] in {"PLACE", "OPEN_ACCOUNT", "DEPOSIT"}
    assert rows[0]["outcome"]["status"] == "ACCEPTED"


def test_dumping_ends_at_the_limit(past: Past) -> None:
    assert smrx("log", "dump", "--node", "1", "--limit", "7").count("\n") == 7


def test_trades_are_replayed_as_lines_of_json(past: Past) -> None:
    rows = [
        json.loads(line) for line in smrx("log", "replay", "--node", "1", "--from", "2", "--limit", "3").splitlines()
    ]
    assert [row["match_id"] for row in rows] == [2, 3, 4]
    assert {row["kind"] for row in rows} == {"TRADE"}


def test_a_log_is_verified_to_its_end(past: Past) -> None:
    sequence, state_hash = past.state.position()
    found = json.loads(smrx("log", "verify", "--node", "1", "--json"))
    assert (found["sequence"], found["state_hash"]) == (sequence, f"{state_hash:016x}")
    assert f"applied up to command {sequence}" in smrx("log", "verify", "--node", "1")


@pytest.mark.parametrize("command", ["dump", "replay", "verify"])
def test_a_damaged_journal_is_one_sentence(past: Past, command: str) -> None:
    path = past.config.node_dir(1) / FILE
    sound = path.read_bytes()
    at = sound.index(past.commands[700].tobytes())
    path.write_bytes(sound[:at] + b"\xff" + sound[at + 1 :])
    said = smrx("log", command, "--node", "1", code=Exit.RESOURCE)
    assert said.count("\n") == 1
    assert "the journal is damaged: log entry" in said
    assert "--rebuild" in said


def test_a_node_without_data_is_one_sentence(past: Past) -> None:
    assert "expected the data directory of node 2, found none" in smrx(
        "log", "verify", "--node", "2", code=Exit.RESOURCE
    )


def test_snapshots_are_listed_and_verified(past: Past) -> None:
    (row,) = json.loads(smrx("snapshot", "list", "--json"))["snapshots"]
    assert row["node_id"] == 1
    assert str(row["sequence"]) in smrx("snapshot", "list", "--node", "1")
    assert "no snapshots" in smrx("snapshot", "list", "--node", "2")
    assert ": whole" in smrx("snapshot", "verify")
    assert json.loads(smrx("snapshot", "verify", row["path"], "--json"))[0]["whole"] is True


def test_a_damaged_snapshot_is_named(past: Past) -> None:
    (path,) = (past.config.node_dir(1) / FOLDER).glob("snapshot-*")
    state = path / "state"
    state.write_bytes(state.read_bytes()[:-1])
    assert "its part state is not what was written" in smrx("snapshot", "verify", code=Exit.DIVERGED)
    (path / "COMPLETE").unlink()
    assert "expected a complete snapshot" in smrx("snapshot", "list", code=Exit.DIVERGED)


def test_a_snapshot_is_restored_into_new_nodes_only(past: Past, tmp_path: Path) -> None:
    (path,) = (past.config.node_dir(1) / FOLDER).glob("snapshot-*")
    config = str(LocalCluster(tmp_path / "new").config_path)
    (tmp_path / "new" / "data" / "node-2").mkdir(parents=True)
    (tmp_path / "new" / "data" / "node-2" / "meta.lmdb").touch()
    said = smrx("--config", config, "snapshot", "restore", str(path), code=Exit.RESOURCE)
    assert "expected the data directory of a new node, found meta.lmdb" in said
    assert not (tmp_path / "new" / "data" / "node-1").exists()
    (tmp_path / "new" / "data" / "node-2" / "meta.lmdb").unlink()
    restored = json.loads(smrx("--config", config, "snapshot", "restore", str(path), "--json"))
    assert [row["node_id"] for row in restored] == [1, 2, 3]
    assert all(found["whole"] for found in json.loads(smrx("--config", config, "snapshot", "verify", "--json")))


def test_what_is_no_snapshot_is_not_restored(past: Past, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    config = str(LocalCluster(tmp_path / "new").config_path)
    said = smrx("--config", config, "snapshot", "restore", str(tmp_path / "nothing"), code=Exit.RESOURCE)
    assert "expected a complete snapshot" in said


def test_a_backup_goes_into_an_empty_folder(past: Past, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "expected a folder that is new or empty" in smrx(
        "snapshot", "backup", str(tmp_path / "full"), code=Exit.USAGE
    )


def test_a_cluster_that_does_not_run_takes_no_snapshot(tmp_path: Path) -> None:
    config = str(LocalCluster(tmp_path / "down", nodes=1).config_path)
    said = smrx("--config", config, "snapshot", "take", code=Exit.UNAVAILABLE)
    assert said.count("\n") == 1


def test_a_rebuild_asks_first(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    said = smrx("node", "--id", "1", "--rebuild", code=130)
    assert "What the other nodes do not have is then lost" in said
    assert (past.config.node_dir(1) / FILE).exists()


class Terminal(io.StringIO):
    """What a person types into."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_nodes(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started: what is removed, and what is said of it, is all that is looked at."""
    node = LocalCluster(tmp_path / "ports", nodes=1).config.nodes[0]
    (tmp_path / "cluster.toml").write_text(dump(msgspec.structs.replace(past.config, nodes=(node,))))

    def refuse(*arguments: object) -> None:
        raise CliError(Exit.UNAVAILABLE, "nothing is started here")

    monkeypatch.setattr(node_processes, "start_node", refuse)


def contents(past: Past) -> set[str]:
    return {path.name for path in past.config.node_dir(1).iterdir()} - {"lock"}


@pytest.mark.usefixtures("no_nodes")
def test_a_new_exchange_names_what_is_given_up_and_wants_a_yes(past: Past) -> None:
    before = contents(past)
    assert {FILE, FOLDER} <= before
    with open_node_log(past.config, 1) as history:
        last = history.journal.last_index
    sequence = json.loads(smrx("snapshot", "list", "--json"))["snapshots"][0]["sequence"]
    said = smrx("cluster", "up", "--new", code=Exit.USAGE)
    assert "all orders, balances and trades" in said
    # Entry 1 is where every log begins; it holds nothing.
    assert f"{FILE}, log entries 2 to {last}, " in said
    assert f"the newest of command {sequence}" in said
    assert said.splitlines()[-1].startswith("smrx: expected --yes")
    assert contents(past) == before
    said = smrx("cluster", "up", "--new", "--yes", code=Exit.UNAVAILABLE)
    assert f"the newest of command {sequence}" in said
    assert contents(past) == set()


@pytest.mark.usefixtures("no_nodes")
@pytest.mark.parametrize(("answer", "gone"), [(True, True), (False, False)])
def test_on_a_terminal_a_new_exchange_asks_first(
    past: Past, monkeypatch: pytest.MonkeyPatch, answer: bool, gone: bool
) -> None:
    asked: list[str] = []

    def confirm(text: str, **options: object) -> None:
        asked.append(text)
        if not answer:
            raise click.Abort

    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr("sys.stdin", Terminal())
    cli.run(["cluster", "up", "--new"])
    assert len(asked) == 1
    assert (contents(past) == set()) == gone


@pytest.mark.usefixtures("no_nodes")
def test_a_journal_that_cannot_be_read_is_given_up_by_name(past: Past) -> None:
    (past.config.node_dir(1) / FILE).write_bytes(b"garbage" * 2000)
    assert f"{FILE}, which cannot be read" in smrx("cluster", "up", "--new", "--yes", code=Exit.UNAVAILABLE)


@pytest.mark.usefixtures("no_nodes")
def test_nothing_is_given_up_of_a_node_that_is_there_and_does_not_answer(past: Past) -> None:
    before = contents(past)
    with hold_directory(past.config.node_dir(1)):
        assert "only process" in smrx("cluster", "up", "--new", "--yes", code=Exit.RESOURCE)
    assert contents(past) == before
