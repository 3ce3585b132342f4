"""`smrx snapshot`: manage snapshots and backups. Parses, calls smrx/consensus and smrx/node, prints."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from smrx.cli import options, output, progress
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.client.admin_client import Ask, open_admin_client
from smrx.config import Config, dump
from smrx.consensus.snapshot_files import FOLDER, SnapshotError, SnapshotFiles, Stored, describe
from smrx.wire.admin import AdminError, NodeStatus, Snapshot, SnapshotReply, Status

_COLUMNS = ("NODE", "SEQUENCE", "LOG INDEX", "TERM", "BYTES", "STATE HASH", "TAKEN AT", "PATH")
_POLL_SECONDS = 0.05
_CONFIG_COPY = "cluster.toml"


@click.group()
def snapshot() -> None:
    """Take, list, verify, back up and restore snapshots.

    \b
    Example:
      smrx snapshot take
    """


_node_option = click.option("--node", "node_id", type=int, metavar="N", help="Id of the node; the leader if not given.")
_timeout_option = options.timeout_option(120.0, "Seconds to wait until the snapshot is complete.")


@snapshot.command()
@_node_option
@_timeout_option
@options.cluster_option
@options.json_option
def take(node_id: int | None, timeout: float, as_json: bool) -> None:
    """Make a running node write a snapshot of its state, and wait until it is complete.

    A forked process writes the snapshot while the node serves.

    \b
    Example:
      smrx snapshot take --node 2
    """
    status = _taken(options.config(), node_id, timeout)
    if as_json:
        output.print_json(
            {
                "node_id": status.node_id,
                "sequence": status.snapshot_sequence,
                "log_index": status.snapshot_index,
                "pause_ms": status.snapshot_pause_ms,
                "seconds": status.snapshot_s,
            }
        )
        return
    click.echo(
        f"node {status.node_id}: snapshot-{status.snapshot_sequence} holds commands 1 to {status.snapshot_sequence}; "
        f"the node paused for {status.snapshot_pause_ms:.2f} ms, writing took {status.snapshot_s:.2f} s"
    )


@snapshot.command("list")
@click.option(
    "--node", "node_id", type=int, metavar="N", help="Id of the node; all nodes of this machine if not given."
)
@options.config_option
@options.json_option
def list_snapshots(node_id: int | None, as_json: bool) -> None:
    """List the snapshots in the data directories of this machine, without checking their content.

    \b
    Example:
      smrx snapshot list
      smrx snapshot list --node 1 --json
    """
    config = options.config()
    rows, faults = [], []
    for node in [config.node(node_id)] if node_id is not None else config.nodes:
        found, broken = _files(config, node.id).readable()
        rows += [(node.id, stored) for stored in found]
        faults += broken
    if as_json:
        output.print_json(
            {
                "snapshots": [_as_json(node, stored) for node, stored in rows],
                "damaged": [str(fault) for fault in faults],
            }
        )
    else:
        output.print_table(_COLUMNS, [_row(node, stored) for node, stored in rows], empty="no snapshots")
        for fault in faults:
            click.echo(str(fault))
    if faults:
        output.exit_with(Exit.DIVERGED)


@snapshot.command("verify")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--node", "node_id", type=int, metavar="N", help="Check the snapshots of this node.")
@options.config_option
@options.json_option
def verify_snapshots(paths: tuple[Path, ...], node_id: int | None, as_json: bool) -> None:
    """Check the checksums of snapshots, load them, and compare the state hash with the recorded one.

    PATHS are directories of snapshots or backups. Without PATHS, checks all snapshots in the data directories of this
    machine. Exits with 6 if one is damaged.

    \b
    Example:
      smrx snapshot verify
      smrx snapshot verify backup/snapshot-1200
    """
    progress.compile_engine()
    config = options.config()
    nodes = [config.node(node_id)] if node_id is not None else list(config.nodes)
    chosen = list(paths) or [path for node in nodes for path in _files(config, node.id).paths()]
    findings: list[dict[str, Any]] = []
    for path in chosen:
        try:
            stored = _loaded(_snapshot_path(path))
        except SnapshotError as error:
            findings.append({"path": str(path), "valid": False, "fault": str(error)})
            continue
        findings.append({"path": str(stored.path), "valid": True, "sequence": stored.metadata.sequence})
    if as_json:
        output.print_json(findings)
    else:
        for found in findings:
            click.echo(f"{found['path']}: valid" if found["valid"] else found["fault"])
        if not findings:
            click.echo("no snapshots")
    if not all(found["valid"] for found in findings):
        output.exit_with(Exit.DIVERGED)


@snapshot.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_node_option
@_timeout_option
@options.cluster_option
@options.json_option
def backup(folder: Path, node_id: int | None, timeout: float, as_json: bool) -> None:
    """Back up the exchange to FOLDER: a new, verified snapshot and the configuration of the cluster.

    All nodes have the same state, so one snapshot is a backup of the whole cluster. The data directory of the node must
    be on this machine.

    \b
    Example:
      smrx snapshot backup backup-monday
    """
    config = options.config()
    if folder.exists() and any(folder.iterdir()):
        raise CliError(Exit.USAGE, f"{folder}: the folder is not empty; choose a new or empty one")
    progress.compile_engine()
    status = _taken(config, node_id, timeout)
    found = [
        stored
        for stored in _files(config, status.node_id).readable()[0]
        if stored.metadata.log_index >= status.snapshot_index
    ]
    if not found:
        raise CliError(
            Exit.UNAVAILABLE,
            f"the snapshot of node {status.node_id} is not in {config.node_dir(status.node_id) / FOLDER}; run this "
            "command on the machine of that node",
        )
    stored = _loaded(found[-1].path)
    copy = SnapshotFiles(folder, cluster=config.cluster, node_id=status.node_id).adopt(stored)
    (folder / _CONFIG_COPY).write_text(dump(config), encoding="utf-8")
    if as_json:
        output.print_json(_as_json(status.node_id, copy))
    else:
        click.echo(f"{copy.path}: commands 1 to {copy.metadata.sequence}, state hash {copy.metadata.state_hash}")


@snapshot.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@options.cluster_option
@options.json_option
def restore(folder: Path, as_json: bool) -> None:
    """Restore the state in FOLDER, a snapshot or a backup, to all nodes of a new cluster.

    The data directories of the nodes must be empty. Start the nodes afterwards as usual.

    \b
    Example:
      smrx snapshot restore backup-monday --config new.toml
    """
    config = options.config()
    progress.compile_engine()
    stored = _loaded(_snapshot_path(folder))
    for node in config.nodes:
        directory = config.node_dir(node.id)
        kept = config.secret_key_path(node.id).name
        used = [path.name for path in directory.iterdir()] if directory.exists() else []
        if any(not name.startswith(kept) for name in used):
            raise CliError(
                Exit.RESOURCE,
                f"{directory}: the directory is not empty (found {', '.join(sorted(used))}); nothing was restored. "
                "Choose another data_dir, or move this one away",
            )
    copies = [_files(config, node.id).adopt(stored) for node in config.nodes]
    if as_json:
        output.print_json([_as_json(copy.metadata.node_id, copy) for copy in copies])
    else:
        click.echo(
            f"cluster {config.cluster!r}: restored commands 1 to {stored.metadata.sequence} to {len(copies)} nodes, "
            f"state hash {stored.metadata.state_hash}"
        )


def _taken(config: Config, node_id: int | None, timeout: float) -> NodeStatus:
    """Make a node take a snapshot; return its status once the snapshot is complete."""
    deadline = time.monotonic() + timeout
    with open_admin_client(config, 1.0, options.key_path()) as ask:
        chosen = config.node(node_id).id if node_id is not None else _leader(config, ask)
        reply = ask(chosen, Snapshot())
        if isinstance(reply, AdminError):
            raise CliError(Exit.REFUSED, f"node {chosen}: {reply.message}")
        if not isinstance(reply, SnapshotReply):
            raise CliError(Exit.UNAVAILABLE, f"node {chosen} does not answer")
        while True:
            status = ask(chosen, Status())
            if isinstance(status, NodeStatus) and status.snapshot_index >= reply.log_index:
                return status
            if time.monotonic() > deadline:
                raise CliError(
                    Exit.UNAVAILABLE,
                    f"node {chosen} did not complete a snapshot within {timeout:g} s; see its log",
                )
            time.sleep(_POLL_SECONDS)


def _leader(config: Config, ask: Ask) -> int:
    for node in config.nodes:
        status = ask(node.id, Status())
        if isinstance(status, NodeStatus) and status.leader_id is not None:
            return status.leader_id
    raise CliError(
        Exit.UNAVAILABLE, f"no node of cluster {config.cluster!r} reports a leader; see `smrx cluster status`"
    )


def _files(config: Config, node_id: int) -> SnapshotFiles:
    return SnapshotFiles(config.node_dir(node_id) / FOLDER, cluster=config.cluster, node_id=node_id)


def _snapshot_path(path: Path) -> Path:
    """Return the path of a snapshot: the path itself, or the newest snapshot in that folder."""
    found = path.resolve() if path.is_symlink() else path
    latest = found / "latest"
    return latest.resolve() if latest.is_symlink() else found


def _loaded(path: Path) -> Stored:
    """Check and load a snapshot; raises SnapshotError."""
    from smrx.node.log_reader import load_snapshot

    stored = describe(path)
    load_snapshot(stored)
    return stored


def _row(node_id: int, stored: Stored) -> Sequence[object]:
    about = stored.metadata
    return [
        *(node_id, about.sequence, about.log_index, about.log_term, about.bytes, about.state_hash, about.taken_at),
        str(stored.path),
    ]


def _as_json(node_id: int, stored: Stored) -> dict[str, Any]:
    about = stored.metadata
    return {
        "node_id": node_id,
        "path": str(stored.path),
        "sequence": about.sequence,
        "log_index": about.log_index,
        "log_term": about.log_term,
        "bytes": about.bytes,
        "state_hash": about.state_hash,
        "taken_at": about.taken_at,
    }
