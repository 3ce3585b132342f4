"""`smrx node`: one member of the cluster in the foreground. Parses and calls smrx/node."""

import logging

import click

from smrx import compiling
from smrx.cli import options


@click.command()
@click.option("--id", "node_id", type=int, required=True, metavar="N", help="Which member of the configuration to be.")
@click.option(
    "--allow-corruption",
    is_flag=True,
    help="Obey the admin request that damages a balance in memory; for tests of agreement only.",
)
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
@options.config_option
def node(node_id: int, allow_corruption: bool, quiet: bool) -> None:
    """Run one member of the cluster until it is stopped.

    Logs to stderr; ends on SIGTERM or SIGINT. Without a configuration it is a member of three on loopback.

    \b
    Example:
      smrx node --id 1
    """
    config = options.config()
    config.node(node_id)
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    # Before a single socket is bound: a node that is there answers.
    compiling.ready_engine(logging.getLogger(__name__).info)
    from smrx.node import reactor

    reactor.run(config, node_id, allow_corruption=allow_corruption)
