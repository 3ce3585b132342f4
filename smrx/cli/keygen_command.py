"""`smrx cluster keygen`: generate key pairs of members and of the venue; the cluster file gets the public keys."""

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smrx.cli import options, output
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.config import Config, load

if TYPE_CHECKING:
    from smrx.key_files import KeyPair

_MARK = "\ufeff"
_NODES = re.compile(r"^\s*\[\[\s*nodes\s*\]\]")
_TABLE = re.compile(r"^\s*\[")
_ID = re.compile(r"^\s*id\s*=\s*(\d+)")
_KEYS = re.compile(r"^\s*public_keys\s*=")


@click.command()
@click.option("--node", "node_ids", type=int, multiple=True, metavar="N", help="Only this node; can be repeated.")
@click.option(
    "--rotate",
    is_flag=True,
    help="Generate a second key: the secret key beside the present one, the public key after it in the cluster file.",
)
@options.config_option
@options.json_option
def keygen(node_ids: tuple[int, ...], rotate: bool, as_json: bool) -> None:
    """Generate the keys with which members authenticate each other, and the first key of the venue.

    Writes the secret key of each node (mode 0600) to DATA_DIR/node-N/curve.key, or to its secret_key_file, the
    venue's to DATA_DIR/venue.key, and the public keys to the cluster file. Copy each node's secret key to its machine,
    the venue's to that of an operator, and the cluster file to all machines, then start the nodes.

    Clients of a cluster with keys need one, too. The venue's key may do everything; commands use the one in DATA_DIR
    unless another is given with --key. Give customers keys of their own with `smrx key create` and `smrx key add`.

    To change the key of node N without downtime: run `smrx cluster keygen --rotate --node N`. Copy the new cluster file
    to all machines, those of clients too, and restart the nodes one by one. Move the new secret key (curve.key.next)
    over curve.key and restart node N. Remove its first public key from the cluster file and restart the nodes one by
    one again.

    \b
    Example:
      smrx cluster keygen --config cluster.toml
      smrx cluster keygen --rotate --node 2 --config cluster.toml
    """
    from smrx import key_files

    path = options.config_path()
    if path is None:
        raise CliError(Exit.USAGE, "no cluster file to write the public keys to; give one with --config")
    config = load(path, allow_missing_keys=True)
    chosen = list(node_ids) or [node.id for node in config.nodes]
    made = []
    text = Path(path).read_bytes().decode("utf-8")
    for node_id in chosen:
        known = config.node(node_id).public_keys
        if bool(known) != rotate:
            problem = "already has a key; --rotate generates another" if known else "has no key yet; leave out --rotate"
            raise CliError(Exit.USAGE, f"{path}: node {node_id} {problem}")
        secret = config.secret_key_path(node_id)
        target = secret.with_name(secret.name + ".next") if rotate else secret
        pair = key_files.generate()
        key_files.write(target, pair, f"node {node_id} of cluster {config.cluster!r}")
        text = _with_public_keys(text, node_id, (*known, pair.public))
        made.append({"node_id": node_id, "public_key": pair.public, "secret_key_file": str(target)})
    venue = None
    if not (node_ids or rotate or config.venue_keys):
        pair = _venue_key(config)
        text = _with_venue_key(text, pair.public)
        venue = {"public_key": pair.public, "secret_key_file": str(config.venue_key_path)}
    _replace(Path(path), text)
    if as_json:
        output.print_json({"cluster_file": str(path), "keys": made, "venue_key": venue})
        return
    for key in made:
        click.echo(f"node {key['node_id']}: secret key in {key['secret_key_file']}, public key {key['public_key']}")
    if venue is not None:
        click.echo(f"venue: secret key in {venue['secret_key_file']}, public key {venue['public_key']}")
    click.echo(f"public keys written to {path}")


def _venue_key(config: Config) -> "KeyPair":
    """Return the key of the venue beside the data of the nodes; generate it if there is none."""
    from smrx import key_files

    if config.venue_key_path.exists():
        return key_files.read(config.venue_key_path)
    pair = key_files.generate()
    key_files.write(config.venue_key_path, pair, f"the venue of cluster {config.cluster!r}")
    return pair


def _with_public_keys(text: str, node_id: int, public_keys: tuple[str, ...]) -> str:
    """Return the text of the cluster file with new public keys of a node; comments and everything else stay.

    A byte-order mark and CRLF line ends stay as well.
    """
    mark, newline, lines = _lines(text)
    quoted = ", ".join(f'"{key}"' for key in public_keys)
    line = f"public_keys = [{quoted}]"
    starts = [number for number, found in enumerate(lines) if _NODES.match(found)]
    for start in starts:
        end = next((n for n in range(start + 1, len(lines)) if _TABLE.match(lines[n])), len(lines))
        block = range(start + 1, end)
        ids = [number for number in block if (found := _ID.match(lines[number])) and int(found[1]) == node_id]
        if not ids:
            continue
        old = next((number for number in block if _KEYS.match(lines[number])), None)
        if old is None:
            lines.insert(ids[0] + 1, line)
        else:
            lines[old] = line
        return mark + newline.join(lines) + newline
    raise CliError(
        Exit.USAGE,
        f"the cluster file has no [[nodes]] table with id = {node_id} on a line of its own; add public_keys yourself",
    )


def _with_venue_key(text: str, public_key: str) -> str:
    """Return the text of the cluster file with a first key of the venue, after the values outside of tables."""
    mark, newline, lines = _lines(text)
    at = next((number for number, found in enumerate(lines) if _TABLE.match(found)), len(lines))
    while at and (not lines[at - 1].strip() or lines[at - 1].lstrip().startswith("#")):
        at -= 1
    lines.insert(at, f'venue_keys = ["{public_key}"]')
    return mark + newline.join(lines) + newline


def _lines(text: str) -> tuple[str, str, list[str]]:
    """Return the byte-order mark of a text, its line end, and its lines."""
    content = text.removeprefix(_MARK)
    newline = "\r\n" if "\r\n" in content else "\n"
    lines = content.replace("\r\n", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    return text[: len(text) - len(content)], newline, lines


def _replace(path: Path, text: str) -> None:
    """Replace the file atomically, after checking that the new text is a valid configuration."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        load(temporary, allow_missing_keys=True)
        temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
