"""The command line `smrx`: the table of commands, the loader, and the handler of errors.

To add the command `smrx NAME`: write smrx/cli/NAME_commands.py with a click command or group called NAME, add NAME and
its short help to COMMANDS below, and run scripts/docs. Every command needs an example in its help; tests check that. A
subcommand is added to the group in the file of its command.

A command file parses arguments, calls another package and prints. It is imported only when its command runs, so that
`smrx --help` does not import numba and zmq. An exception of a command becomes one message and an exit code here;
standard_streams.py does the same for an answer that cannot be written.
"""

import gc
import os
import sys
from importlib import import_module
from typing import Final

import click

from smrx.cli import standard_streams
from smrx.cli.cli_errors import explain
from smrx.cli.exit_codes import MEANINGS, Exit

#: Command -> short help, as in smrx/cli/COMMAND_commands.py; a test compares the two.
COMMANDS: Final = {
    "account": "Open, limit and suspend accounts, deposit and withdraw, show balances.",
    "asset": "Add and list assets.",
    "bench": "Run benchmarks on this machine.",
    "book": "Show the order book of an instrument.",
    "compile": "Compile the engine now, for the nodes that start later.",
    "cluster": "Start, stop and inspect the cluster, change its members.",
    "gateway": "Run one gateway: many clients of the native protocol on one link to the leader.",
    "history": "Show the life of every order, as `smrx settle run --history` stored it.",
    "instrument": "Add, configure, halt and list instruments.",
    "key": "Create keys, and say which may use the exchange and for what.",
    "log": "Read the journal of a stopped node.",
    "market": "Set up a market from a file, show it, halt all trading.",
    "node": "Run one node of the cluster in the foreground.",
    "order": "Place, replace, cancel, reduce and list orders.",
    "replay": "Send a tape of order flow to the cluster.",
    "settle": "Verify the event feed and settle trades outside the cluster.",
    "shadow": "Apply the log of a cluster with this program, and report the first command whose result differs.",
    "sim": "Test simulated clusters with random faults.",
    "snapshot": "Take, list, verify, back up and restore snapshots.",
    "tape": "Generate tapes of order flow.",
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands without importing them."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None if the name is unknown."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"smrx.cli.{cmd_name}_commands")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, then the exit codes."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"smrx {version('smrx')}")
        ctx.exit()


@click.group(name="smrx", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    envvar="SMRX_CONFIG",
    help="Cluster configuration (TOML) [env: SMRX_CONFIG]; three nodes on loopback if not given.",
)
@click.option(
    "--key",
    "key_path",
    metavar="FILE",
    envvar="SMRX_KEY",
    help="Key file [env: SMRX_KEY], for a cluster whose nodes have keys; DATA_DIR/venue.key if not given.",
)
@click.option(
    "--debug",
    is_flag=True,
    envvar="SMRX_DEBUG",
    help="Show the traceback of errors [env: SMRX_DEBUG].",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def smrx(config_path: str | None, key_path: str | None, debug: bool) -> None:
    """An exchange core that does not lose an acknowledged order.

    \b
    Example:
      smrx cluster up
      smrx cluster status
    """


def main(arguments: list[str] | None = None) -> None:
    """Run `smrx` and exit with its exit code."""
    code = run(arguments)
    # Else the interpreter looks through all objects of numba before it exits, for 0.2 s. They end with the process.
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run `smrx` and return its exit code; every error is one message on stderr."""
    with standard_streams.guard() as output:
        code = _run(arguments, output)
        standard_streams.finish(output)
        return output.exit_code(code)


def _run(arguments: list[str] | None, output: standard_streams.Output) -> int:
    try:
        # smrx.main() would exit with 1 for a closed pipe; here 1 means an internal error.
        with smrx.make_context("smrx", sys.argv[1:] if arguments is None else list(arguments)) as ctx:
            smrx.invoke(ctx)
    except click.exceptions.Exit as error:
        # 0 is --help or --version: no command ran.
        output.only_reads |= error.exit_code == 0
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("smrx: interrupted", err=True)
        return 130
    except standard_streams.OutputFailed:
        return int(Exit.OK)
    except Exception as error:
        if _is_debug(arguments):
            raise
        code, message = explain(error)
        click.echo(f"smrx: {message}", err=True)
        return int(code)
    return int(Exit.OK)


def _is_debug(arguments: list[str] | None) -> bool:
    words = sys.argv[1:] if arguments is None else arguments
    return "--debug" in words or os.environ.get("SMRX_DEBUG", "").lower() not in {"", "0", "false", "no"}
