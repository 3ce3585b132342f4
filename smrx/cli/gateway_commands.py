"""`smrx gateway`: run one gateway in the foreground. Parses and calls smrx/gateway."""

import logging
from pathlib import Path

import click

from smrx import compile_cache
from smrx.cli import options


@click.command()
@click.option("--name", metavar="NAME", help="Name of the gateway in the configuration; the first one if not given.")
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
@options.cluster_option
def gateway(name: str | None, quiet: bool) -> None:
    """Run one gateway: many clients of the native protocol on one link to the leader.

    Logs to stderr. SIGTERM, SIGINT and SIGHUP stop it. Any number of gateways may run, on any machine, and each may be
    killed at any time: its clients go on through another one and repeat what has no answer. Without a configuration it
    listens on port 7090 of loopback. docs/gateway.md describes the protocol.

    \b
    Example:
      smrx gateway
      smrx --config cluster.toml gateway --name east-1
    """
    config = options.config()
    config.gateway(name)
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    # Before anything compiled is imported: where the machine code is kept.
    compile_cache.choose(Path(config.data_dir).expanduser())
    from smrx.gateway import gateway_process

    gateway_process.run(config, name, options.key_path())
