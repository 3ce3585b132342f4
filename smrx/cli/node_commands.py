"""`smrx node`: run one node in the foreground. Parses and calls smrx/node."""

import logging

import click

from smrx import compiling
from smrx.cli import options
from smrx.config import Config


@click.command()
@click.option("--id", "node_id", type=int, required=True, metavar="N", help="Id of the node in the configuration.")
@click.option(
    "--rebuild",
    is_flag=True,
    help="Discard the journal and snapshots of this node and copy the state from the other nodes. Asks first.",
)
@click.option("--yes", is_flag=True, help="With --rebuild: do not ask.")
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
@options.config_option
def node(node_id: int, rebuild: bool, yes: bool, quiet: bool) -> None:
    """Run one node of the cluster in the foreground.

    Logs to stderr. SIGTERM, SIGINT and SIGHUP stop it cleanly, and it logs which one did; under nohup it ignores
    SIGHUP. Without a configuration the cluster is three nodes on loopback.

    --rebuild is for a node with damaged files: it restarts as a learner and votes again once it has the log of the
    leader. The other nodes must be a majority that holds the state: never rebuild a second node before the first is
    back.

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
    # Compile before sockets are bound: a node that listens must answer.
    log = logging.getLogger(__name__)
    compiled = compiling.compile_engine(log.info, config.data_dir)
    log.info("the compiled engine is in %s", compiled or "memory only: no directory can be written")
    from smrx.node import reactor

    reactor.run(config, node_id)


def _rebuild(config: Config, node_id: int, yes: bool) -> None:
    from smrx.node.rebuild import discard

    if not yes:
        click.confirm(
            f"Discard the journal and the snapshots in {config.node_dir(node_id)}? "
            "Data that the other nodes do not have is lost",
            abort=True,
            err=True,
        )
    removed = discard(config, node_id)
    click.echo(f"node {node_id}: removed {', '.join(removed) or 'nothing'}; it copies from the other nodes", err=True)
