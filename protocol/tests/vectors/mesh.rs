//! `mesh.json`, `member_proofs.json`, `invites.json`

use data_encoding::BASE64URL_NOPAD;
use omnimesh_protocol::mesh::{Invite, InviteError, MeshSecret};
use omnimesh_protocol::{Identity, Mesh, NodeId};
use serde::{Deserialize, Serialize};

use crate::{Hex, cbor, secret, settle};

#[derive(Serialize, Deserialize)]
struct MeshCase {
    name: String,
    /// The secret follows from the name.
    open: bool,
    secret: Hex,
    mesh_id: Option<Hex>,
}

#[test]
fn meshes() {
    let longest = "n".repeat(64);
    let mut cases = Vec::new();
    for name in ["kitchen", "a", "Mesh-2.b_c", "küche", "厨房", longest.as_str()] {
        for (open, secret) in [(false, secret()), (true, MeshSecret::open(name))] {
            let mesh = Mesh::new(name, secret.clone()).unwrap();
            let mesh_id = Some(mesh.id().as_bytes().into());
            cases.push(MeshCase { name: name.to_owned(), open, secret: secret.as_bytes().into(), mesh_id });
        }
    }
    let (too_long, too_long_in_bytes) = ("n".repeat(65), "ü".repeat(33));
    for name in ["", "a b", "a/b", "a\n", "ku\u{308}che", &too_long, &too_long_in_bytes] {
        let secret = secret().as_bytes().into();
        cases.push(MeshCase { name: name.to_owned(), open: false, secret, mesh_id: None });
    }
    let description = "Name and secret give the mesh id. Where `open` is true, the secret follows from the name. \
                       Where `mesh_id` is null, the name is not allowed.";
    for case in settle("mesh.json", description, cases) {
        if case.open {
            let derived = blake3::derive_key("omnimesh 2026-11 open mesh secret", case.name.as_bytes());
            assert_eq!(case.secret, derived.into());
        }
        let mesh = Mesh::new(&case.name, MeshSecret::from_bytes(case.secret.array()));
        let Some(expected) = case.mesh_id else {
            mesh.unwrap_err();
            continue;
        };
        let material = [&case.secret.0, case.name.as_bytes()].concat();
        let derived = blake3::derive_key("omnimesh 2026-11 mesh id", &material);
        assert_eq!(expected, derived[..16].into());
        assert_eq!(expected, mesh.unwrap().id().as_bytes().into());
    }
}

#[derive(Serialize, Deserialize)]
struct ProofCase {
    secret: Hex,
    prover: Hex,
    verifier: Hex,
    proof: Hex,
}

#[test]
fn member_proofs() {
    let ids = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).id());
    let case = |secret: MeshSecret, [prover, verifier]: [NodeId; 2]| ProofCase {
        secret: secret.as_bytes().into(),
        prover: prover.as_bytes().into(),
        verifier: verifier.as_bytes().into(),
        proof: Mesh::new("kitchen", secret).unwrap().member_proof(&prover, &verifier).into(),
    };
    let [a, b] = ids;
    let cases = vec![
        case(secret(), [a, b]),
        case(secret(), [b, a]),
        case(secret(), [a, a]),
        case(MeshSecret::open("demo"), [a, b]),
    ];
    let description = "What `prover` shows `verifier` (public keys) to prove that it knows the mesh secret. It does \
                       not depend on the mesh's name.";
    for case in settle("member_proofs.json", description, cases) {
        let key = blake3::derive_key("omnimesh 2026-11 member proof", &case.secret.0);
        let both = [case.prover.0.clone(), case.verifier.0.clone()].concat();
        assert_eq!(case.proof, blake3::keyed_hash(&key, &both).as_bytes().into());
        let mesh = Mesh::new("any", MeshSecret::from_bytes(case.secret.array())).unwrap();
        let [prover, verifier] = [&case.prover, &case.verifier].map(|id| NodeId::from_bytes(id.array()));
        assert!(mesh.verify_member(&prover, &verifier, &case.proof.array()));
    }
}

#[derive(Serialize, Deserialize)]
struct InviteCase {
    comment: String,
    token: String,
    /// What the token says, unless it is refused.
    invite: Option<InviteFields>,
}

