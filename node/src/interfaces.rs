//! How busy the machine's network interfaces are.

use std::fs;
use std::path::Path;
use std::time::Instant;

use sysinfo::Networks;

/// What an interface is taken to carry whose speed the system does not tell, as those of virtual machines: 1 Gbit/s.
const SPEED_ASSUMED_MBIT: u32 = 1000;

/// Counts what goes through them from look to look.
#[derive(Debug)]
pub(crate) struct Interfaces {
    networks: Networks,
    /// When the last look was.
    last: Option<Instant>,
}

impl Interfaces {
    /// Before the first look.
    pub(crate) fn new() -> Self {
        Interfaces { networks: Networks::new(), last: None }
    }

    /// Traffic of the busiest since the last look, of its speed; loopback is none. Not a number at the first look, and where
    /// there is no interface.
    pub(crate) fn in_use(&mut self) -> f64 {
        self.networks.refresh(true);
        let now = Instant::now();
        let Some(seconds) = self.last.replace(now).map(|last| now.duration_since(last).as_secs_f64()) else {
            return f64::NAN;
        };
        let interfaces = self.networks.iter().filter(|(name, _)| *name != "lo");
        interfaces
            .map(|(name, data)| {
                let speed = speed_mbit(Path::new("/sys/class/net"), name).unwrap_or(SPEED_ASSUMED_MBIT);
                // A link carries its speed in both directions at once.
                share(data.received().max(data.transmitted()), seconds, speed)
            })
            .fold(f64::NAN, f64::max)
    }
}

/// What the kernel says of an interface in `root`; it says -1, or nothing, where it does not know.
fn speed_mbit(root: &Path, name: &str) -> Option<u32> {
    let text = fs::read_to_string(root.join(name).join("speed")).ok()?;
    text.trim().parse().ok().filter(|speed| *speed > 0)
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(bytes: u64, seconds: f64, speed_mbit: u32) -> f64 {
    bytes as f64 * 8.0 / 1e6 / (seconds.max(1e-3) * f64::from(speed_mbit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_link_is_one() {
        // 125,000,000 bytes in a second are 1 Gbit/s.
        assert!((share(125_000_000, 1.0, 1000) - 1.0).abs() < 1e-9);
        assert!((share(125_000_000, 10.0, 10_000) - 0.01).abs() < 1e-9);
    }

    #[test]
    fn speeds_are_what_the_kernel_says_if_it_knows() {
        let root = tempfile::tempdir().unwrap();
        let speed = |name: &str, text: &str| {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("speed"), text).unwrap();
            speed_mbit(root.path(), name)
        };
        assert_eq!(speed("veth0", "10000\n"), Some(10_000));
        assert_eq!(speed("eth0", "-1\n"), None);
        assert_eq!(speed("eth1", "0\n"), None);
        assert_eq!(speed_mbit(root.path(), "wlan0"), None);
    }

    #[test]
    fn the_first_look_knows_no_rate() {
        let mut interfaces = Interfaces::new();
        assert!(interfaces.in_use().is_nan());
        let second = interfaces.in_use();
        assert!(second.is_nan() || second >= 0.0, "{second}");
    }
}
