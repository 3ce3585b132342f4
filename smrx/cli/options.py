"""Options that many commands share, and the configuration they lead to. Called by the command files only."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from smrx.config import Config, load

F = TypeVar("F", bound=Callable[..., Any])


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


def config_path() -> str | None:
    """The configuration file given to the running command, if any."""
    path = click.get_current_context().find_root().params.get("config_path")
    return None if path is None else str(path)


def config() -> Config:
    """The configuration of the running command; raises ConfigError."""
    return load(config_path())
