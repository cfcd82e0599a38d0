"""The hashes of `featuregen.hash64` as numba kernels over raw text: about 300 M short texts a second on one core."""

from typing import Any

import numpy as np

from featuregen.hash64 import CROSS_KEY, K0, K1, K2, MURMUR, STD_SEED
from featuregen.kernels.memory import jit, load_u8, load_u32, load_u64

U = np.uint64
_K0, _K1, _K2, _M = U(K0), U(K1), U(K2), U(MURMUR)
_SEED, _CROSS = U(STD_SEED), U(CROSS_KEY)
_47, _BYTE, _WORD, _ALL = U(47), U(0xFF), U(0xFFFFFFFF), U(0xFFFFFFFFFFFFFFFF)
_18, _21, _25, _30, _33, _37, _42, _43, _44 = U(18), U(21), U(25), U(30), U(33), U(37), U(42), U(43), U(44)
_0, _1, _2, _3, _8, _9, _64, _81, _113 = U(0), U(1), U(2), U(3), U(8), U(9), U(64), U(81), U(113)


@jit
def _rotate(value: Any, shift: Any) -> Any:
    return (value >> shift) | (value << (_64 - shift))


@jit
def _hash16(u: Any, v: Any, multiplier: Any) -> Any:
    a = (u ^ v) * multiplier
    a ^= a >> _47
    b = (v ^ a) * multiplier
    b ^= b >> _47
    return b * multiplier


@jit
def _weak32(at: int, a: Any, b: Any) -> Any:
    w, x, y, z = load_u64(at), load_u64(at + 8), load_u64(at + 16), load_u64(at + 24)
    a = a + w
    b = _rotate(b + a + z, _21)
    c = a
    a = a + x + y
    b = b + _rotate(a, _44)
    return a + z, b + c


@jit
def farm64(text: int, n: int) -> Any:
    """FarmHash Fingerprint64 of `n` bytes at an address."""
    size = U(n)
    multiplier = _K2 + size * _2
    if n <= 16:
        if n >= 8:
            a, b = load_u64(text) + _K2, load_u64(text + n - 8)
            return _hash16(_rotate(b, _37) * multiplier + a, (_rotate(a, _25) + b) * multiplier, multiplier)
        if n >= 4:
            return _hash16(size + (load_u32(text) << _3), load_u32(text + n - 4), multiplier)
        if n > 0:
            y = (load_u8(text) + (load_u8(text + (n >> 1)) << _8)) & _WORD
            z = (size + (load_u8(text + n - 1) << _2)) & _WORD
            mixed = (y * _K2) ^ (z * _K0)
            return (mixed ^ (mixed >> _47)) * _K2
        return _K2
    if n <= 32:
        a, b = load_u64(text) * _K1, load_u64(text + 8)
        c, d = load_u64(text + n - 8) * multiplier, load_u64(text + n - 16) * _K2
        return _hash16(_rotate(a + b, _43) + _rotate(c, _30) + d, a + _rotate(b + _K2, _18) + c, multiplier)
    if n <= 64:
        a, b = load_u64(text) * _K2, load_u64(text + 8)
        c, d = load_u64(text + n - 8) * multiplier, load_u64(text + n - 16) * _K2
        y = _rotate(a + b, _43) + _rotate(c, _30) + d
        z = _hash16(y, a + _rotate(b + _K2, _18) + c, multiplier)
        e, f = load_u64(text + 16) * multiplier, load_u64(text + 24)
        g, h = (y + load_u64(text + n - 32)) * multiplier, (z + load_u64(text + n - 24)) * multiplier
        return _hash16(_rotate(e + f, _43) + _rotate(g, _30) + h, e + _rotate(f + a, _18) + g, multiplier)
    return _farm_long(text, n)


@jit
def word_of(text: int, size: int) -> Any:
    """The first 8 bytes of a text of 1 byte or more, the first as the lowest; 0 behind its end."""
    return load_u64(text) & (_ALL >> U(64 - 8 * min(size, 8)))


