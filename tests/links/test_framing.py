"""Frames survive any cut of the byte stream, and a buffer grows with what arrives, not with what is announced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.links.framing import KEPT_BYTES, NATIVE, SOUP_BIN_TCP, FrameTooLarge, Framing, ReceiveBuffer, SendQueue

FRAMINGS = st.sampled_from([NATIVE, SOUP_BIN_TCP])
FRAMES = st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 60_000).map(bytes)), max_size=30)


def stream_of(framing: Framing, frames: list[bytes]) -> bytes:
    queue = SendQueue(framing, 1 << 30)
    for frame in frames:
        assert queue.append(frame[:3], frame[3:])
    sent = b""
    while queue.size:
        step = b"".join(queue.take())
        sent += step
        queue.sent(len(step))
    return sent


@given(FRAMINGS, FRAMES, st.data())
def test_frames_arrive_as_sent_however_the_stream_is_cut(
    framing: Framing, frames: list[bytes], data: st.DataObject
) -> None:
    stream = memoryview(stream_of(framing, frames))
    buffer, found = ReceiveBuffer(framing, 60_000), []
    while len(stream):
        space = buffer.space()
        step = min(len(space), data.draw(st.integers(1, 70_000)), len(stream))
        space[:step] = stream[:step]
        stream = stream[step:]
        buffer.received(step)
        while buffer.has_frame:
            found += [bytes(frame) for frame in buffer.frames(data.draw(st.integers(1, 5)))]
    assert found == frames


@given(FRAMES, st.data())
def test_a_queue_sends_every_byte_once_whatever_the_kernel_takes(frames: list[bytes], data: st.DataObject) -> None:
    queue, sent = SendQueue(NATIVE, 1 << 30), b""
    for frame in frames:
        queue.append(frame)
    while queue.size:
        step = b"".join(queue.take())
        taken = data.draw(st.integers(0, len(step)))
        sent += step[:taken]
        queue.sent(taken)
        if not taken:
            break
    assert stream_of(NATIVE, frames).startswith(sent)


def test_frames_stay_valid_until_the_next_receive() -> None:
    buffer = ReceiveBuffer(NATIVE, 100)
    stream = stream_of(NATIVE, [b"first", b"second"])
    buffer.space()[: len(stream)] = stream
    buffer.received(len(stream))
    first, second = buffer.frames(10)
    assert (bytes(first), bytes(second)) == (b"first", b"second")


def test_a_frame_above_the_bound_is_refused_when_it_is_announced() -> None:
    buffer = ReceiveBuffer(NATIVE, 100)
    buffer.space()[:4] = (101).to_bytes(4, "little")
    buffer.received(4)
    assert buffer.has_frame
    with pytest.raises(FrameTooLarge, match="at most 100 bytes, found one of 101"):
        buffer.frames(1)


def test_an_announced_frame_takes_no_memory_before_it_arrives() -> None:
    buffer = ReceiveBuffer(NATIVE, 1 << 30)
    buffer.space()[:4] = (1 << 30).to_bytes(4, "little")
    buffer.received(4)
    assert len(buffer.space()) < 8192


def test_a_buffer_is_given_back_after_a_large_frame() -> None:
    buffer = ReceiveBuffer(NATIVE, 1 << 20)
    stream = memoryview(stream_of(NATIVE, [bytes(1 << 20)]))
    while len(stream):
        space = buffer.space()
        step = min(len(space), len(stream))
        space[:step] = stream[:step]
        stream = stream[step:]
        buffer.received(step)
    assert len(buffer.frames(1)[0]) == 1 << 20
    assert len(buffer.space()) == KEPT_BYTES


def test_a_full_queue_refuses_a_frame_and_an_empty_one_takes_any() -> None:
    queue = SendQueue(NATIVE, 100)
    assert queue.append(bytes(500))
    assert not queue.append(b"x")
    queue.sent(504)
    assert queue.append(b"x")
    assert queue.append(bytes(90))
    assert not queue.append(bytes(90))
