"""`smrx node`: one member of the cluster in the foreground. Parses and calls smrx/node."""

import logging

import click

from smrx import compiling
from smrx.cli import options
from smrx.config import Config


@click.command()
@click.option("--id", "node_id", type=int, required=True, metavar="N", help="Which member of the configuration to be.")
@click.option(
    "--allow-corruption",
    is_flag=True,
    help="Obey the admin request that damages a balance in memory; for tests of agreement only.",
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="Give up the journal and the snapshots this node has and learn everything from the others; asks first.",
)
@click.option("--yes", is_flag=True, help="With --rebuild: do not ask.")
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
@options.config_option
def node(node_id: int, allow_corruption: bool, rebuild: bool, yes: bool, quiet: bool) -> None:
    """Run one member of the cluster until it is stopped.

    Logs to stderr; ends on SIGTERM or SIGINT. Without a configuration it is a member of three on loopback.

    With --rebuild a node whose files are damaged begins anew as a learner: it votes and counts again once it has what a
    leader has. Only a majority of the others can give it that: never rebuild a second node before the first is back.

    \b
    Example:
      smrx node --id 1
      smrx node --id 2 --rebuild
    """
    config = options.config()
    config.node(node_id)
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    if rebuild:
        _rebuild(config, node_id, yes)
    # Before a single socket is bound: a node that is there answers.
    compiling.compile_engine(logging.getLogger(__name__).info)
    from smrx.node import reactor

    reactor.run(config, node_id, allow_corruption=allow_corruption)


def _rebuild(config: Config, node_id: int, yes: bool) -> None:
    from smrx.node.rebuild import discard

    if not yes:
        click.confirm(
            f"Give up the journal and the snapshots in {config.node_dir(node_id)}? What the other nodes do not have is "
            "then lost",
            abort=True,
            err=True,
        )
    removed = discard(config, node_id)
    click.echo(f"node {node_id}: removed {', '.join(removed) or 'nothing'}; it learns from the others", err=True)