#[derive(Serialize, Deserialize)]
struct InviteFields {
    name: String,
    secret: Hex,
    addresses: Vec<String>,
    cbor: Hex,
}

fn invite_cbor(name: &str, secret: &MeshSecret, addresses: &[String]) -> Vec<u8> {
    let addresses: Vec<_> = addresses.iter().map(cbor::text).collect();
    cbor::array(&[cbor::text(name), cbor::bytes(secret.as_bytes()), cbor::array(&addresses)])
}

fn token(cbor: &[u8], check: &[u8]) -> String {
    format!("omnimesh1-{}", BASE64URL_NOPAD.encode(&[cbor, check].concat()))
}

fn good_invite(comment: &str, name: &str, addresses: &[String]) -> InviteCase {
    let mesh = Mesh::new(name, secret()).unwrap();
    let cbor = invite_cbor(name, &secret(), addresses);
    let invite = Invite { mesh, bootstrap: addresses.to_vec() };
    InviteCase {
        comment: comment.to_owned(),
        token: invite.encode(),
        invite: Some(InviteFields {
            name: name.to_owned(),
            secret: secret().as_bytes().into(),
            addresses: invite.bootstrap,
            cbor: cbor.into(),
        }),
    }
}

fn bad_invite(comment: &str, token: String) -> InviteCase {
    InviteCase { comment: comment.to_owned(), token, invite: None }
}

fn checked(cbor: &[u8]) -> String {
    token(cbor, &blake3::hash(cbor).as_bytes()[..4])
}

#[test]
fn invites() {
    let peer = Identity::from_seed(&[1; 32]).id();
    let address = format!("/ip4/192.0.2.7/tcp/7411/p2p/{peer}");
    let two = [address.clone(), format!("/dns/mesh.example/udp/7411/quic-v1/p2p/{peer}")];
    let cbor = invite_cbor("kitchen", &secret(), std::slice::from_ref(&address));
    let many = vec!["/a".to_owned(); 17];
    let long = ["x".repeat(257)];
    let good = checked(&cbor);
    let cases = vec![
        good_invite("no address", "kitchen", &[]),
        good_invite("one address", "kitchen", std::slice::from_ref(&address)),
        good_invite("two addresses, and a name beyond ASCII", "küche", &two),
        bad_invite("no prefix", good["omnimesh1-".len()..].to_owned()),
        bad_invite("prefix in capitals", good.replacen("omnimesh1-", "OMNIMESH1-", 1)),
        bad_invite("the check is wrong", token(&cbor, &[0; 4])),
        bad_invite("the check is missing", token(&cbor, &[])),
        bad_invite("cut by one character", good[..good.len() - 1].to_owned()),
        bad_invite("base64 padding", good.clone() + "="),
        bad_invite("a character of plain base64", good.replacen("omnimesh1-", "omnimesh1-/", 1)),
        bad_invite("bytes after the CBOR", checked(&[&cbor[..], &[0]].concat())),
        bad_invite("a secret of 31 bytes", {
            let items = [cbor::text("kitchen"), cbor::bytes([7; 31]), cbor::array(&[])];
            checked(&cbor::array(&items))
        }),
        bad_invite("a name that is not allowed", checked(&invite_cbor("a b", &secret(), &[]))),
        bad_invite("17 addresses", checked(&invite_cbor("kitchen", &secret(), &many))),
        bad_invite("an address of 257 bytes", checked(&invite_cbor("kitchen", &secret(), &long))),
    ];
    let description = "Invites: the token, and what it says; `invite` is null where the token must be refused. \
                       `cbor` is what the token holds before the 4 bytes of check.";
    for case in settle("invites.json", description, cases) {
        let read = Invite::decode(&case.token);
        let Some(expected) = case.invite else {
            let error = read.expect_err(&case.comment);
            assert!(matches!(
                error,
                InviteError::NotAnInvite | InviteError::Damaged(_) | InviteError::Name(_)
            ));
            continue;
        };
        let read = read.unwrap();
        assert_eq!(read.mesh.name(), expected.name);
        assert_eq!(expected.secret, read.mesh.secret().as_bytes().into());
        assert_eq!(read.bootstrap, expected.addresses);
        assert_eq!(case.token, checked(&expected.cbor.0));
        assert_eq!(read.encode(), case.token);
    }
}
