//! Between libp2p's names and ours: a peer id names any key, a node id only an Ed25519 key.

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use omnimesh_protocol::{Identity, NodeId};

/// The peer id of a node.
pub fn peer_id(node: &NodeId) -> PeerId {
    PeerId::from_bytes(&node.to_peer_id_bytes()).expect("an identity multihash of 36 bytes is a peer id")
}

/// The node behind a peer id; `None` if its key is not Ed25519: such a peer can gossip, but is no node.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    let multihash: &libp2p::multihash::Multihash<64> = peer.as_ref();
    // Code 0 (identity), then the key in protobuf: the prefix that `NodeId` expects.
    let mut bytes = [0; 38];
    let digest = multihash.digest();
    if multihash.code() != 0 || digest.len() != 36 {
        return None;
    }
    bytes[1] = 36;
    bytes[2..].copy_from_slice(digest);
    NodeId::from_peer_id_bytes(&bytes)
}

/// The libp2p key pair of an identity.
pub fn keypair(identity: &Identity) -> Keypair {
    let mut seed = identity.seed();
    Keypair::ed25519_from_bytes(&mut seed[..]).expect("any 32 bytes are an Ed25519 seed")
}

/// The peer that an address ends in (`…/p2p/12D3KooW…`), if it names one.
pub fn peer_of_address(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The address without the peer at its end.
pub fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if peer_of_address(&address).is_some() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_and_node_ids_convert_both_ways() {
        for seed in 0..50 {
            let identity = Identity::from_seed(&[seed; 32]);
            let peer = peer_id(&identity.id());
            assert_eq!(keypair(&identity).public().to_peer_id(), peer);
            assert_eq!(node_id(&peer), Some(identity.id()));
            assert_eq!(peer.to_string(), identity.id().to_string());
        }
    }

    #[test]
    fn other_peer_ids_are_no_nodes() {
        // A SHA-256 multihash, as RSA keys have.
        let peer: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
        assert_eq!(node_id(&peer), None);
        // Identity multihashes of random bytes and of the wrong length.
        assert_eq!(node_id(&PeerId::random()), None);
    }

    #[test]
    fn the_peer_of_an_address_is_its_last_part() {
        let peer = peer_id(&Identity::from_seed(&[1; 32]).id());
        let bare: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let full = bare.clone().with(Protocol::P2p(peer));
        assert_eq!(peer_of_address(&full), Some(peer));
        assert_eq!(peer_of_address(&bare), None);
        assert_eq!(without_peer(full), bare);
        assert_eq!(without_peer(bare.clone()), bare);
    }
}
