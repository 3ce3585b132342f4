"""Cut the bytes of many connections into frames, and put frames behind their lengths, in compiled code.

A frame on a stream stands behind its length, a u32 that does not count itself. `cut_frames` copies the frames of the
spans of an arena (smrx/links/bulk_kernels.py) to where order entry reads them, each at a multiple of ALIGNMENT;
`pack_answers` does the reverse. Called through compiled_entry.py, by order_links.py.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import Array, kernel
from smrx.links.bulk_kernels import END, START
from smrx.node import frame_block
from smrx.node.frame_block import ALIGNMENT, SENDER, SIZE

LENGTH_BYTES: Final = 4
_FRAME_START: Final = frame_block.START

# Numbers of a cutter. The first span to cut; set by cut_frames: the first one that is not cut to its end, and the span
# with a frame that is too large, -1 for none.
FIRST: Final = 0
NEXT: Final = 1
TOO_LARGE: Final = 2
NUMBERS: Final = 3


@kernel
def _length_at(data: Array, at: int) -> Any:
    length = 0
    for place in range(LENGTH_BYTES):
        length |= int(data[at + place]) << (8 * place)
    return length


@kernel
def cut_frames(numbers: Array, arena: Array, spans: Array, data: Array, rows: Array, max_bytes: int) -> Any:
    """Cut spans until no row or no data is left; return the number of frames.

    START of a span becomes the first byte that is left of it. rows: those of a FrameBlock; the place of a sender is
    that of its span among those from FIRST on. It ends at a frame above `max_bytes`.
    """
    count = 0
    used = 0
    numbers[TOO_LARGE] = -1
    first = numbers[FIRST]
    for span in range(first, len(spans)):
        at = spans[span, START]
        end = spans[span, END]
        while end - at >= LENGTH_BYTES:
            size = _length_at(arena, at)
            if size > max_bytes:
                numbers[TOO_LARGE] = span
                spans[span, START] = end
                numbers[NEXT] = span + 1
                return count
            if end - at - LENGTH_BYTES < size:
                break
            if count == len(rows) or used + size > len(data):
                spans[span, START] = at
                numbers[NEXT] = span
                return count
            at += LENGTH_BYTES
            data[used : used + size] = arena[at : at + size]
            rows[count, _FRAME_START] = used
            rows[count, SIZE] = size
            rows[count, SENDER] = span - first
            used += (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
            at += size
            count += 1
        spans[span, START] = at
    numbers[NEXT] = len(spans)
    return count


@kernel
def pack_answers(data: Array, rows: Array, packed: Array, ends: Array) -> None:
    """Write each frame of an AnswerBlock behind its length; ends: where the frames of each sender end."""
    to = 0
    row = 0
    for sender in range(len(ends)):
        while row < len(rows) and rows[row, SENDER] == sender:
            size = rows[row, SIZE]
            start = rows[row, _FRAME_START]
            for place in range(LENGTH_BYTES):
                packed[to + place] = (size >> (8 * place)) & 0xFF
            to += LENGTH_BYTES
            packed[to : to + size] = data[start : start + size]
            to += size
            row += 1
        ends[sender] = to
