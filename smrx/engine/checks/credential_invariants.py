"""Check credentials, the sessions and orders that belong to them, and firms, with NumPy. Called by invariants.py."""

from collections.abc import Iterator

import numpy as np

from smrx.engine.checks.record_columns import StateColumns
from smrx.engine.checks.xxh3_rows import hash_rows
from smrx.engine.kernels.rules_version import CREDENTIAL_RULES
from smrx.wire.codes import ALL_PERMISSIONS, Scope
from smrx.wire.records import ADDRESS_SIZE, CREDENTIAL_SHIFT, KEY_SIZE, NETWORKS


def credential_violations(tables: StateColumns) -> Iterator[str]:
    """Credentials are valid, and sessions belong to the one that their id names; before version 2 there are none."""
    rows, sessions, orders = tables["credentials"], tables["sessions"], tables["orders"]
    persons = tables["order_details"].live("credential")
    if tables.state.core["rules_version"][0] < CREDENTIAL_RULES and (
        len(rows.slots) or tables["accounts"].live("firm").any() or persons.any()
    ):
        yield "credentials: there are some, or firms, before the rules have them"
    scope, subject = rows.live("scope"), rows.live("subject")
    if not rows.live("credential_id").all():
        yield "credentials: one has number 0"
    permissions = rows.live("permissions")
    if (permissions == 0).any() or (permissions > int(ALL_PERMISSIONS)).any():
        yield "credentials: one has no permissions, or unknown ones"
    unknown = ~np.isin(subject, tables["accounts"].live("account_id"))
    wrong = np.select(
        [scope == Scope.ACCOUNT, scope == Scope.FIRM, scope == Scope.ALL], [unknown, subject == 0, subject != 0], True
    )
    if wrong.any():
        yield "credentials: the subject of one does not fit its scope"
    if (rows.live("revoked") > 1).any() or (rows.live("expires_ns") < 0).any():
        yield "credentials: one has an invalid state"
    key = np.stack([rows.live(f"key_{at}") for at in range(KEY_SIZE // 8)], axis=1)
    if len(key) and ((hash_rows(key) != rows.live("key_form")).any() or not key.any(axis=1).all()):
        yield "credentials: one has no key, or is not found by it"
    if not _are_networks(tables):
        yield "credentials: one has a network with bits behind its prefix"
    number = sessions.live("credential_id")
    if (rows["credential_id"][sessions.live("credential")] != number).any():
        yield "sessions: one is not linked to its credential"
    if ((number != 0) & (sessions.live("session_id") >> np.uint64(CREDENTIAL_SHIFT) != number)).any():
        yield "sessions: one belongs to a credential that its id does not name"
    known = np.isin(tables["order_details"]["credential"][orders.live("details")], [0, *rows.live("credential_id")])
    if not known.all():
        yield "orders: the person behind one is unknown"


def _are_networks(tables: StateColumns) -> bool:
    """Whether no network has a bit behind its prefix."""
    rows = tables["credentials"]
    if not len(rows.slots):
        return True
    words = np.stack([rows.live(f"networks_{at}") for at in range(NETWORKS * ADDRESS_SIZE // 8)], axis=1)
    places = np.ascontiguousarray(words).view(np.uint8).reshape(-1, NETWORKS, ADDRESS_SIZE)
    prefixes = np.ascontiguousarray(rows.live("prefixes")).view(np.uint8).reshape(-1, NETWORKS, 1).astype(np.int64)
    counted = np.clip(prefixes - 8 * np.arange(ADDRESS_SIZE), 0, 8)
    return bool((prefixes <= 8 * ADDRESS_SIZE).all() and not (places & (0xFF >> counted)).any())
