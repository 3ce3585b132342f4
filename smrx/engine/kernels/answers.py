"""Keep the last outcomes of each session, so that a repeated request gets its first answer on every node.

A session owns a *run*: a power of two of consecutive records in `state.answers`, which it uses as a ring. The answer to
request N is in record N modulo the length. The run belongs to the session until it ends; then it waits, in a list for
each length, for the next session that asks for as many. Which records of a run are in use follows from the session's
last request id, so a run is never cleared.

The hash of a session contains a *chain*: each answer's hash is computed from its words and from the chain before it,
which its record keeps. So a request costs one hash and reads nothing of the answer that it replaces, the newest value
stands for all answers that are kept, and each of them can be checked: its hash is the chain before the next.

With the answer the *content* of its request is kept, a hash, so that another request with the same id is noticed. An
answer holds the sum of both, modulo 2^64: where the record is tells the id. With version 1 of the rules the content is
0, and nothing is compared. Called by apply.py, sessions.py and retention.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import NIL, U0, U1, U32, Record, Tables, inlined, kernel, opaque, view_as
from smrx.engine.kernels.layouts import COMMAND_WORDS as ANSWER_WORDS
from smrx.engine.kernels.layouts import DETAILS_WORDS
from smrx.engine.kernels.lookup import details_of
from smrx.engine.kernels.state_hash import U8, U16, replace_hash
from smrx.engine.kernels.xxh3 import hash6, hash8, hash9
from smrx.engine.state import RUN_LENGTHS
from smrx.wire.records import DEFAULT_ANSWERS

#: The low byte of an answer's first hashed word is this tag plus the status, 1 to 3.
ANSWER_TAG: Final = np.uint64(16)
#: The first word of a command has the number of its details in the upper 16 bits; only whether it has any is content.
_HAS_DETAILS: Final = np.uint64(1 << 48)
_WITHOUT_DETAILS: Final = np.uint64((1 << 48) - 1)


@inlined
def answer_of(state: Tables, session: Record, request_id: Any) -> Any:
    """Return the record for the answer to a request of a session."""
    return state.answers[np.uint64(session.answers) + (request_id & ((U1 << np.uint64(session.run)) - U1))]


@inlined
def content_of(state: Tables, command: Record) -> Any:
    """Return a hash of a request's content: all of it but its session, its id, and the number of its details."""
    if command.details != 0:
        return content_with_details(state, command)
    words = view_as(command, ANSWER_WORDS)
    content = hash6(words.word_0, words.word_3, words.word_4, words.word_5, words.word_6, words.word_7)
    return content if content != U0 else U1


@kernel
def content_with_details(state: Tables, command: Record) -> Any:
    """Return the same of a request that has details."""
    words = view_as(command, ANSWER_WORDS)
    head = words.word_0 & _WITHOUT_DETAILS | _HAS_DETAILS
    content = hash6(head, words.word_3, words.word_4, words.word_5, words.word_6, words.word_7)
    if command.details <= len(state.details):
        more = view_as(details_of(state, command), DETAILS_WORDS)
        content = hash9(
            content, more.word_0, more.word_1, more.word_2, more.word_3, more.word_4, more.word_5, more.word_6,
            more.word_7,
        )  # fmt: skip
        content = hash9(
            content, more.word_8, more.word_9, more.word_10, more.word_11, more.word_12, more.word_13, more.word_14,
            more.word_15,
        )  # fmt: skip
    return content if content != U0 else U1


@inlined
def is_repetition(state: Tables, session: Record, command: Record) -> Any:
    """Whether a request whose answer is kept is the one that was answered, as far as its content was kept."""
    content = answer_of(state, session, command.request_id).request_id - command.request_id
    return content == U0 or content == content_of(state, command)


@inlined
def keep_answer(state: Tables, outcome: Record) -> None:
    """Keep the outcome of the request that `turn.session` has just used, in place of its oldest one."""
    core = state.core[0]
    session = state.sessions[state.turn[0].session]
    answer = answer_of(state, session, outcome.request_id)
    # Loaded one by one: the processor has to wait for a word that was written in parts.
    head = (
        np.uint64(opaque(outcome.status))
        | (np.uint64(opaque(outcome.event_kind)) << U8)
        | (np.uint64(opaque(outcome.reason)) << U16)
        | (np.uint64(outcome.event_count) << U32)
    )
    # Status, kind, reason and count in one word.
    view_as(answer, ANSWER_WORDS).word_0 = head
    answer.before = session.chain
    request = outcome.request_id + state.turn[0].content
    answer.request_id = request
    answer.sequence = outcome.sequence
    answer.order_id = outcome.order_id
    answer.first_event = outcome.first_event
    answer.cum_lots = outcome.cum_lots
    answer.leaves_lots = outcome.leaves_lots
    if core.hashing != 0:
        session.chain = hash8(
            ANSWER_TAG + head, session.chain ^ session.session_id, request, outcome.sequence,
            outcome.order_id, outcome.first_event, np.uint64(outcome.cum_lots), np.uint64(outcome.leaves_lots),
        )  # fmt: skip
        replace_hash(core, session, session.static_hash + session.chain)


@inlined
def is_kept(session: Record, request_id: Any) -> Any:
    """Whether the answer to a request that was done is kept."""
    return request_id != U0 and session.last_request_id - request_id < (U1 << np.uint64(session.run))


@kernel
def repeat_answer(state: Tables, session: Record, request_id: Any, outcome: Record) -> None:
    """Fill an outcome with the kept answer to a request, as it was sent first."""
    answer = answer_of(state, session, request_id)
    outcome.status = answer.status
    outcome.event_kind = answer.event_kind
    outcome.reason = answer.reason
    outcome.event_count = answer.event_count
    outcome.session_id = session.session_id
    outcome.request_id = request_id
    outcome.sequence = answer.sequence
    outcome.order_id = answer.order_id
    outcome.first_event = answer.first_event
    outcome.cum_lots = answer.cum_lots
    outcome.leaves_lots = answer.leaves_lots


@inlined
def run_for(answers: Any) -> Any:
    """Return the number of the runs for a session that asks for so many answers: log2 of the length."""
    wanted = np.int64(answers) if answers != 0 else np.int64(DEFAULT_ANSWERS)
    run = np.int64(0)
    while (1 << run) < wanted:
        run += 1
    return min(run, np.int64(RUN_LENGTHS - 1))


@kernel
def answers_missing(state: Tables, run: Any) -> Any:
    """Return how many records `state.answers` must have beyond those in runs before take_run; 0 if it has them."""
    length = np.int64(1) << run
    if state.runs[run] != NIL or np.int64(state.core[0].answers_top) + length <= len(state.answers):
        return np.uint32(0)
    return np.uint32(length)


@kernel
def take_run(state: Tables, session: Record, run: Any) -> None:
    """Give a session a run. There is one: answers_missing has returned 0."""
    core = state.core[0]
    session.run = np.uint8(run)
    core.kept_answers += U1 << np.uint64(run)
    session.answers = state.runs[run]
    if session.answers != NIL:
        # A free run names the next one in the request id of its first record.
        state.runs[run] = np.uint32(state.answers[session.answers].request_id)
    else:
        session.answers = core.answers_top
        core.answers_top = np.uint32(core.answers_top + (1 << run))


@kernel
def return_run(state: Tables, session: Record) -> None:
    """Free the run of a session that ends."""
    state.core[0].kept_answers -= U1 << np.uint64(session.run)
    state.answers[session.answers].request_id = np.uint64(state.runs[session.run])
    state.runs[session.run] = session.answers
