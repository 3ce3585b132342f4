"""docs/cli-reference.md, from the commands themselves: `python -m smrx.cli.reference` prints it.

Run by scripts/docs; a test holds the file against it.
"""

from collections.abc import Iterator

import click

from smrx.cli import smrx
from smrx.cli.exit_codes import MEANINGS

_HEAD = """# Command line reference

Written by `scripts/docs` from the commands themselves; do not edit. Every command takes `--help`.
"""
#: The width of a help text, whatever the terminal.
_WIDTH = 100


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield (full name, command) of `smrx` and every command and group below it, in the order of their names."""
    yield from _below("smrx", smrx, click.Context(smrx, info_name="smrx"))


def _below(name: str, command: click.Command, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for child_name in sorted(command.list_commands(ctx)):
            child = command.get_command(ctx, child_name)
            if child is not None and not child.hidden:
                yield from _below(f"{name} {child_name}", child, click.Context(child, ctx, info_name=child_name))


def help_text(name: str, command: click.Command) -> str:
    """The --help of a command, at a fixed width and without a trace of the environment."""
    ctx = click.Context(command, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH)
    ctx.help_option_names = ["-h", "--help"]
    return command.get_help(ctx).rstrip()


def reference() -> str:
    """The whole document."""
    parts = [_HEAD, "## Exit codes\n", "| code | meaning |\n|---|---|"]
    parts += [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    for name, command in commands():
        parts.append(f"\n## {name}\n\n```text\n{help_text(name, command)}\n```")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
