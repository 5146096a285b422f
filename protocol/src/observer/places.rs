//! Places: new keys are cheap, so how many come from one address and from one network is limited.
//!
//! A quarantine is by key, and whoever is shut out can come back with another one. What it cannot make at will is
//! addresses. So each address, and each network around it (a /24 of IPv4, a /48 of IPv6; one IPv6 address is a /64, as
//! one host has all of it), may show so many keys that this node has not seen before, and an address whose keys end
//! in quarantine has fewer left. The limits are token buckets. Loopback is exempt: there the keys are one operator's.
//!
//! The table is bounded; under pressure the network that was seen least recently is forgotten, and may show as many
//! keys as a new one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;

use lru::LruCache;

use super::statistics::{Bucket, Rate};
use crate::id::NodeId;
use crate::time::Time;

/// Limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// New keys of one address. Default 16 at once, then one a minute (guess: a household, or a small cluster
    /// behind one address).
    pub address: Rate,
    /// New keys of one network. Default 128 at once, then eight a minute (guess).
    pub network: Rate,
    /// New keys that a quarantine takes from its address. Default 4.
    pub quarantine_costs: u32,
    /// Addresses and networks that are remembered. Default 8,192, some 100 bytes each.
    pub places_max: NonZeroUsize,
    /// Keys that are remembered as known. Default 8,192.
    pub keys_max: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        let count = NonZeroUsize::new(8_192).expect("not zero");
        Config {
            address: Rate::once_in(60, 16),
            network: Rate { every_ns: 7_500_000_000, burst: 128 },
            quarantine_costs: 4,
            places_max: count,
            keys_max: count,
        }
    }
}

/// Why a new key was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyKeys {
    /// Of its address.
    #[error("too many new keys come from this address (`observer.address_keys`)")]
    OfAddress,
    /// Of its network.
    #[error("too many new keys come from this network (`observer.network_keys`)")]
    OfNetwork,
}

/// Counts new keys by place.
#[derive(Debug)]
pub struct Places {
    config: Config,
    buckets: LruCache<IpAddr, Bucket>,
    networks: LruCache<IpAddr, Bucket>,
    known: LruCache<NodeId, ()>,
}

impl Places {
    /// Nobody has come yet.
    pub fn new(config: Config) -> Self {
        let sized = |max| {
            let mut table = LruCache::unbounded();
            table.resize(max);
            table
        };
        let mut known = LruCache::unbounded();
        known.resize(config.keys_max);
        Places { buckets: sized(config.places_max), networks: sized(config.places_max), known, config }
    }

    /// Whether a key that connects from here may. A key that was let in before always may.
    ///
    /// # Errors
    /// If too many new ones came.
    pub fn admit(&mut self, now: Time, key: &NodeId, ip: IpAddr) -> Result<(), TooManyKeys> {
        let ip = host_of(ip);
        if is_exempt(ip) || self.known.get(key).is_some() {
            return Ok(());
        }
        let network = self.networks.get_or_insert_mut(network_of(ip), Bucket::default);
        // Looked at before anything is taken, so that a full network does not use up its addresses.
        let mut trial = *network;
        if !trial.take(now, &self.config.network) {
            return Err(TooManyKeys::OfNetwork);
        }
        if !self.buckets.get_or_insert_mut(ip, Bucket::default).take(now, &self.config.address) {
            return Err(TooManyKeys::OfAddress);
        }
        *network = trial;
        self.known.put(*key, ());
        Ok(())
    }

    /// A key that came from here is in quarantine: its place has shown what its keys are worth.
    pub fn on_quarantined(&mut self, now: Time, key: &NodeId, ip: Option<IpAddr>) {
        self.known.pop(key);
        let Some(ip) = ip.map(host_of).filter(|ip| !is_exempt(*ip)) else { return };
        let bucket = self.buckets.get_or_insert_mut(ip, Bucket::default);
        for _ in 0..self.config.quarantine_costs {
            bucket.take(now, &self.config.address);
        }
    }

    /// What is remembered: addresses, networks, keys.
    pub fn sizes(&self) -> [usize; 3] {
        [self.buckets.len(), self.networks.len(), self.known.len()]
    }
}

/// What counts as one host: an IPv4 address, also when it is written as IPv6, or a /64.
pub fn host_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

/// The network around a host: a /24, or a /48.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80))),
    }
}

/// True of addresses that are not counted.
pub fn is_exempt(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(bytes)
    }

    fn admitted(
        places: &mut Places,
        ms: u64,
        keys: std::ops::Range<u32>,
        ip: impl Fn(u32) -> String,
    ) -> usize {
        let now = Time::from_millis(ms);
        keys.filter(|n| places.admit(now, &key(*n), ip(*n).parse().unwrap()).is_ok()).count()
    }

    #[test]
    fn an_address_a_network_and_an_ipv6_host_have_so_many_new_keys() {
        let mut places = Places::new(Config::default());
        assert_eq!(admitted(&mut places, 1, 0..1_000, |_| "203.0.113.7".into()), 16);
        assert_eq!(admitted(&mut places, 1, 0..16, |_| "203.0.113.7".into()), 16, "known ones come back");
        assert_eq!(admitted(&mut places, 1, 1_000..2_000, |n| format!("203.0.113.{}", n % 256)), 112);
        assert_eq!(admitted(&mut places, 1, 3_000..4_000, |n| format!("2001:db8:1:1::{n:x}")), 16);
        assert_eq!(admitted(&mut places, 1, 5_000..6_000, |n| format!("2001:db8:1:{n:x}::1")), 112);
        assert_eq!(admitted(&mut places, 1, 7_000..8_000, |_| "127.0.0.1".into()), 1_000);
        assert_eq!(admitted(&mut places, 120_001, 9_000..9_100, |_| "198.51.100.1".into()), 16);
        assert_eq!(
            admitted(&mut places, 180_001, 9_200..9_300, |_| "198.51.100.1".into()),
            1,
            "one a minute"
        );
    }

    #[test]
    fn a_quarantine_costs_its_address() {
        let mut places = Places::new(Config::default());
        assert_eq!(admitted(&mut places, 1, 0..4, |_| "203.0.113.7".into()), 4);
        let ip = "::ffff:203.0.113.7".parse().unwrap();
        places.on_quarantined(Time::from_millis(2), &key(0), Some(ip));
        assert_eq!(admitted(&mut places, 3, 10..1_000, |_| "203.0.113.7".into()), 8);
    }

    #[test]
    fn any_number_of_places_is_bounded() {
        let mut places = Places::new(Config::default());
        for n in 0..100_000_u32 {
            let _ = places.admit(Time::from_millis(1), &key(n), IpAddr::V4(Ipv4Addr::from_bits(n << 4)));
        }
        assert!(places.sizes().iter().all(|size| *size <= 8_192), "{:?}", places.sizes());
    }
}
