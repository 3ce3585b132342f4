"""XXH3_64 with seed 0 and the default secret, over 64-bit words, for kernels.

The algorithm is that of the xxHash specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md, "XXH3"), without
the lengths that no record has: a length here is a whole number of words, at least two. It is written out, not linked
from the xxhash package, because the hash of four words in registers is two multiplications, and because it is then the
same on every platform. tests/engine/kernels/test_xxh3.py compares every length with the package.
"""

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from smrx.engine.kernels.jit import (
    INTERPRETED,
    LOW32,
    U32,
    Array,
    inlined,
    kernel,
    multiply_fold,
)
from smrx.engine.kernels.numba_tables import base_of

# Numba is typed in parts, and differently from version to version: as Any it is the same in all.
_code: Any = cgutils

_SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _secret_words(offset: int, count: int) -> Any:
    """Return words of the secret from a byte offset on."""
    return np.frombuffer(_SECRET, dtype="<u8", count=count, offset=offset).copy()


#: The secret's words at offsets 0, 8, 16 ...; KEYS is the same as an array, for indexes that are not constant.
S: Final = tuple(_secret_words(0, 24))
KEYS: Final = _secret_words(0, 24)
#: Words at the offsets that the specification gives for particular uses.
BITFLIP_LOW: Final = S[3] ^ S[4]
BITFLIP_HIGH: Final = S[5] ^ S[6]
LAST_KEYS: Final = _secret_words(121, 8)
MERGE: Final = tuple(_secret_words(11, 8))

PRIME32_1: Final = np.uint64(0x9E3779B1)
PRIME64_1: Final = np.uint64(0x9E3779B185EBCA87)
PRIME_MX1: Final = np.uint64(0x165667919E3779F9)
#: The accumulators' first values: XXH_PRIME32_3, 64_1, 64_2, 64_3, 64_4, 32_2, 64_5, 32_1.
FIRST: Final = tuple(
    np.uint64(prime)
    for prime in (
        0xC2B2AE3D, 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
        0x85EBCA77C2B2AE63, 0x85EBCA77, 0x27D4EB2F165667C5, 0x9E3779B1,
    )
)  # fmt: skip
BYTES_1: Final = np.uint64(0x00FF_00FF_00FF_00FF)
BYTES_2: Final = np.uint64(0x0000_FFFF_0000_FFFF)
R8: Final = np.uint64(8)
R16: Final = np.uint64(16)
R37: Final = np.uint64(37)
R47: Final = np.uint64(47)

WORDS_PER_STRIPE: Final = 8
STRIPES_PER_BLOCK: Final = 16


def _start(words: int) -> np.uint64:
    """Return the accumulator that a length starts with."""
    return np.uint64(words * 8 * int(PRIME64_1) & 0xFFFF_FFFF_FFFF_FFFF)


START: Final = tuple(_start(words) for words in range(32))
_2_WORDS: Final = np.uint64(16)


@inlined
def avalanche(value: Any) -> Any:
    value ^= value >> R37
    value *= PRIME_MX1
    return value ^ (value >> U32)


@inlined
def mix(low: Any, high: Any, key_low: Any, key_high: Any) -> Any:
    return multiply_fold(low ^ key_low, high ^ key_high)


@inlined
def byte_swapped(value: Any) -> Any:
    value = ((value >> R8) & BYTES_1) | ((value & BYTES_1) << R8)
    value = ((value >> R16) & BYTES_2) | ((value & BYTES_2) << R16)
    return (value >> U32) | (value << U32)


@inlined
def hash2(a: Any, b: Any) -> Any:
    low = a ^ BITFLIP_LOW
    high = b ^ BITFLIP_HIGH
    return avalanche(_2_WORDS + byte_swapped(low) + high + multiply_fold(low, high))


@inlined
def hash3(a: Any, b: Any, c: Any) -> Any:
    return avalanche(START[3] + mix(a, b, S[0], S[1]) + mix(b, c, S[2], S[3]))


@inlined
def hash4(a: Any, b: Any, c: Any, d: Any) -> Any:
    return avalanche(START[4] + mix(a, b, S[0], S[1]) + mix(c, d, S[2], S[3]))


