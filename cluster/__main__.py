"""`python -m cluster`: the tools of this package as commands."""

import click

from cluster import demo, replication
from cluster.siege.siege_command import siege
from cluster.torture.torture_command import torture


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cluster() -> None:
    """Run real clusters of smrx on this machine: a demo, a replication test, fault injection, and attacks."""


cluster.add_command(torture)
cluster.add_command(siege)
cluster.add_command(demo.main, "demo")
cluster.add_command(replication.main, "replication")

if __name__ == "__main__":
    cluster(prog_name="python -m cluster")
