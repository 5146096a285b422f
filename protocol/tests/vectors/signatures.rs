//! `signatures.json`

use omnimesh_protocol::identity::PublicKey;
use omnimesh_protocol::{Identity, NodeId};
use serde::{Deserialize, Serialize};

use crate::{Hex, curve, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    comment: String,
    public_key: Hex,
    message: Hex,
    signature: Hex,
    result: String,
}

const MESSAGE: &[u8] = b"signed by node 1";

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |comment: &str, key: &[u8; 32], message: &[u8], signature: [u8; 64], result: &str| {
        cases.push(Case {
            comment: comment.to_owned(),
            public_key: key.into(),
            message: message.into(),
            signature: signature.into(),
            result: result.to_owned(),
        });
    };
    let identity = Identity::from_seed(&[1; 32]);
    let id = identity.id();
    let key = id.as_bytes();
    let good = identity.sign(MESSAGE);
    add("good", key, MESSAGE, good, "valid");
    add("good, of an empty message", key, b"", identity.sign(b""), "valid");
    add("another message", key, b"signed by node 2", good, "bad_signature");
    add("another key", Identity::from_seed(&[2; 32]).id().as_bytes(), MESSAGE, good, "bad_signature");
    let mut flipped = good;
    flipped[63] ^= 0x80;
    add("the highest bit of S flipped", key, MESSAGE, flipped, "bad_signature");
    add("zeros", key, MESSAGE, [0; 64], "bad_signature");
    add("S + L in place of S", key, MESSAGE, curve::with_s_above_order(&good), "bad_signature");

    let identity_point = curve::small_order_keys()[0];
    let small_r = curve::signature_with_identity_as_r(1, &identity_point, MESSAGE);
    add("R of small order; the ordinary check takes it", key, MESSAGE, small_r, "bad_signature");
    let y_above = curve::small_order_keys()[9];
    let small_r = curve::signature_with_identity_as_r(1, &y_above, MESSAGE);
    add("R of small order in an encoding with y above the prime", key, MESSAGE, small_r, "bad_signature");
    let mixed_r = curve::signature_with_mixed_r(1, MESSAGE);
    add(
        "R with a part of order 8; a check with the cofactor takes it",
        key,
        MESSAGE,
        mixed_r,
        "bad_signature",
    );
    let mut off_curve = good;
    off_curve[..32].copy_from_slice(&curve::key_off_the_curve());
    add("R is no point", key, MESSAGE, off_curve, "bad_signature");

    let mixed = curve::mixed_key(1);
    let signature = curve::signature_of_mixed_key(1, MESSAGE, true);
    add(
        "a key with a part of order 8, and k mod L a multiple of 8; a check that does not reduce k refuses it",
        &mixed,
        MESSAGE,
        signature,
        "valid",
    );
    let signature = curve::signature_of_mixed_key(1, MESSAGE, false);
    add(
        "a key with a part of order 8, and k a multiple of 8 before it is reduced, not after; a check with the cofactor takes it",
        &mixed,
        MESSAGE,
        signature,
        "bad_signature",
    );
    for key in curve::small_order_keys() {
        add("a key of small order", &key, MESSAGE, good, "bad_key");
    }
    add("a key that is no point", &curve::key_off_the_curve(), MESSAGE, good, "bad_key");
    let above = curve::key_with_y_above_prime();
    add(
        "a key with y above the prime: a point, so only the signature is bad",
        &above,
        MESSAGE,
        good,
        "bad_signature",
    );
    cases
}

#[test]
fn signatures() {
    let description = "Ed25519 under the strict rules: `result` is `valid`, `bad_key` or `bad_signature`. Here the \
                       message is signed as it is; in an envelope it is `omnimesh/1/envelope` and the digest.";
    for case in settle("signatures.json", description, cases()) {
        let (key, signature) = (case.public_key.array(), case.signature.array());
        let result = match PublicKey::new(&NodeId::from_bytes(key)) {
            None => "bad_key",
            Some(key) if key.verify(&case.message.0, &signature) => "valid",
            Some(_) => "bad_signature",
        };
        assert_eq!(result, case.result, "{}", case.comment);
        let by_the_document = curve::verify(&key, &case.message.0, &signature).err().unwrap_or("valid");
        assert_eq!(by_the_document, case.result, "{}", case.comment);
    }
}

#[test]
fn the_ordinary_check_would_take_what_the_strict_one_refuses() {
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};
    let key = VerifyingKey::from_bytes(Identity::from_seed(&[1; 32]).id().as_bytes()).unwrap();
    let forged = curve::signature_with_identity_as_r(1, &curve::small_order_keys()[0], MESSAGE);
    key.verify(MESSAGE, &Signature::from_bytes(&forged)).unwrap();
}
