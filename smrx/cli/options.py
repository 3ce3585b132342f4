"""Options that several commands share, and the configuration of the running command."""

import re
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar, cast

import click

from smrx.config import Config, load
from smrx.wire.client_order_ids import pack_client_order_id

F = TypeVar("F", bound=Callable[..., Any])

#: The levels of a read, as smrx.client names them.
_LEVELS: Final = ("linearizable", "leader", "any")
_FROM_NOW: Final = re.compile(r"\+([0-9]{1,9})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _store_config_path(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    # config() reads the --config of `smrx`; the one after the command replaces it.
    if value is not None:
        ctx.find_root().params["config_path"] = value


def config_option(command: F) -> F:
    """Accept --config after the name of the command as well as before it."""
    return click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_store_config_path,
        help="Cluster configuration (TOML), the same as `smrx --config FILE`.",
    )(command)


def _store_key_path(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().params["key_path"] = value


def cluster_option(command: F) -> F:
    """Accept --config and --key after the name of a command that connects to the cluster."""
    key_option = click.option(
        "--key",
        metavar="FILE",
        expose_value=False,
        callback=_store_key_path,
        help="Key file, for a cluster whose nodes have keys, the same as `smrx --key FILE`.",
    )
    return config_option(key_option(command))


def json_option(command: F) -> F:
    """Add --json; the command gets it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def timeout_option(default_s: float, help_text: str) -> Callable[[F], F]:
    """Add --timeout, in seconds above 0; the command gets it as `timeout`."""
    seconds = click.FloatRange(min=0, min_open=True)
    return click.option("--timeout", type=seconds, default=default_s, show_default=True, help=help_text)


def level_options(command: F) -> F:
    """Add --level and --max-age; the command gets both as `level`, as the client takes it."""

    @wraps(command)
    def run(*args: Any, level: str, max_age: float | None, **others: Any) -> Any:
        if max_age is None:
            return command(*args, level=level, **others)
        if level != "any":
            raise click.UsageError(f"--max-age needs --level any, found --level {level}")
        from smrx.client import Stale

        return command(*args, level=Stale(max_age_s=max_age), **others)

    with_age = click.option(
        "--max-age",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="With --level any: fail if no node has a state that is known to be no older than this.",
    )
    with_level = click.option(
        "--level",
        type=click.Choice(_LEVELS),
        default=_LEVELS[0],
        show_default=True,
        help="How new the state is: with everything that was answered before, confirmed by a majority; as the leader "
        "has it; or as any node has it, which needs no leader.",
    )
    return cast(F, with_level(with_age(run)))


class ClientOrderId(click.ParamType[str]):
    """A client order id, as text; a wrong one is a usage error."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        try:
            pack_client_order_id(value)
        except ValueError as error:
            self.fail(str(error).partition(": ")[2], param, ctx)
        return str(value)


def parse_expiry(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | int | None:
    """Convert "+90s" to seconds since 1970; return any other text as it is, for the client to parse."""
    match = _FROM_NOW.fullmatch(value) if value is not None else None
    return value if match is None else int(time.time()) + int(match[1]) * _SECONDS[match[2]]


def account_option(help_text: str) -> Callable[[F], F]:
    """Add a required --account."""
    return click.option("--account", type=click.IntRange(min=1), required=True, help=help_text)


def config_path() -> str | None:
    """Return the path of the configuration file given to the running command, or None."""
    path = click.get_current_context().find_root().params.get("config_path")
    return None if path is None else str(path)


def key_path() -> str | None:
    """Return the path of the key file given to the running command, or None."""
    path = click.get_current_context().find_root().params.get("key_path")
    return None if path is None else str(path)


def config() -> Config:
    """Return the configuration of the running command; raises ConfigError."""
    return load(config_path())
