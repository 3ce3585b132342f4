"""`smrx key`: create key files, and say which keys may use the exchange. Parses, calls the client, prints."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, venue_client

if TYPE_CHECKING:
    from smrx.client.results import CredentialResult, CredentialState

_number = click.argument("number", metavar="NUMBER", type=click.IntRange(min=1))
_allow = click.option(
    "--allow",
    required=True,
    metavar="LIST",
    help="Permissions: read, trade, withdraw, administer, risk, gateway, follow; several with commas between.",
)
_from = click.option(
    "--from",
    "networks",
    multiple=True,
    metavar="NETWORK",
    help="Address or network from which it may connect, such as 10.1.0.0/16; at most four. Everywhere if not given.",
)
_expires = click.option(
    "--expires",
    callback=options.parse_expiry,
    metavar="TIME",
    help="When it expires: +90d, a time in ISO 8601, or seconds since 1970. Never if not given.",
)


@click.group()
def key() -> None:
    """Create keys, and say which may use the exchange and for what.

    \b
    Example:
      smrx key create desk.key
    """


@key.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@options.json_option
def create(file: Path, as_json: bool) -> None:
    """Generate a key pair and write it to a new FILE that only you can read.

    Give the public key that is printed to the venue; the file stays with you. Commands take it with --key.

    \b
    Example:
      smrx key create desk.key
    """
    from smrx import key_files

    pair = key_files.generate()
    key_files.write(file.expanduser(), pair, "a client")
    if as_json:
        output.print_json({"key_file": str(file), "public_key": pair.public})
        return
    click.echo(f"secret key in {file}, public key {pair.public}")


@key.command()
@_number
@click.option("--public", "public_key", required=True, metavar="KEY", help="The public key that `key create` printed.")
@click.option("--account", type=click.IntRange(min=1), help="It acts for this account only.")
@click.option("--firm", type=click.IntRange(min=1), help="It acts for the accounts of this firm.")
@click.option("--all", "everything", is_flag=True, help="It acts for all accounts: staff, and gateways of the venue.")
@_allow
@_from
@_expires
@options.cluster_option
@options.json_option
def add(
    number: int,
    public_key: str,
    account: int | None,
    firm: int | None,
    everything: bool,
    allow: str,
    networks: tuple[str, ...],
    expires: str | int | None,
    as_json: bool,
) -> None:
    """Let the holder of a key use the exchange, as credential NUMBER.

    Numbers and keys are never used again. Needs the permission administer.

    \b
    Example:
      smrx key add 17 --public 'nP?6...' --account 7 --allow read,trade --from 10.1.0.0/16 --expires +90d
      smrx key add 2 --public 'x0]l...' --all --allow read,risk
    """
    if [account is not None, firm is not None, everything].count(True) != 1:
        raise click.UsageError("give one of --account, --firm and --all")
    with venue_client.connect() as client:
        answer = client.add_credential(
            number, public_key, _names(allow), account=account, firm=firm, networks=networks, expires=expires
        )
    _print(answer, f"credential {number} may use the exchange", as_json)


@key.command("list")
@options.cluster_option
@options.json_option
def list_(as_json: bool) -> None:
    """List the credentials, with those that are revoked.

    \b
    Example:
      smrx key list
    """
    with venue_client.connect() as client:
        found = client.credentials()
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ("NUMBER", "FOR", "PERMISSIONS", "FROM", "EXPIRES", "STATE", "PUBLIC KEY"),
        [_row(credential) for credential in found],
        empty="there are no credentials",
    )


@key.command()
@_number
@_allow
@_from
@_expires
@options.cluster_option
@options.json_option
def restrict(number: int, allow: str, networks: tuple[str, ...], expires: str | int | None, as_json: bool) -> None:
    """Replace what credential NUMBER may do, from where, and until when.

    \b
    Example:
      smrx key restrict 17 --allow read
    """
    with venue_client.connect() as client:
        answer = client.set_credential(number, _names(allow), networks=networks, expires=expires)
    _print(answer, f"credential {number} is changed", as_json)


@key.command()
@_number
@options.cluster_option
@options.json_option
def revoke(number: int, as_json: bool) -> None:
    """Revoke credential NUMBER for ever. Its open orders stay; cancel them with `smrx order cancel --all`.

    \b
    Example:
      smrx key revoke 17
    """
    with venue_client.connect() as client:
        answer = client.revoke_credential(number)
    _print(answer, f"credential {number} is revoked", as_json)


def _names(allow: str) -> list[str]:
    return [name.strip() for name in allow.split(",") if name.strip()]


def _row(credential: "CredentialState") -> list[object]:
    whose = "all accounts" if credential.scope == "ALL" else f"{credential.scope.lower()} {credential.subject}"
    return [
        credential.number,
        whose,
        ", ".join(credential.permissions).lower(),
        ", ".join(credential.networks) or output.NOTHING,
        credential.expires or output.NOTHING,
        "revoked" if credential.revoked else "active",
        credential.key,
    ]


def _print(answer: "CredentialResult", text: str, as_json: bool) -> None:
    output.print_answer(answer, text, as_json)
