//! Why a dial failed, in a word and in a sentence.

use std::error::Error as StdError;
use std::io;

use libp2p::Multiaddr;
use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::PeerCondition;
use libp2p::swarm::{ConnectionDenied, DialError};
use libp2p::{connection_limits, dns};

use super::event::DialFailure;
use super::left_alone::IsLeftAlone;
use super::peer::without_peer;

/// An error's text is cut to this many bytes: parts of it come from the other side.
const REASON_BYTES_MAX: usize = 512;

/// Says what `error` means.
pub(super) fn explain(error: &DialError) -> (DialFailure, String) {
    match error {
        DialError::LocalPeerId { address } => {
            (DialFailure::Myself, format!("this node itself is at {address}"))
        }
        DialError::NoAddresses => (DialFailure::NoAddress, "no address is known".into()),
        DialError::DialPeerConditionFalse(PeerCondition::Always) | DialError::Aborted => {
            (DialFailure::Handshake, "the dial was cut short".into())
        }
        DialError::DialPeerConditionFalse(_) => {
            (DialFailure::AlreadyConnected, "connected or being dialled already".into())
        }
        DialError::WrongPeerId { obtained, address } => {
            (DialFailure::WrongPeer { obtained: *obtained }, format!("at {address} is {obtained} instead"))
        }
        DialError::Denied { cause } => denied(cause),
        DialError::Transport(errors) => {
            let kinds = errors.iter().map(|(_, error)| transport_kind(error));
            let text = errors.iter().map(|(address, error)| match error {
                TransportError::MultiaddrNotSupported(_) => format!("{address}: no such transport here"),
                TransportError::Other(error) => format!("{address}: {}", chain(error)),
            });
            let reason = text.collect::<Vec<_>>().join("; ");
            (kinds.min_by_key(|kind| rank(*kind)).unwrap_or(DialFailure::NoAddress), cut(&reason))
        }
    }
}

/// The addresses still to be tried: whoever else answers at one of them, before the peer does, ends the dial of all.
/// So do this machine's own nodes, where the peer tells loopback addresses or those of a container network.
pub(super) fn others(error: &DialError, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let DialError::WrongPeerId { address, .. } = error else { return Vec::new() };
    let wrong = without_peer(address.clone());
    let is_other = |address: &&Multiaddr| without_peer((*address).clone()) != wrong;
    let others: Vec<Multiaddr> = addresses.iter().filter(is_other).cloned().collect();
    // An address that is not among them would be tried for ever.
    if others.len() < addresses.len() { others } else { Vec::new() }
}

/// With several addresses the failure that got farthest tells most.
fn rank(kind: DialFailure) -> u8 {
    match kind {
        DialFailure::WrongPeer { .. } | DialFailure::Myself => 0,
        DialFailure::Handshake => 1,
        DialFailure::Refused => 2,
        DialFailure::Timeout => 3,
        DialFailure::Unreachable => 4,
        DialFailure::Unresolved => 5,
        _ => 6,
    }
}

fn denied(cause: &ConnectionDenied) -> (DialFailure, String) {
    if let Some(exceeded) = cause.downcast_ref::<connection_limits::Exceeded>() {
        return (DialFailure::LimitReached, exceeded.to_string());
    }
    if let Some(left_alone) = cause.downcast_ref::<IsLeftAlone>() {
        return (DialFailure::Blocked, left_alone.to_string());
    }
    (DialFailure::LimitReached, chain(cause))
}

fn transport_kind(error: &TransportError<io::Error>) -> DialFailure {
    let error = match error {
        TransportError::MultiaddrNotSupported(_) => return DialFailure::AddressUnsupported,
        TransportError::Other(error) => error,
    };
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => return DialFailure::Refused,
        Some(io::ErrorKind::TimedOut) => return DialFailure::Timeout,
        Some(
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable,
        ) => return DialFailure::Unreachable,
        _ => {}
    }
    if find::<dns::ResolveError>(error).is_some() {
        return DialFailure::Unresolved;
    }
    // The rest has no kind to be told by, only its words; a test sees each of them.
    let text = chain(error).to_ascii_lowercase();
    if text.contains("unsupported resolved address") {
        DialFailure::AddressUnsupported
    } else if text.contains("timed out") || text.contains("timeout") {
        DialFailure::Timeout
    } else if text.contains("unreachable") {
        // The memory transport, where nobody listens.
        DialFailure::Refused
    } else {
        DialFailure::Handshake
    }
}

/// The kind of the operating system's error within `error`, however deep.
pub(super) fn io_kind(error: &io::Error) -> Option<io::ErrorKind> {
    if error.raw_os_error().is_some() || error.kind() != io::ErrorKind::Other {
        return Some(error.kind());
    }
    let mut next = error.get_ref().map(|inner| inner as &(dyn StdError + 'static));
    while let Some(error) = next {
        next = error.source();
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io_kind(io);
        }
    }
    None
}

/// The first error of type `T` in the chain.
fn find<T: StdError + 'static>(error: &io::Error) -> Option<&T> {
    let mut next = error.get_ref().map(|inner| inner as &(dyn StdError + 'static));
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The error and its causes, each said once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if text.is_empty() {
            text = more;
        } else if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    cut(&text)
}

/// Cuts what may come from the other side to a decent length, and drops what would steer a terminal.
fn cut(text: &str) -> String {
    clean(text, REASON_BYTES_MAX)
}

/// The first `bytes_max` bytes of `text`, without control characters.
pub(super) fn clean(text: &str, bytes_max: usize) -> String {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_in_the_depth() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(io_kind(&refused()), Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(
            io_kind(&io::Error::other(io::Error::other(refused()))),
            Some(io::ErrorKind::ConnectionRefused)
        );
        assert_eq!(io_kind(&io::Error::other("text")), None);
        let nested = TransportError::Other(io::Error::other(io::Error::other(refused())));
        assert_eq!(transport_kind(&nested), DialFailure::Refused);
    }

    #[test]
    fn where_another_answered_is_not_tried_again() {
        let peer = libp2p::PeerId::random();
        let [a, b, c] =
            [1, 2, 3].map(|port| format!("/ip4/127.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap());
        let wrong = |address: &Multiaddr| DialError::WrongPeerId {
            obtained: libp2p::PeerId::random(),
            address: address.clone().with_p2p(peer).unwrap(),
        };
        assert_eq!(others(&wrong(&a), &[b.clone(), a.clone()]), std::slice::from_ref(&b));
        assert_eq!(others(&wrong(&a), std::slice::from_ref(&a)), []);
        assert_eq!(others(&wrong(&c), &[a.clone(), b.clone()]), []);
        assert_eq!(others(&DialError::Aborted, &[a, b]), []);
    }

    #[test]
    fn text_from_outside_is_cut_and_cleaned() {
        assert_eq!(clean("a\u{1b}[31mb\n", 100), "a[31mb");
        assert_eq!(clean("ääää", 3), "ä");
        assert_eq!(clean("", 3), "");
    }
}
