"""Check sessions' answers and the lists of sessions and transfers, with NumPy.

Never changes the state. Called by full_hash.py and invariants.py.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.checks.record_columns import Columns, StateColumns
from smrx.engine.checks.xxh3_rows import hash_rows
from smrx.engine.kernels.answers import ANSWER_TAG
from smrx.engine.state import NEVER, RUN_LENGTHS, State

#: Answers hashed at once: their words stay in the cache.
_BATCH: Final = 1 << 12
_NS: Final = 1_000_000_000

Words = NDArray[np.uint64]


def lengths_of(rows: Any) -> NDArray[np.uint64]:
    """Return how many answers each session keeps at most."""
    lengths: NDArray[np.uint64] = np.uint64(1) << np.minimum(rows["run"], RUN_LENGTHS - 1).astype(np.uint64)
    return lengths


def kept_counts(rows: Any) -> NDArray[np.int64]:
    """Return how many answers each session keeps."""
    counts: NDArray[np.int64] = np.minimum(rows["last_request_id"], lengths_of(rows)).astype(np.int64)
    return counts


def kept_answers(state: State) -> int:
    """Return the sum of the lengths of the runs of all sessions."""
    return int(lengths_of(state.sessions[state.sessions["live"] != 0]).sum())


def newest_chains(state: State, rows: Any) -> Words:
    """Return the chain of each session, computed from its newest answer; 0 if it has none."""
    chains = np.zeros(len(rows), np.uint64)
    (some,) = np.nonzero(rows["last_request_id"])
    chains[some] = _chains(state, rows, some, rows["last_request_id"][some])
    return chains


def have_broken_chains(state: State, rows: Any) -> NDArray[np.bool_]:
    """Whether one of a session's answers does not lead from the chain before it to the next."""
    counts = kept_counts(rows)
    ends = np.cumsum(counts)
    broken = np.zeros(len(rows), bool)
    for start in range(0, int(counts.sum()), _BATCH):
        flat = np.arange(start, min(start + _BATCH, int(ends[-1])))
        owner = np.searchsorted(ends, flat, side="right")
        requests = rows["last_request_id"][owner] - (ends[owner] - 1 - flat).astype(np.uint64)
        after = _chains(state, rows, owner, requests)
        following = _answers(state, rows, owner, requests + np.uint64(1))["before"]
        expected = np.where(flat == ends[owner] - 1, rows["chain"][owner], following)
        broken[owner[after != expected]] = True
    broken |= rows["static_hash"] + rows["chain"] != rows["hash"]
    return broken


def _answers(state: State, rows: Any, owner: Any, requests: Words) -> Any:
    """Return the records for the answers to requests of some of the sessions."""
    slots = rows["answers"][owner] + (requests & (lengths_of(rows)[owner] - np.uint64(1)))
    return state.answers[np.minimum(slots, np.uint64(len(state.answers) - 1)).astype(np.int64)]


def _chains(state: State, rows: Any, owner: Any, requests: Words) -> Words:
    """Return the chain after each of some answers, see state_hash.py."""
    answers = _answers(state, rows, owner, requests)
    head = ANSWER_TAG + answers["status"].astype(np.uint64)
    for field, bits in (("event_kind", 8), ("reason", 16), ("event_count", 32)):
        head = head | (answers[field].astype(np.uint64) << np.uint64(bits))
    others = ("request_id", "sequence", "order_id", "first_event", "cum_lots", "leaves_lots")
    columns = [head, answers["before"] ^ rows["session_id"][owner]]
    columns += [answers[name].astype(np.uint64) for name in others]
    return hash_rows(np.stack(columns, axis=1))


