//! Duplicate identity: one key in two places at once.
//!
//! Two hosts with one key (a copied data directory, or a stolen key) end up as an equivocation, which is proved; before
//! that, the second connection shows. A host has several addresses with good reason, so only two of one family and of
//! different networks are told of, and none of them loopback or link-local; it is a hint for people and costs no trust.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::super::places::network_of;

/// Addresses that are remembered of a connected key.
const ADDRESSES_MAX: usize = 8;

/// From where a key is connected; an address as often as it is.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts(SmallVec<[IpAddr; 1]>);

impl Whereabouts {
    /// A connection began; the other place, if it is in two.
    pub fn on_connected(&mut self, ip: IpAddr) -> Option<IpAddr> {
        let other = self.0.iter().copied().find(|other| are_two_places(*other, ip));
        if self.0.len() < ADDRESSES_MAX {
            self.0.push(ip);
        }
        other
    }

    /// A connection ended.
    pub fn on_disconnected(&mut self, ip: IpAddr) {
        if let Some(at) = self.0.iter().position(|known| *known == ip) {
            self.0.swap_remove(at);
        }
    }

    /// One of them.
    pub fn any(&self) -> Option<IpAddr> {
        self.0.first().copied()
    }
}

fn are_two_places(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    let is_public = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_private(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unique_local(),
    };
    one.is_ipv4() == other.is_ipv4()
        && is_public(one)
        && is_public(other)
        && network_of(one) != network_of(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_networks_are_two_places_and_two_families_are_not() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut places = Whereabouts::default();
        for text in ["203.0.113.7", "203.0.113.8", "2001:db8::1", "127.0.0.1", "10.0.0.1", "169.254.1.1"] {
            assert_eq!(places.on_connected(ip(text)), None, "{text}");
        }
        assert_eq!(places.on_connected(ip("198.51.100.1")), Some(ip("203.0.113.7")));
        for text in ["203.0.113.7", "203.0.113.8", "198.51.100.1"] {
            places.on_disconnected(ip(text));
        }
        assert_eq!(places.on_connected(ip("192.0.2.1")), None);
        for _ in 0..100 {
            places.on_connected(ip("192.0.2.1"));
        }
        assert_eq!(places.0.len(), ADDRESSES_MAX);
    }
}
