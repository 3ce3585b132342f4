"""What `smrx cluster up --new` gives up: what the nodes of this machine have on disk, in words, and whether to go on.

Looks and asks; removes nothing (smrx/cli/node_processes.py does) and changes no file.
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


class Held(NamedTuple):
    """What one node has: in words, and whether a journal or a snapshot is among it."""

    words: str
    durable: bool


def found(config: Config) -> list[Held]:
    """What each node of this machine has, keys aside; raises MetaError where a process holds a data directory."""
    held = []
    for node in config.nodes:
        directory = config.node_dir(node.id)
        secret = config.secret_key_path(node.id).name
        names = {path.name for path in directory.iterdir()} if directory.exists() else set()
        names = {name for name in names if not name.startswith(secret)} - {"lock"}
        if not names:
            continue
        with hold_directory(directory):
            durable = [*_journal(config, node.id), *_snapshots(config, node.id)]
        others = ["its term, vote and members, which say that it held state before"] if names - {FILE, FOLDER} else []
        held.append(Held(f"node {node.id}: {'; '.join([*durable, *others])}", bool(durable)))
    return held


def agree_to(config: Config, held: list[Held], yes: bool) -> None:
    """Say what is given up; ask on a terminal. Raises CliError in a pipe that does not say --yes to losing files."""
    if not held:
        return
    click.echo(
        f"a new exchange gives up all orders, balances and trades of cluster {config.cluster!r}, and on this machine:",
        err=True,
    )
    for node in held:
        click.echo(f"  {node.words}", err=True)
    if yes:
        return
    if sys.stdin.isatty():
        click.confirm("Give all of it up?", abort=True, err=True)
    elif any(node.durable for node in held):
        raise CliError(
            Exit.USAGE,
            "expected --yes to give up journals and snapshots without a terminal to ask on, found none; nothing was "
            "removed: smrx snapshot backup keeps a copy",
        )


def _journal(config: Config, node_id: int) -> list[str]:
    path = config.node_dir(node_id) / FILE
    if not path.exists():
        return []
    entries = extent(path)
    reach = "which cannot be read" if entries is None else f"log entries {entries[0]} to {entries[1]}"
    return [f"journal {path}, {reach}, {path.stat().st_size:,} bytes"]


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
    reach = "none of which can be read" if newest < 0 else f"the newest of command {newest}"
    return [f"{len(paths)} snapshot{'s' if len(paths) > 1 else ''} in {folder}, {reach}"]
