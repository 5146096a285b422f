"""Section 6 of docs/protocol.md, Envelopes, its part on signatures: the strict check. Checks signatures.json.

Ed25519, in Python's own arithmetic: no common library checks signatures in the way that the document wants.
Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z (RFC 8032, section 5.1.4).
"""

import hashlib

from .cases import expect, text, unhex

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def point_add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_multiply(scalar, point):
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = point_add(result, point)
        point = point_add(point, point)
        scalar >>= 1
    return result


def point_negate(point):
    return P - point[0], point[1], point[2], P - point[3]


def point_encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def point_decode(data):
    """The point, or None if there is none. A y of p or more is reduced, and x = 0 may have its sign set."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number % 2**255 % P
    x_squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x_squared, (P + 3) // 8, P)
    if (x * x - x_squared) % P != 0:
        x = x * SQRT_MINUS_1 % P
    if (x * x - x_squared) % P != 0:
        return None
    if x & 1 != sign:
        x = -x % P
    return x, y, 1, x * y % P


def small_order(point):
    x, y, z, _ = point_multiply(8, point)
    return x == 0 and y == z


BASE = point_decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def good_key(key):
    point = point_decode(key)
    return point is not None and not small_order(point)


def verify(key, message, signature):
    """`valid`, `bad_key` or `bad_signature`, by the six steps of the document."""
    if not good_key(key):
        return "bad_key"
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    r_point = point_decode(r)
    if s >= L or r_point is None or small_order(r_point):
        return "bad_signature"
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L
    expected = point_add(point_multiply(s, BASE), point_multiply(k, point_negate(point_decode(key))))
    return "valid" if point_encode(expected) == r else "bad_signature"


def check_signature(case):
    key, message, signature = (case.get(name, unhex) for name in ("public_key", "message", "signature"))
    expect("lengths", [len(key), len(signature)], [32, 64])
    expect("result", verify(key, message, signature), case.get("result", text))
