//! Keys and signatures that no honest signer makes, and the strict check as `docs/protocol.md` words it.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha512};

/// The order of the base point, least significant byte first.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The check, step by step; `Err` is the reason code.
pub(crate) fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), &'static str> {
    let is_small = |point: &EdwardsPoint| point.mul_by_cofactor() == EdwardsPoint::identity();
    let point = CompressedEdwardsY(*key).decompress().filter(|point| !is_small(point)).ok_or("bad_key")?;
    let bad = "bad_signature";
    let (r, s) = signature.split_at(32);
    let r: [u8; 32] = r.try_into().unwrap();
    let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(s.try_into().unwrap())).ok_or(bad)?;
    CompressedEdwardsY(r).decompress().filter(|point| !is_small(point)).ok_or(bad)?;
    let (k, _) = challenge(&r, key, message);
    let expected = ED25519_BASEPOINT_POINT * s - point * k;
    if expected.compress().to_bytes() == r { Ok(()) } else { Err(bad) }
}

/// SHA-512 of R, A and the message as a number, reduced; and its lowest three bits before that.
fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> (Scalar, u8) {
    let hash: [u8; 64] =
        Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize().into();
    (Scalar::from_bytes_mod_order_wide(&hash), hash[0] & 7)
}

fn secret_scalar(seed: u8) -> Scalar {
    SigningKey::from_bytes(&[seed; 32]).to_scalar()
}

fn join(r: &[u8; 32], s: &[u8; 32]) -> [u8; 64] {
    [r.as_slice(), s].concat().try_into().unwrap()
}

/// The same signature with S + L in place of S.
pub(crate) fn with_s_above_order(signature: &[u8; 64]) -> [u8; 64] {
    let mut out = *signature;
    let mut carry = 0;
    for (byte, order) in out[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    out
}

/// Satisfies the equation of the ordinary check with the identity as R, in an encoding of the caller's choice.
pub(crate) fn signature_with_identity_as_r(seed: u8, r: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let key = SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes();
    let (k, _) = challenge(r, &key, message);
    join(r, (k * secret_scalar(seed)).as_bytes())
}

/// A signature whose R has a part of small order: only a check with the cofactor takes it.
pub(crate) fn signature_with_mixed_r(seed: u8, message: &[u8]) -> [u8; 64] {
    let key = SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes();
    let nonce = Scalar::from(1_000_003_u64);
    let r = (ED25519_BASEPOINT_POINT * nonce + EIGHT_TORSION[1]).compress().to_bytes();
    let (k, _) = challenge(&r, &key, message);
    join(&r, (nonce + k * secret_scalar(seed)).as_bytes())
}

/// A public key with a part of order 8.
pub(crate) fn mixed_key(seed: u8) -> [u8; 32] {
    (ED25519_BASEPOINT_POINT * secret_scalar(seed) + EIGHT_TORSION[1]).compress().to_bytes()
}

/// A signature under [`mixed_key`] that is valid exactly if `valid`. Where it is valid, a check that forgets to
/// reduce the challenge refuses it; where it is not, that check takes it, as does one with the cofactor.
pub(crate) fn signature_of_mixed_key(seed: u8, message: &[u8], valid: bool) -> [u8; 64] {
    let key = mixed_key(seed);
    for n in 1_u64.. {
        let nonce = Scalar::from(n);
        let r = (ED25519_BASEPOINT_POINT * nonce).compress().to_bytes();
        let (k, unreduced) = challenge(&r, &key, message);
        let reduced = k.as_bytes()[0] & 7;
        if (reduced == 0) == valid && (unreduced == 0) != valid {
            return join(&r, (nonce + k * secret_scalar(seed)).as_bytes());
        }
    }
    unreachable!("one in nine will do")
}

/// The field prime 2^255 - 19 plus `n`, least significant byte first; for `n` below 19.
fn prime_plus(n: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    (bytes[0], bytes[31]) = (0xed + n, 0x7f);
    bytes
}

/// Every encoding of a point of small order that decodes: 8 proper ones and 6 others.
pub(crate) fn small_order_keys() -> Vec<[u8; 32]> {
    let mut keys: Vec<_> = EIGHT_TORSION.iter().map(|point| point.compress().to_bytes()).collect();
    let mut more = vec![prime_plus(0), prime_plus(1)];
    let (mut one, mut minus_one) = ([0; 32], [0xff; 32]);
    (one[0], minus_one[0], minus_one[31]) = (1, 0xec, 0x7f);
    more.extend([one, minus_one, prime_plus(0), prime_plus(1)].map(|mut key| {
        key[31] |= 0x80;
        key
    }));
    keys.extend(more);
    keys
}

/// The first y from 2 on that is of no point.
pub(crate) fn key_off_the_curve() -> [u8; 32] {
    let encodings = (2_u8..).map(|y| std::array::from_fn(|i| if i == 0 { y } else { 0 }));
    encodings.into_iter().find(|bytes| CompressedEdwardsY(*bytes).decompress().is_none()).unwrap()
}

/// A point of large order whose y is written with the prime added.
pub(crate) fn key_with_y_above_prime() -> [u8; 32] {
    let is_large =
        |key: &[u8; 32]| CompressedEdwardsY(*key).decompress().is_some_and(|point| !point.is_small_order());
    (2..19).map(prime_plus).find(is_large).unwrap()
}
