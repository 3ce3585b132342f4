"""`smrx cluster keygen`: secret keys for members, their public halves into the cluster file. Parses, calls, prints."""

import os
import re
import tempfile
from pathlib import Path

import click

from smrx.cli import options, output
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.config import load

_NODES = re.compile(r"^\s*\[\[\s*nodes\s*\]\]")
_TABLE = re.compile(r"^\s*\[")
_ID = re.compile(r"^\s*id\s*=\s*(\d+)")
_KEYS = re.compile(r"^\s*public_keys\s*=")


@click.command()
@click.option("--node", "node_ids", type=int, multiple=True, metavar="N", help="Only this member; may be repeated.")
@click.option(
    "--rotate",
    is_flag=True,
    help="Make a second key: the secret beside the present one, the public half after it in the cluster file.",
)
@options.config_option
@options.json_option
def keygen(node_ids: tuple[int, ...], rotate: bool, as_json: bool) -> None:
    """Make the keys by which members know each other.

    Writes a secret key a node (mode 0600) to DATA_DIR/node-N/curve.key, or where the cluster file says, and puts the
    public halves into the cluster file. Bring each secret to its machine, the cluster file to all of them, and start
    the nodes.

    To change a key while the exchange serves: `smrx cluster keygen --rotate --node N`; bring the new cluster file to
    every machine and start the nodes again, one after the other; move the new secret (curve.key.next) over curve.key
    and start node N again; take its first public key out of the cluster file, and start the nodes again as before.

    \b
    Example:
      smrx cluster keygen --config cluster.toml
      smrx cluster keygen --rotate --node 2 --config cluster.toml
    """
    from smrx.consensus import keys

    path = options.config_path()
    if path is None:
        raise CliError(
            Exit.USAGE, "expected a cluster file to put the public keys into, found none; name it with --config"
        )
    config = load(path, keyless=True)
    chosen = list(node_ids) or [node.id for node in config.nodes]
    made = []
    text = Path(path).read_text(encoding="utf-8")
    for node_id in chosen:
        known = config.node(node_id).public_keys
        if bool(known) != rotate:
            found = f"{len(known)} already; --rotate makes another" if known else "none to take over from"
            raise CliError(
                Exit.USAGE, f"{path}: expected {'a' if rotate else 'no'} key for node {node_id}, found {found}"
            )
        secret = config.secret_key_path(node_id)
        target = secret.with_name(secret.name + ".next") if rotate else secret
        pair = keys.generate()
        keys.write(target, pair, config.cluster, node_id)
        text = _with_keys(text, node_id, (*known, pair.public))
        made.append({"node_id": node_id, "public_key": pair.public, "secret_key_file": str(target)})
    _replace(Path(path), text)
    if as_json:
        output.print_json({"cluster_file": str(path), "keys": made})
        return
    for key in made:
        click.echo(f"node {key['node_id']}: secret key in {key['secret_key_file']}, public key {key['public_key']}")
    click.echo(f"public keys written to {path}")


def _with_keys(text: str, node_id: int, public_keys: tuple[str, ...]) -> str:
    """The cluster file with a member's public keys set, everything else, comments included, as it was."""
    lines = text.splitlines()
    quoted = ", ".join(f'"{key}"' for key in public_keys)
    line = f"public_keys = [{quoted}]"
    starts = [number for number, content in enumerate(lines) if _NODES.match(content)]
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
        return "\n".join(lines) + "\n"
    raise CliError(
        Exit.USAGE, f"expected [[nodes]] with id = {node_id} in the cluster file, found none; add public_keys by hand"
    )


def _replace(path: Path, text: str) -> None:
    """Put the new text in the place of the old at once, if it is a configuration."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        load(temporary, keyless=True)
        temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
