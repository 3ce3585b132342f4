"""`smrx snapshot`, `smrx log` and `smrx node --rebuild` on the files of stopped nodes."""

import contextlib
import io
import json
from pathlib import Path
from typing import Literal

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
    """Run a command and return its output, with stderr if it failed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.run(list(arguments)) == code, err.getvalue() + out.getvalue()
    return out.getvalue() if code == Exit.OK else out.getvalue() + err.getvalue()


def test_log_dump_prints_json_lines(past: Past) -> None:
    rows = [json.loads(line) for line in smrx("log", "dump", "--node", "1", "--from", "30", "--to", "33").splitlines()]
    assert [row["sequence"] for row in rows] == [30, 31, 32, 33]
    assert rows[0]["command"]["kind"] in {"PLACE", "OPEN_ACCOUNT", "DEPOSIT"}
    assert rows[0]["outcome"]["status"] == "ACCEPTED"


def test_log_dump_stops_at_the_limit(past: Past) -> None:
    assert smrx("log", "dump", "--node", "1", "--limit", "7").count("\n") == 7


def test_log_replay_prints_trades_as_json_lines(past: Past) -> None:
    rows = [
        json.loads(line) for line in smrx("log", "replay", "--node", "1", "--from", "2", "--limit", "3").splitlines()
    ]
    assert [row["match_id"] for row in rows] == [2, 3, 4]
    assert {row["kind"] for row in rows} == {"TRADE"}


def test_log_verify_applies_the_whole_log(past: Past) -> None:
    sequence, state_hash = past.state.position()
    found = json.loads(smrx("log", "verify", "--node", "1", "--json"))
    assert (found["sequence"], found["state_hash"]) == (sequence, f"{state_hash:016x}")
    assert f"applied up to command {sequence}" in smrx("log", "verify", "--node", "1")


@pytest.mark.parametrize("command", ["dump", "replay", "verify"])
def test_damaged_journal_is_one_line(past: Past, command: str) -> None:
    path = past.config.node_dir(1) / FILE
    sound = path.read_bytes()
    at = sound.index(past.commands.records[700].tobytes())
    path.write_bytes(sound[:at] + b"\xff" + sound[at + 1 :])
    printed = smrx("log", command, "--node", "1", code=Exit.RESOURCE)
    assert printed.count("\n") == 1
    assert "the journal is damaged: log entry" in printed
    assert "--rebuild" in printed


def test_node_without_data_is_one_line(past: Past) -> None:
    assert "the data directory of node 2 does not exist" in smrx("log", "verify", "--node", "2", code=Exit.RESOURCE)


def test_snapshots_are_listed_and_verified(past: Past) -> None:
    (row,) = json.loads(smrx("snapshot", "list", "--json"))["snapshots"]
    assert row["node_id"] == 1
    assert str(row["sequence"]) in smrx("snapshot", "list", "--node", "1")
    assert "no snapshots" in smrx("snapshot", "list", "--node", "2")
    assert ": valid" in smrx("snapshot", "verify")
    assert json.loads(smrx("snapshot", "verify", row["path"], "--json"))[0]["valid"] is True


def test_damaged_snapshot_is_named(past: Past) -> None:
    (path,) = (past.config.node_dir(1) / FOLDER).glob("snapshot-*")
    state = path / "state"
    state.write_bytes(state.read_bytes()[:-1])
    assert "its part state is not what was written" in smrx("snapshot", "verify", code=Exit.DIVERGED)
    (path / "COMPLETE").unlink()
    assert "expected a complete snapshot" in smrx("snapshot", "list", code=Exit.DIVERGED)


def test_snapshot_is_restored_only_into_empty_nodes(past: Past, tmp_path: Path) -> None:
    (path,) = (past.config.node_dir(1) / FOLDER).glob("snapshot-*")
    config = str(LocalCluster(tmp_path / "new").config_path)
    (tmp_path / "new" / "data" / "node-2").mkdir(parents=True)
    (tmp_path / "new" / "data" / "node-2" / "meta.lmdb").touch()
    printed = smrx("--config", config, "snapshot", "restore", str(path), code=Exit.RESOURCE)
    assert "the directory is not empty (found meta.lmdb)" in printed
    assert not (tmp_path / "new" / "data" / "node-1").exists()
    (tmp_path / "new" / "data" / "node-2" / "meta.lmdb").unlink()
    restored = json.loads(smrx("--config", config, "snapshot", "restore", str(path), "--json"))
    assert [row["node_id"] for row in restored] == [1, 2, 3]
    assert all(found["valid"] for found in json.loads(smrx("--config", config, "snapshot", "verify", "--json")))


def test_restore_refuses_a_folder_without_snapshot(past: Past, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    config = str(LocalCluster(tmp_path / "new").config_path)
    printed = smrx("--config", config, "snapshot", "restore", str(tmp_path / "nothing"), code=Exit.RESOURCE)
    assert "expected a complete snapshot" in printed


def test_backup_refuses_a_folder_with_files(past: Past, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "the folder is not empty" in smrx("snapshot", "backup", str(tmp_path / "full"), code=Exit.USAGE)


def test_snapshot_of_a_stopped_cluster_fails(tmp_path: Path) -> None:
    config = str(LocalCluster(tmp_path / "down", nodes=1).config_path)
    printed = smrx("--config", config, "snapshot", "take", code=Exit.UNAVAILABLE)
    assert printed.count("\n") == 1


def test_rebuild_asks_first(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    printed = smrx("node", "--id", "1", "--rebuild", code=130)
    assert "Data that the other nodes do not have is lost" in printed
    assert (past.config.node_dir(1) / FILE).exists()


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_nodes(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no node; the tests check only what is removed and printed."""
    node = LocalCluster(tmp_path / "ports", nodes=1).config.nodes[0]
    (tmp_path / "cluster.toml").write_text(dump(msgspec.structs.replace(past.config, nodes=(node,))))

    def refuse(*arguments: object) -> None:
        raise CliError(Exit.UNAVAILABLE, "no node is started in this test")

    monkeypatch.setattr(node_processes, "start_node", refuse)


