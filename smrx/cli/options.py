"""Options that many commands share, and the configuration they lead to. Called by the command files only."""

import re
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from smrx.config import Config, load

F = TypeVar("F", bound=Callable[..., Any])

_FROM_NOW: Final = re.compile(r"\+([0-9]{1,9})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _remember_config(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    # The command's own --config wins over that of `smrx`, which config() reads.
    if value is not None:
        ctx.find_root().params["config_path"] = value


def config_option(command: F) -> F:
    """Accept --config after the command's name as well as before it."""
    return click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_remember_config,
        help="Cluster configuration (TOML), as `smrx --config FILE`.",
    )(command)


def json_option(command: F) -> F:
    """Offer --json; the command gets it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | int | None:
    """Callback of an option that takes a time: "+90s" counts from now, everything else is the client's to read."""
    match = _FROM_NOW.fullmatch(value) if value is not None else None
    return value if match is None else int(time.time()) + int(match[1]) * _SECONDS[match[2]]


def account_option(help_text: str) -> Callable[[F], F]:
    """Require --account."""
    return click.option("--account", type=click.IntRange(min=1), required=True, help=help_text)


def config_path() -> str | None:
    """The configuration file given to the running command, if any."""
    path = click.get_current_context().find_root().params.get("config_path")
    return None if path is None else str(path)


def config() -> Config:
    """The configuration of the running command; raises ConfigError."""
    return load(config_path())
