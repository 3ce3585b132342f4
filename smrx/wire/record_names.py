"""Show records as dictionaries for people: the field names of their kind, codes by name, text as text.

No sockets, no state. Used by the command line and by the shadow.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from smrx.wire.client_order_ids import short_id_text
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Permission, Reason, Scope
from smrx.wire.networks import unpack_networks
from smrx.wire.records import COMMAND_LAYOUTS, DETAILS_FIELDS, DETAILS_LAYOUTS, EVENT_LAYOUTS


def named_command(command: np.void, details: np.void | None = None) -> dict[str, Any]:
    """Return a command in the layout of its kind, with its details if it has any."""
    try:
        kind = CommandKind(int(command["kind"]))
    except ValueError:
        return _named(command)
    shown = _named(command.view(COMMAND_LAYOUTS[kind]), kind=CommandKind)
    if "client_order_id" in shown:
        shown["client_order_id"] = short_id_text(shown["client_order_id"])
    if details is not None and kind in DETAILS_LAYOUTS:
        values = _named(details.view(DETAILS_LAYOUTS[kind]), scope=Scope)
        shown["details"] = {name: values[name] for name in DETAILS_FIELDS[kind]}
    return shown


def named_event(event: np.void) -> dict[str, Any]:
    """Return an event in the layout of its kind."""
    try:
        layout = EVENT_LAYOUTS[EventKind(int(event["kind"]))]
    except ValueError:
        return _named(event)
    return _named(event.view(layout), kind=EventKind, reason=Reason, scope=Scope)


def named_outcome(outcome: np.void) -> dict[str, Any]:
    """Return an outcome."""
    return _named(outcome, status=OutcomeStatus, event_kind=EventKind, reason=Reason)


def _named(record: np.void, **names: Callable[[int], Any]) -> dict[str, Any]:
    """Return a record as a dictionary, with the names of codes and bytes as text."""
    values = dict(zip(record.dtype.names or (), record.tolist(), strict=True))
    if "networks" in values:
        values["networks"] = list(unpack_networks(values["networks"], values.pop("prefixes")))
    if "key" in values:
        values["key"] = values["key"].hex()
    if "permissions" in values:
        permissions = Permission(values["permissions"])
        values["permissions"] = [name for name, flag in Permission.__members__.items() if flag and flag in permissions]
    for field, value in values.items():
        if isinstance(value, bytes):
            values[field] = value.decode("ascii", "replace")
    for field, enumeration in names.items():
        if field in values:
            try:
                values[field] = enumeration(values[field]).name
            except ValueError:
                continue
    return values