def contents(past: Past) -> set[str]:
    return {path.name for path in past.config.node_dir(1).iterdir()} - {"lock"}


@pytest.mark.usefixtures("no_nodes")
def test_new_exchange_lists_what_is_discarded_and_requires_yes(past: Past) -> None:
    before = contents(past)
    assert {FILE, FOLDER} <= before
    with open_node_log(past.config, 1) as history:
        last = history.journal.last_index
    sequence = json.loads(smrx("snapshot", "list", "--json"))["snapshots"][0]["sequence"]
    printed = smrx("cluster", "up", "--new", code=Exit.USAGE)
    assert "all orders, balances and trades" in printed
    # Every log starts with an empty entry 1.
    assert f"{FILE}, log entries 2 to {last}, " in printed
    assert f"the newest at command {sequence}" in printed
    assert printed.splitlines()[-1].startswith("smrx: nothing was removed")
    assert contents(past) == before
    printed = smrx("cluster", "up", "--new", "--yes", code=Exit.UNAVAILABLE)
    assert f"the newest at command {sequence}" in printed
    assert contents(past) == set()


@pytest.mark.usefixtures("no_nodes")
@pytest.mark.parametrize(("answer", "gone"), [(True, True), (False, False)])
def test_new_exchange_asks_on_a_terminal(past: Past, monkeypatch: pytest.MonkeyPatch, answer: bool, gone: bool) -> None:
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
def test_unreadable_journal_is_listed_before_it_is_discarded(past: Past) -> None:
    (past.config.node_dir(1) / FILE).write_bytes(b"garbage" * 2000)
    assert f"{FILE}, unreadable" in smrx("cluster", "up", "--new", "--yes", code=Exit.UNAVAILABLE)


@pytest.mark.usefixtures("no_nodes")
def test_data_of_a_running_node_that_does_not_answer_is_not_discarded(past: Past) -> None:
    before = contents(past)
    with hold_directory(past.config.node_dir(1)):
        assert "only process" in smrx("cluster", "up", "--new", "--yes", code=Exit.RESOURCE)
    assert contents(past) == before


@pytest.mark.parametrize("durability", ["disk", "memory"])
def test_down_says_what_is_kept_and_never_advises_to_remove_journals(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Literal["disk", "memory"]
) -> None:
    config = msgspec.structs.replace(past.config, durability=durability)
    (tmp_path / "cluster.toml").write_text(dump(config))
    monkeypatch.setattr(node_processes, "stop_nodes", lambda config, node_ids: list(node_ids))
    printed = smrx("cluster", "down")
    assert "--new" not in printed
    if durability == "disk":
        assert f"the exchange is in the journals and snapshots in {config.data_dir}/; `smrx cluster up`" in printed
        assert "lost" not in printed
    else:
        assert (
            "the data of the exchange in memory is lost; journals or snapshots of an earlier start are still" in printed
        )
        assert FILE in printed


def test_down_advises_a_new_exchange_only_without_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMRX_CONFIG", str(LocalCluster(tmp_path).config_path))
    monkeypatch.setattr(node_processes, "stop_nodes", lambda config, node_ids: list(node_ids))
    assert smrx("cluster", "down").endswith("is lost; `smrx cluster up --new` starts an empty exchange\n")
    # One of three nodes holds the state on.
    monkeypatch.setattr(node_processes, "stop_nodes", lambda config, node_ids: [1])
    assert smrx("cluster", "down") == "stopped node 1\n"
