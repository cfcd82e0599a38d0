"""The hashes of `featuregen.hash64` over all texts of an Arrow array at once: uint64 arithmetic by classes of length.

The same two ports, see NOTICE; the pure Python ones are the normative text that this is tested against.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featuregen.hash64 import CROSS_KEY, K0, K1, K2, MURMUR, STD_SEED

Hashes = NDArray[np.uint64]
_Places = NDArray[np.int64]
_K0, _K1, _K2, _MURMUR = (np.uint64(k) for k in (K0, K1, K2, MURMUR))


def hash_texts(name: str, texts: pa.Array) -> Hashes:
    """Returns the hash of every text, by the name that it has in a spec; a null hashes like an empty text."""
    memory = _Memory(texts)
    return _farm64(memory) if name == "farm64" else _std64(memory)


def cross(parts: Sequence[Hashes]) -> Hashes:
    """Returns the mix of several hashes of each row, equal to `featuregen.hash64.cross`."""
    result = np.full(len(parts[0]), CROSS_KEY, np.uint64)
    for part in parts:
        result = result ^ _MURMUR ^ _shift_mix(part * _MURMUR) * _MURMUR
        result = _shift_mix(_shift_mix(result * _MURMUR) * _MURMUR)
    return result


class _Memory:
    """The bytes of the texts, read as little-endian words at any place.

    Views of stride 1 read words that are not aligned. Eight bytes are appended, so that a word that begins in the last
    text ends inside.
    """

    def __init__(self, texts: pa.Array) -> None:
        data = texts.buffers()[2]
        offsets = np.frombuffer(texts.buffers()[1] or bytes(4), np.int32)[texts.offset : texts.offset + len(texts) + 1]
        first, last = (int(offsets[0]), int(offsets[-1])) if len(texts) else (0, 0)
        content = np.frombuffer(data or b"", np.uint8)[first:last]
        self._bytes = np.concatenate((content, np.zeros(8, np.uint8)))
        self.start = offsets[: len(texts)].astype(np.int64) - first
        self.length = np.diff(offsets).astype(np.int64) if len(texts) else np.zeros(0, np.int64)
        size = len(self._bytes)
        self._u32 = np.ndarray((size - 3,), "<u4", self._bytes, strides=(1,))
        self._u64 = np.ndarray((size - 7,), "<u8", self._bytes, strides=(1,))

    def u8(self, at: _Places) -> Hashes:
        return self._bytes[at].astype(np.uint64)

    def u32(self, at: _Places) -> Hashes:
        return self._u32[at].astype(np.uint64)

    def u64(self, at: _Places) -> Hashes:
        return self._u64[at].astype(np.uint64)


def _rotate(value: Hashes, shift: int) -> Hashes:
    return (value >> np.uint64(shift)) | (value << np.uint64(64 - shift))


def _shift_mix(value: Hashes) -> Hashes:
    return value ^ (value >> np.uint64(47))


def _hash16(u: Hashes, v: Hashes, multiplier: Hashes) -> Hashes:
    a = _shift_mix((u ^ v) * multiplier)
    return _shift_mix((v ^ a) * multiplier) * multiplier


def _farm64(memory: _Memory) -> Hashes:
    result = np.full(len(memory.length), K2, np.uint64)
    for least, most, hash_class in (
        (1, 3, _farm_1_to_3),
        (4, 7, _farm_4_to_7),
        (8, 16, _farm_8_to_16),
        (17, 32, _farm_17_to_32),
        (33, 64, _farm_33_to_64),
        (65, None, _farm_long),
    ):
        of_class = memory.length >= least
        if most is not None:
            of_class &= memory.length <= most
        chosen = np.flatnonzero(of_class)
        if len(chosen):
            result[chosen] = hash_class(memory, memory.start[chosen], memory.length[chosen])
    return result


def _multiplier(n: _Places) -> Hashes:
    return _K2 + n.astype(np.uint64) * np.uint64(2)


def _farm_1_to_3(memory: _Memory, at: _Places, n: _Places) -> Hashes:
    y = memory.u8(at) + (memory.u8(at + (n >> 1)) << np.uint64(8))
    z = n.astype(np.uint64) + (memory.u8(at + n - 1) << np.uint64(2))
    return _shift_mix(y * _K2 ^ z * _K0) * _K2


def _farm_4_to_7(memory: _Memory, at: _Places, n: _Places) -> Hashes:
    low = n.astype(np.uint64) + (memory.u32(at) << np.uint64(3))
    return _hash16(low, memory.u32(at + n - 4), _multiplier(n))


def _farm_8_to_16(memory: _Memory, at: _Places, n: _Places) -> Hashes:
    multiplier = _multiplier(n)
    a, b = memory.u64(at) + _K2, memory.u64(at + n - 8)
    c = _rotate(b, 37) * multiplier + a
    d = (_rotate(a, 25) + b) * multiplier
    return _hash16(c, d, multiplier)


def _farm_17_to_32(memory: _Memory, at: _Places, n: _Places) -> Hashes:
    multiplier = _multiplier(n)
    a, b = memory.u64(at) * _K1, memory.u64(at + 8)
    c, d = memory.u64(at + n - 8) * multiplier, memory.u64(at + n - 16) * _K2
    u = _rotate(a + b, 43) + _rotate(c, 30) + d
    return _hash16(u, a + _rotate(b + _K2, 18) + c, multiplier)


def _farm_33_to_64(memory: _Memory, at: _Places, n: _Places) -> Hashes:
    multiplier = _multiplier(n)
    a, b = memory.u64(at) * _K2, memory.u64(at + 8)
    c, d = memory.u64(at + n - 8) * multiplier, memory.u64(at + n - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _hash16(y, a + _rotate(b + _K2, 18) + c, multiplier)
    e, f = memory.u64(at + 16) * multiplier, memory.u64(at + 24)
    g, h = (y + memory.u64(at + n - 32)) * multiplier, (z + memory.u64(at + n - 24)) * multiplier
    u = _rotate(e + f, 43) + _rotate(g, 30) + h
    return _hash16(u, e + _rotate(f + a, 18) + g, multiplier)


def _weak32(memory: _Memory, at: _Places, a: Hashes, b: Hashes) -> tuple[Hashes, Hashes]:
    w, x, y, z = (memory.u64(at + 8 * i) for i in range(4))
    a = a + w
    b = _rotate(b + a + z, 21)
    c = a
    a = a + x + y
    b = b + _rotate(a, 44)
    return a + z, b + c


def _farm_long(memory: _Memory, at: _Places, n: _Places) -> Hashes:
    """Texts of more than 64 bytes: block by block, over the texts that still have one."""
    order = np.argsort(-n, kind="stable")
    at, n = at[order], n[order]
    blocks = (n - 1) // 64
    y0 = (81 * K1 + 113) % 2**64
    z0 = np.full(1, (y0 * K2 + 113) % 2**64, np.uint64)
    y = np.full(len(n), y0, np.uint64)
    z = np.repeat(_shift_mix(z0) * _K2, len(n))
    v0, v1, w0, w1 = (np.zeros(len(n), np.uint64) for _ in range(4))
    x = np.uint64(81 * K2 % 2**64) + memory.u64(at)
    for block in range(int(blocks.max())):
        live = slice(0, int(np.searchsorted(-blocks, -block)))  # the longest come first
        state = _farm_block(memory, at[live] + 64 * block, [part[live] for part in (x, y, z, v0, v1, w0, w1)])
        for part, new in zip((x, y, z, v0, v1, w0, w1), state, strict=True):
            part[live] = new
    multiplier = _K1 + ((z & np.uint64(0xFF)) << np.uint64(1))
    tail = at + n - 64
    w0 = w0 + ((n - 1) & 63).astype(np.uint64)
    v0 = v0 + w0
    w0 = w0 + v0
    x = _rotate(x + y + v0 + memory.u64(tail + 8), 37) * multiplier
    y = _rotate(y + v1 + memory.u64(tail + 48), 42) * multiplier
    x = x ^ w1 * np.uint64(9)
    y = y + v0 * np.uint64(9) + memory.u64(tail + 40)
    z = _rotate(z + w0, 33) * multiplier
    v0, v1 = _weak32(memory, tail, v1 * multiplier, x + w0)
    w0, w1 = _weak32(memory, tail + 32, z + w1, y + memory.u64(tail + 16))
    z, x = x, z
    low = _hash16(v0, w0, multiplier) + _shift_mix(y) * _K0 + z
    result = np.empty_like(low)
    result[order] = _hash16(low, _hash16(v1, w1, multiplier) + x, multiplier)
    return result


def _farm_block(memory: _Memory, at: _Places, state: list[Hashes]) -> tuple[Hashes, ...]:
    x, y, z, v0, v1, w0, w1 = state
    x = _rotate(x + y + v0 + memory.u64(at + 8), 37) * _K1
    y = _rotate(y + v1 + memory.u64(at + 48), 42) * _K1
    x = x ^ w1
    y = y + v0 + memory.u64(at + 40)
    z = _rotate(z + w0, 33) * _K1
    v0, v1 = _weak32(memory, at, v1 * _K1, x + w0)
    w0, w1 = _weak32(memory, at + 32, z + w1, y + memory.u64(at + 16))
    return z, y, x, v0, v1, w0, w1


def _std64(memory: _Memory) -> Hashes:
    n = memory.length
    h = np.uint64(STD_SEED) ^ n.astype(np.uint64) * _MURMUR
    words = n >> 3
    for word in range(int(words.max(initial=0))):
        live = np.flatnonzero(words > word)
        k = _shift_mix(memory.u64(memory.start[live] + 8 * word) * _MURMUR)
        h[live] = (h[live] ^ k * _MURMUR) * _MURMUR
    rest = np.flatnonzero(n & 7)
    unused = (np.uint64(8) - (n[rest] & 7).astype(np.uint64)) * np.uint64(8)  # bits of the word behind the text
    last = memory.u64(memory.start[rest] + 8 * words[rest]) << unused >> unused
    h[rest] = (h[rest] ^ last) * _MURMUR
    return _shift_mix(_shift_mix(h) * _MURMUR)
