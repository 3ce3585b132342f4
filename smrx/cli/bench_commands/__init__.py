"""`smrx bench`: measurements as commands, a file each. They parse, run smrx/bench, and print."""

import click

from smrx.cli.bench_commands import cluster, engine, failover, journal, latency, memory, peers, recovery, scale, settle


@click.group()
def bench() -> None:
    """Measure this machine and print the figures.

    \b
    Example:
      smrx bench engine
    """


for _file in (cluster, engine, failover, journal, latency, memory, peers, recovery, scale, settle):
    bench.add_command(_file.command)
