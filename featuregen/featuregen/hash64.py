"""The portable 64-bit string hashes, in pure Python: the normative text that the numba kernels are tested against.

Both are functions of bytes alone, the same on every machine, so an id may be stored for years. A port of FarmHash's
Fingerprint64 (MIT, Copyright 2014 Google, Inc.) and of MurmurHash64A (Austin Appleby, public domain); see NOTICE.
"""

from collections.abc import Sequence

MASK = (1 << 64) - 1
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
MURMUR = 0xC6A4A7935BD1E995
STD_SEED = 0xC70F6907
CROSS_KEY = 0xDECAFCAFFE
"""First value of a chain of `fingerprint_cat`: the default key of TensorFlow's hashed crosses."""


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _rotate(value: int, shift: int) -> int:
    return ((value >> shift) | (value << (64 - shift))) & MASK


def _shift_mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash16(u: int, v: int, multiplier: int) -> int:
    a = _shift_mix(((u ^ v) * multiplier) & MASK)
    b = _shift_mix(((v ^ a) * multiplier) & MASK)
    return (b * multiplier) & MASK


def _weak32(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_u64(data, at + 8 * i) for i in range(4))
    a = (a + w) & MASK
    b = _rotate((b + a + z) & MASK, 21)
    c = a
    a = (a + x + y) & MASK
    b = (b + _rotate(a, 44)) & MASK
    return (a + z) & MASK, (b + c) & MASK


def farm64(data: bytes) -> int:
    """Returns FarmHash Fingerprint64, equal to the hash of `tf.strings.to_hash_bucket_fast`."""
    n = len(data)
    if n <= 16:
        return _farm_0_to_16(data, n)
    multiplier = (K2 + n * 2) & MASK
    if n <= 32:
        a, b = (_u64(data, 0) * K1) & MASK, _u64(data, 8)
        c, d = (_u64(data, n - 8) * multiplier) & MASK, (_u64(data, n - 16) * K2) & MASK
        u = (_rotate((a + b) & MASK, 43) + _rotate(c, 30) + d) & MASK
        return _hash16(u, (a + _rotate((b + K2) & MASK, 18) + c) & MASK, multiplier)
    if n <= 64:
        a, b = (_u64(data, 0) * K2) & MASK, _u64(data, 8)
        c, d = (_u64(data, n - 8) * multiplier) & MASK, (_u64(data, n - 16) * K2) & MASK
        y = (_rotate((a + b) & MASK, 43) + _rotate(c, 30) + d) & MASK
        z = _hash16(y, (a + _rotate((b + K2) & MASK, 18) + c) & MASK, multiplier)
        e, f = (_u64(data, 16) * multiplier) & MASK, _u64(data, 24)
        g, h = ((y + _u64(data, n - 32)) * multiplier) & MASK, ((z + _u64(data, n - 24)) * multiplier) & MASK
        u = (_rotate((e + f) & MASK, 43) + _rotate(g, 30) + h) & MASK
        return _hash16(u, (e + _rotate((f + a) & MASK, 18) + g) & MASK, multiplier)
    return _farm_long(data, n)


def _farm_0_to_16(data: bytes, n: int) -> int:
    multiplier = (K2 + n * 2) & MASK
    if n >= 8:
        a, b = (_u64(data, 0) + K2) & MASK, _u64(data, n - 8)
        c = (_rotate(b, 37) * multiplier + a) & MASK
        d = ((_rotate(a, 25) + b) * multiplier) & MASK
        return _hash16(c, d, multiplier)
    if n >= 4:
        return _hash16((n + (_u32(data, 0) << 3)) & MASK, _u32(data, n - 4), multiplier)
    if n > 0:
        y = (data[0] + (data[n >> 1] << 8)) & 0xFFFFFFFF
        z = (n + (data[n - 1] << 2)) & 0xFFFFFFFF
        return (_shift_mix(((y * K2) & MASK) ^ ((z * K0) & MASK)) * K2) & MASK
    return K2


def _farm_long(data: bytes, n: int) -> int:
    x, y = 81, (81 * K1 + 113) & MASK
    z = (_shift_mix((y * K2 + 113) & MASK) * K2) & MASK
    v0 = v1 = w0 = w1 = 0
    x = (x * K2 + _u64(data, 0)) & MASK
    end, at = ((n - 1) // 64) * 64, 0
    while at != end:
        x = (_rotate((x + y + v0 + _u64(data, at + 8)) & MASK, 37) * K1) & MASK
        y = (_rotate((y + v1 + _u64(data, at + 48)) & MASK, 42) * K1) & MASK
        x ^= w1
        y = (y + v0 + _u64(data, at + 40)) & MASK
        z = (_rotate((z + w0) & MASK, 33) * K1) & MASK
        v0, v1 = _weak32(data, at, (v1 * K1) & MASK, (x + w0) & MASK)
        w0, w1 = _weak32(data, at + 32, (z + w1) & MASK, (y + _u64(data, at + 16)) & MASK)
        z, x = x, z
        at += 64
    multiplier = (K1 + ((z & 0xFF) << 1)) & MASK
    at = n - 64
    w0 = (w0 + ((n - 1) & 63)) & MASK
    v0 = (v0 + w0) & MASK
    w0 = (w0 + v0) & MASK
    x = (_rotate((x + y + v0 + _u64(data, at + 8)) & MASK, 37) * multiplier) & MASK
    y = (_rotate((y + v1 + _u64(data, at + 48)) & MASK, 42) * multiplier) & MASK
    x ^= (w1 * 9) & MASK
    y = (y + v0 * 9 + _u64(data, at + 40)) & MASK
    z = (_rotate((z + w0) & MASK, 33) * multiplier) & MASK
    v0, v1 = _weak32(data, at, (v1 * multiplier) & MASK, (x + w0) & MASK)
    w0, w1 = _weak32(data, at + 32, (z + w1) & MASK, (y + _u64(data, at + 16)) & MASK)
    z, x = x, z
    low = (_hash16(v0, w0, multiplier) + _shift_mix(y) * K0 + z) & MASK
    return _hash16(low, (_hash16(v1, w1, multiplier) + x) & MASK, multiplier)


def std64(data: bytes) -> int:
    """Returns libstdc++'s `std::hash<std::string>` on 64-bit little endian, which is pyFG's default: MurmurHash64A."""
    n = len(data)
    h = (STD_SEED ^ (n * MURMUR)) & MASK
    whole = n & ~7
    for at in range(0, whole, 8):
        k = _shift_mix((_u64(data, at) * MURMUR) & MASK)
        h = ((h ^ ((k * MURMUR) & MASK)) * MURMUR) & MASK
    if n & 7:
        h = ((h ^ int.from_bytes(data[whole:], "little")) * MURMUR) & MASK
    return _shift_mix((_shift_mix(h) * MURMUR) & MASK)


def fingerprint_cat(a: int, b: int) -> int:
    """Returns the mix of two 64-bit hashes that TensorFlow calls FingerprintCat64."""
    result = a ^ MURMUR
    result ^= (_shift_mix((b * MURMUR) & MASK) * MURMUR) & MASK
    result = (_shift_mix((result * MURMUR) & MASK) * MURMUR) & MASK
    return _shift_mix(result)


def cross(hashes: Sequence[int]) -> int:
    """Returns the mix of several hashes; of `farm64` hashes it equals `tf.sparse.cross_hashed` with its default key."""
    result = CROSS_KEY
    for value in hashes:
        result = fingerprint_cat(result, value)
    return result


HASHES = {"farm64": farm64, "std64": std64}
"""Hash functions by the name they have in a spec."""
