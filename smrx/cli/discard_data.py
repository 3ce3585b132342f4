"""Describe and confirm what `smrx cluster up --new` discards on this machine.

This module reads and asks; it removes nothing. node_processes.remove_node_data() removes the files.
"""

import sys
from typing import NamedTuple

import click

from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.config import Config
from smrx.consensus.disk_journal import FILE, extent
from smrx.consensus.recovery import hold_directory
from smrx.consensus.snapshot_files import FOLDER, SnapshotError, SnapshotFiles, describe


class NodeData(NamedTuple):
    """The data of one node: a description for people, and whether it includes a journal or a snapshot."""

    description: str
    is_durable: bool


def find(config: Config) -> list[NodeData]:
    """Return the data of each node on this machine, without keys; raises MetaError if a process uses a directory."""
    nodes = []
    for node in config.nodes:
        directory = config.node_dir(node.id)
        secret = config.secret_key_path(node.id).name
        names = {path.name for path in directory.iterdir()} if directory.exists() else set()
        names = {name for name in names if not name.startswith(secret)} - {"lock"}
        if not names:
            continue
        with hold_directory(directory):
            durable = [*_journal(config, node.id), *_snapshots(config, node.id)]
        others = ["its term, vote and members"] if names - {FILE, FOLDER} else []
        nodes.append(NodeData(f"node {node.id}: {'; '.join([*durable, *others])}", bool(durable)))
    return nodes


def find_durable(config: Config) -> list[NodeData]:
    """Return the nodes on this machine that have journals or snapshots; also while their processes run."""
    found = []
    for node in config.nodes:
        durable = [*_journal(config, node.id), *_snapshots(config, node.id)]
        if durable:
            found.append(NodeData(f"node {node.id}: {'; '.join(durable)}", is_durable=True))
    return found


def confirm(config: Config, nodes: list[NodeData], yes: bool) -> None:
    """List what is discarded, and ask on a terminal unless `yes`.

    Raises click.Abort if the answer is no, and CliError if there are journals or snapshots and no terminal to ask on.
    """
    if not nodes:
        return
    click.echo(
        f"a new exchange discards all orders, balances and trades of cluster {config.cluster!r}; on this machine:",
        err=True,
    )
    for node in nodes:
        click.echo(f"  {node.description}", err=True)
    if yes:
        return
    if sys.stdin.isatty():
        click.confirm("Discard all of it?", abort=True, err=True)
    elif any(node.is_durable for node in nodes):
        raise CliError(
            Exit.USAGE,
            "nothing was removed: without a terminal, --yes is required to discard journals and snapshots; "
            "`smrx snapshot backup` makes a copy",
        )


def _journal(config: Config, node_id: int) -> list[str]:
    path = config.node_dir(node_id) / FILE
    if not path.exists():
        return []
    entries = extent(path)
    content = "unreadable" if entries is None else f"log entries {entries[0]} to {entries[1]}"
    return [f"journal {path}, {content}, {path.stat().st_size:,} bytes"]


def _snapshots(config: Config, node_id: int) -> list[str]:
    folder = config.node_dir(node_id) / FOLDER
    paths = SnapshotFiles(folder, cluster=config.cluster, node_id=node_id).paths()
    if not paths:
        return []
    newest = -1
    for path in paths:
        try:
            newest = max(newest, describe(path).metadata.sequence)
        except SnapshotError:
            continue
    content = "all unreadable" if newest < 0 else f"the newest at command {newest}"
    return [f"{len(paths)} snapshot{'s' if len(paths) > 1 else ''} in {folder}, {content}"]
