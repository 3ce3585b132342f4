"""`smrx`: parses, calls, prints. One file a command group; the work is done by the parts they call.

A group's file is imported when one of its commands is run, so that `smrx --help` does not wait for compilers and
sockets. No traceback reaches a user: whatever a command raises ends here, as one sentence and an exit code.
"""

import os
import sys
from importlib import import_module
from typing import Final

import click

from smrx.cli.cli_errors import explain
from smrx.cli.exit_codes import MEANINGS, Exit

#: Command -> what it does; its code is in smrx/cli/COMMAND_commands.py. A test holds the texts to the commands' own.
COMMANDS: Final = {
    "account": "Open and limit accounts, move money in and out, show balances.",
    "asset": "Add and list what can be owned.",
    "bench": "Measure this machine and print the figures.",
    "book": "Show an instrument's order book.",
    "cluster": "Start, stop and inspect the whole cluster.",
    "instrument": "Add, halt, rule and list what can be traded.",
    "log": "Read what a stopped node's journal remembers.",
    "market": "Set up a whole market from a file, show it, stop it.",
    "node": "Run one member of the cluster until it is stopped.",
    "order": "Place, replace, cancel, reduce and list orders.",
    "replay": "Feed a tape of recorded order flow through the cluster.",
    "settle": "Verify the event feed and keep the books outside the cluster.",
    "sim": "Run simulated clusters through storms of faults.",
    "snapshot": "Take, list, verify, back up and restore snapshots.",
    "tape": "Make tapes of order flow.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, without importing one."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"smrx.cli.{cmd_name}_commands")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, and the exit codes below it."""
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
    help="Cluster configuration (TOML) [env: SMRX_CONFIG]; three nodes on loopback if there is none.",
)
@click.option(
    "--debug",
    is_flag=True,
    envvar="SMRX_DEBUG",
    help="Show the traceback of an error [env: SMRX_DEBUG].",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def smrx(config_path: str | None, debug: bool) -> None:
    """An exchange core that cannot lose an acknowledged order.

    \b
    Example:
      smrx cluster up
      smrx cluster status
    """


def main(arguments: list[str] | None = None) -> None:
    """Run `smrx` and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run `smrx` and return its exit code; every error is one sentence on stderr."""
    try:
        # Not smrx.main(): it ends the process with 1 for a closed pipe, which here means a fault of smrx itself.
        with smrx.make_context("smrx", sys.argv[1:] if arguments is None else list(arguments)) as ctx:
            smrx.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("smrx: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not trip over it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except Exception as error:
        if _debug(arguments):
            raise
        code, sentence = explain(error)
        click.echo(f"smrx: {sentence}", err=True)
        return int(code)
    return int(Exit.OK)


def _debug(arguments: list[str] | None) -> bool:
    given = sys.argv[1:] if arguments is None else arguments
    return "--debug" in given or os.environ.get("SMRX_DEBUG", "").lower() not in {"", "0", "false", "no"}