def run_violations(tables: StateColumns) -> Iterator[str]:
    """The runs of the sessions and the free ones are the used part of the answers, without overlap."""
    state, sessions = tables.state, tables["sessions"]
    top = int(state.core["answers_top"][0])
    if not 1 <= top <= len(state.answers):
        yield f"answers: {top - 1} records used of {len(state.answers) - 1}"
        return
    number = sessions.live("run").astype(np.int64)
    if (number >= RUN_LENGTHS).any():
        yield "sessions: the length of a run is invalid"
        return
    if kept_answers(state) != int(state.core["kept_answers"][0]):
        yield "sessions: the sum of the lengths of their runs is wrong"
    firsts, lengths = sessions.live("answers").tolist(), (1 << number).tolist()
    for run, first in enumerate(state.runs.tolist()):
        found = 0
        while first:
            found += 1
            if first >= top or found > top:
                yield "answers: a list of free runs is circular or leaves the array"
                return
            firsts.append(first)
            lengths.append(1 << run)
            first = int(state.answers["request_id"][first])
    order = np.argsort(np.array(firsts, np.int64), kind="stable")
    begins, sizes = np.array(firsts, np.int64)[order], np.array(lengths, np.int64)[order]
    if not np.array_equal(np.append(begins, top), np.cumsum(np.append(1, sizes))):
        yield "answers: the runs do not make up the used records"


def list_violations(tables: StateColumns) -> Iterator[str]:
    """Sessions and transfers are linked in order of activity and of sequence, which is that of their times."""
    core = tables.state.core[0]
    sessions, transfers = tables["sessions"], tables["transfers"]
    order = sessions.slots[np.argsort(sessions.live("activity"), kind="stable")]
    if not _is_list(sessions, "newer", order, core["oldest_session"], core["newest_session"]) or not _is_list(
        sessions, "older", order[::-1], core["newest_session"], core["oldest_session"]
    ):
        yield "sessions: they are not linked by activity"
    numbers, times = sessions["activity"][order], sessions["last_active_ns"][order]
    if (np.diff(numbers.astype(np.int64)) <= 0).any() or (np.diff(times) < 0).any():
        yield "sessions: a last activity is out of order"
    if len(order) and (numbers[-1] > core["activity"] or times[-1] > core["time_ns"]):
        yield "sessions: a last activity is in the future"
    if len(order) and core["next_session_end"] > _latest_end(core, times[0], "session_silence_s"):
        yield "sessions: the first end is too late"
    order = transfers.slots[np.argsort(transfers.live("sequence"), kind="stable")]
    if not _is_list(transfers, "newer", order, core["oldest_transfer"], core["newest_transfer"]):
        yield "transfers: they are not linked by sequence"
    times = transfers["time_ns"][order]
    if (np.diff(times) < 0).any() or (len(order) and times[-1] > core["time_ns"]):
        yield "transfers: a time is out of order"
    if len(order) and core["next_transfer_end"] > _latest_end(core, times[0], "transfer_age_s"):
        yield "transfers: the first end is too late"


def transfer_list_violations(tables: StateColumns) -> Iterator[str]:
    """A walk from an account's newest transfer through the links meets its transfers, newest first, and no others."""
    state, transfers, accounts = tables.state, tables["transfers"], tables["accounts"]
    order = transfers.slots[np.lexsort((transfers.live("sequence"), transfers.live("account_id")))]
    owners = transfers["account_id"][order]
    same = owners[1:] == owners[:-1]
    last = np.append(~same, True)[: len(order)]
    newest = dict(zip(owners[last].tolist(), order[last].tolist(), strict=True))
    links = state.transfer_links
    if (links[order[1:][same]] != order[:-1][same]).any():
        yield "transfers: those of an account are not linked by sequence"
    # The link of the oldest one, and of an account without, may lead anywhere: readers stop there.
    for slot, account in zip(accounts.slots.tolist(), accounts.live("account_id").tolist(), strict=True):
        found = int(state.last_transfers[slot])
        gone = not transfers["live"][found] or int(transfers["account_id"][found]) != account
        if found != newest.get(account) and not (gone and account not in newest):
            yield f"account {account}: its newest transfer is not the first of its list"
            return


def _latest_end(core: Any, since: Any, period: str) -> int:
    """Return the bound of when something must end: with the next command if its time has come."""
    return max(min(int(since) + int(core[period]) * _NS, NEVER), int(core["time_ns"]))


def _is_list(rows: Columns, link: str, order: NDArray[Any], first: Any, last: Any) -> bool:
    """Whether a link leads from each record to the next of an order, and the ends are these."""
    ends = (int(order[0]), int(order[-1])) if len(order) else (0, 0)
    expected = np.append(order[1:], 0)[: len(order)]
    return ends == (int(first), int(last)) and bool((rows[link][order] == expected).all())
