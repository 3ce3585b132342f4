"""`smrx compile`: compile the engine at installation, or when an image is built. Parses, calls, prints."""

import os

import click

from smrx import compile_cache
from smrx.cli import progress
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit


@click.command()
@click.option(
    "--to",
    metavar="DIR",
    help=f"Directory for the compiled code, as {compile_cache.VARIABLE}; set that for the nodes, too.",
)
def compile(to: str | None) -> None:
    """Compile the engine now, for the nodes that start later.

    Takes about a minute, and does nothing if it was done before. Compiled code is kept in the directory that
    SMRX_CACHE_DIR names. Without it: beside the sources of smrx if this user can write there, else in ~/.cache/smrx,
    else in DATA_DIR/compiled of a node. A service user that can only read the directory gets a copy in its own. Code
    from a directory that other users can write is not used.

    \b
    Example:
      smrx compile
      smrx compile --to /opt/smrx/compiled
    """
    if to is not None:
        os.environ[compile_cache.VARIABLE] = to
    directory = progress.compile_engine()
    if directory is None:
        raise CliError(
            Exit.RESOURCE, f"compiled code cannot be kept: none of these can be written: {compile_cache.places()}"
        )
    from smrx.settlement.books.compiled_books import warm_up

    warm_up()
    click.echo(f"the compiled engine is in {directory}")