@inlined
def hash5(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    inner = mix(c, d, S[4], S[5]) + mix(b, c, S[6], S[7])
    return avalanche(START[5] + inner + mix(a, b, S[0], S[1]) + mix(d, e, S[2], S[3]))


@inlined
def hash6(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    inner = mix(c, d, S[4], S[5]) + mix(c, d, S[6], S[7])
    return avalanche(START[6] + inner + mix(a, b, S[0], S[1]) + mix(e, f, S[2], S[3]))


@inlined
def hash7(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
    inner = mix(c, d, S[4], S[5]) + mix(d, e, S[6], S[7])
    return avalanche(START[7] + inner + mix(a, b, S[0], S[1]) + mix(f, g, S[2], S[3]))


@inlined
def hash8(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    inner = mix(c, d, S[4], S[5]) + mix(e, f, S[6], S[7])
    return avalanche(START[8] + inner + mix(a, b, S[0], S[1]) + mix(g, h, S[2], S[3]))


@inlined
def hash9(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> Any:
    inner = mix(c, d, S[4], S[5]) + mix(f, g, S[6], S[7]) + mix(e, f, S[8], S[9]) + mix(d, e, S[10], S[11])
    return avalanche(START[9] + inner + mix(a, b, S[0], S[1]) + mix(h, i, S[2], S[3]))


@inlined
def hash10(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any, j: Any) -> Any:
    inner = mix(c, d, S[4], S[5]) + mix(g, h, S[6], S[7]) + mix(e, f, S[8], S[9]) + mix(e, f, S[10], S[11])
    return avalanche(START[10] + inner + mix(a, b, S[0], S[1]) + mix(i, j, S[2], S[3]))


@inlined
def hash16(words: Array, at: int) -> Any:
    """Return the hash of one event: 16 words of an array."""
    total = START[16]
    total += mix(words[at], words[at + 1], S[0], S[1]) + mix(words[at + 14], words[at + 15], S[2], S[3])
    total += mix(words[at + 2], words[at + 3], S[4], S[5]) + mix(words[at + 12], words[at + 13], S[6], S[7])
    total += mix(words[at + 4], words[at + 5], S[8], S[9]) + mix(words[at + 10], words[at + 11], S[10], S[11])
    total += mix(words[at + 6], words[at + 7], S[12], S[13]) + mix(words[at + 8], words[at + 9], S[14], S[15])
    return avalanche(total)


def _stripes_interpreted(words: Array, at: int, count: int, keys: Array, sums: Any) -> Any:
    """Add stripes of eight words to the eight accumulators, each stripe with the keys one further on."""
    found = list(sums)
    for stripe in range(count):
        for lane in range(WORDS_PER_STRIPE):
            mixed = words[at + stripe * WORDS_PER_STRIPE + lane] ^ keys[stripe + lane]
            found[lane] += words[at + stripe * WORDS_PER_STRIPE + (lane ^ 1)] + (mixed & LOW32) * (mixed >> U32)
    return tuple(found)


def _stripes(_: Any, words: Any, at: Any, count: Any, keys: Any, sums: Any) -> Any:
    """The same with the eight accumulators in a vector, which LLVM does not find by itself; an intrinsic."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word, lanes = ir.IntType(64), ir.VectorType(ir.IntType(64), WORDS_PER_STRIPE)
        kinds = signature.args
        first = builder.bitcast(base_of(context, builder, kinds[0], values[0]), word.as_pointer())
        first = builder.gep(first, [values[1]])
        secret = builder.bitcast(base_of(context, builder, kinds[3], values[3]), word.as_pointer())

        def vector(pointer: Any, offset: Any) -> Any:
            place = builder.bitcast(builder.gep(pointer, [offset]), lanes.as_pointer())
            return builder.load(place, align=8)

        def constant(number: int) -> Any:
            return ir.Constant(lanes, [number] * WORDS_PER_STRIPE)

        total = ir.Constant(lanes, ir.Undefined)
        for lane in range(WORDS_PER_STRIPE):
            total = builder.insert_element(total, builder.extract_value(values[4], lane), ir.IntType(32)(lane))
        held = _code.alloca_once_value(builder, total)
        swapped = ir.Constant(ir.VectorType(ir.IntType(32), WORDS_PER_STRIPE), [at ^ 1 for at in range(8)])
        with _code.for_range(builder, values[2]) as loop:
            data = vector(first, builder.mul(loop.index, word(WORDS_PER_STRIPE)))
            mixed = builder.xor(data, vector(secret, loop.index))
            product = builder.mul(builder.and_(mixed, constant(0xFFFF_FFFF)), builder.lshr(mixed, constant(32)))
            others = builder.shuffle_vector(data, ir.Constant(lanes, ir.Undefined), swapped)
            builder.store(builder.add(builder.load(held), builder.add(product, others)), held)
        total = builder.load(held)
        found = [builder.extract_element(total, ir.IntType(32)(lane)) for lane in range(WORDS_PER_STRIPE)]
        return _code.pack_array(builder, found)

    return sums(words, types.int64, types.int64, keys, sums), generate


stripes: Any = _stripes_interpreted if INTERPRETED else intrinsic(_stripes)


@inlined
def scrambled(value: Any, key: Any) -> Any:
    return (value ^ (value >> R47) ^ key) * PRIME32_1


@kernel
def hash_long(words: Array, at: int, count: int) -> Any:
    """Return the hash of more than 30 words: eight accumulators, stripes of eight words, blocks of sixteen stripes."""
    a, b, c, d = FIRST[0], FIRST[1], FIRST[2], FIRST[3]
    e, f, g, h = FIRST[4], FIRST[5], FIRST[6], FIRST[7]
    place = at
    left = (count - 1) // WORDS_PER_STRIPE
    while True:
        now = min(left, STRIPES_PER_BLOCK)
        a, b, c, d, e, f, g, h = stripes(words, place, now, KEYS, (a, b, c, d, e, f, g, h))
        if now < STRIPES_PER_BLOCK:
            break
        a, b, c, d = scrambled(a, S[16]), scrambled(b, S[17]), scrambled(c, S[18]), scrambled(d, S[19])
        e, f, g, h = scrambled(e, S[20]), scrambled(f, S[21]), scrambled(g, S[22]), scrambled(h, S[23])
        place += now * WORDS_PER_STRIPE
        left -= now
    # The last stripe ends where the input ends and may overlap the one before.
    place = at + count - WORDS_PER_STRIPE
    a, b, c, d, e, f, g, h = stripes(words, place, 1, LAST_KEYS, (a, b, c, d, e, f, g, h))
    total = np.uint64(count * 8) * PRIME64_1
    total += mix(a, b, MERGE[0], MERGE[1]) + mix(c, d, MERGE[2], MERGE[3])
    total += mix(e, f, MERGE[4], MERGE[5]) + mix(g, h, MERGE[6], MERGE[7])
    return avalanche(total)


@inlined
def hash_events(words: Array, at: int, count: int) -> Any:
    """Return the hash of `count` events of 16 words each."""
    if count == 1:
        return hash16(words, at)
    return hash_long(words, at, count * 16)