@jit
def join_words(head: Any, size: int, text: int, count: int) -> Any:
    """A text of 1 to 7 bytes, whose word is `head`, and one of `count` more, 16 together at most, as two words.

    What is behind the second text in memory is read, too.
    """
    low = word_of(text, count)
    high = load_u64(text + 8) & ((_ALL >> _1) >> U(63 - 8 * max(count - 8, 0)))
    return head | (low << U(8 * size)), (low >> U(64 - 8 * size)) | (high << U(8 * size))


@jit
def farm64_words(low: Any, high: Any, n: int) -> Any:
    """`farm64` of 4 to 16 bytes that are in registers: the first as the lowest of `low`."""
    size = U(n)
    multiplier = _K2 + size * _2
    if n >= 8:
        behind = U(8 * (n - 8))
        last = high if n == 16 else (low >> behind) | ((high << _1) << (U(63) - behind))
        a = low + _K2
        return _hash16(_rotate(last, _37) * multiplier + a, (_rotate(a, _25) + last) * multiplier, multiplier)
    return _hash16(size + ((low & _WORD) << _3), (low >> U(8 * (n - 4))) & _WORD, multiplier)


@jit
def _farm_long(text: int, n: int) -> Any:
    y = _81 * _K1 + _113
    z = y * _K2 + _113
    z = (z ^ (z >> _47)) * _K2
    v0, v1, w0, w1 = _0, _0, _0, _0
    x = _81 * _K2 + load_u64(text)
    at, end = text, text + ((n - 1) // 64) * 64
    while at != end:
        x = _rotate(x + y + v0 + load_u64(at + 8), _37) * _K1
        y = _rotate(y + v1 + load_u64(at + 48), _42) * _K1
        x ^= w1
        y += v0 + load_u64(at + 40)
        z = _rotate(z + w0, _33) * _K1
        v0, v1 = _weak32(at, v1 * _K1, x + w0)
        w0, w1 = _weak32(at + 32, z + w1, y + load_u64(at + 16))
        z, x = x, z
        at += 64
    multiplier = _K1 + ((z & _BYTE) << _1)
    at = text + n - 64
    w0 += U((n - 1) & 63)
    v0 += w0
    w0 += v0
    x = _rotate(x + y + v0 + load_u64(at + 8), _37) * multiplier
    y = _rotate(y + v1 + load_u64(at + 48), _42) * multiplier
    x ^= w1 * _9
    y += v0 * _9 + load_u64(at + 40)
    z = _rotate(z + w0, _33) * multiplier
    v0, v1 = _weak32(at, v1 * multiplier, x + w0)
    w0, w1 = _weak32(at + 32, z + w1, y + load_u64(at + 16))
    z, x = x, z
    low = _hash16(v0, w0, multiplier) + (y ^ (y >> _47)) * _K0 + z
    return _hash16(low, _hash16(v1, w1, multiplier) + x, multiplier)


@jit
def std64(text: int, n: int) -> Any:
    """libstdc++'s std::hash<std::string> of `n` bytes at an address."""
    h = _SEED ^ (U(n) * _M)
    whole = n & ~7
    for at in range(0, whole, 8):
        k = load_u64(text + at) * _M
        k = (k ^ (k >> _47)) * _M
        h = (h ^ k) * _M
    if n & 7:
        k = _0
        for at in range(n - 1, whole - 1, -1):
            k = (k << _8) | load_u8(text + at)
        h = (h ^ k) * _M
    h = (h ^ (h >> _47)) * _M
    return h ^ (h >> _47)


@jit
def hash_text(std: int, text: int, n: int) -> Any:
    """The plan's hash: 0 is farm64, 1 is std64."""
    if std == 0:
        return farm64(text, n)
    return std64(text, n)


@jit
def cross_start() -> Any:
    """First value of a chain of crosses."""
    return _CROSS


@jit
def fingerprint_cat(a: Any, b: Any) -> Any:
    """TensorFlow's FingerprintCat64."""
    mixed = b * _M
    result = (a ^ _M) ^ ((mixed ^ (mixed >> _47)) * _M)
    result *= _M
    result = (result ^ (result >> _47)) * _M
    return result ^ (result >> _47)
