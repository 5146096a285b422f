//! The bytes of a membership packet, and the identity that SWIM speaks of.
//!
//! ```text
//! short   = node (32) ‖ generation (u64) ‖ flags (u8: bit 0 = left, the others zero)
//! id      = short ‖ number of addresses (u8, at most 8) ‖ each: length (u16, 1 to 256) ‖ UTF-8
//! member  = id ‖ incarnation (u16) ‖ state (u8: 0 alive, 1 suspect, 2 down)
//! message = tag (u8) ‖ Ping, Ack: probe (u8)
//!                    ‖ PingReq, IndirectPing, IndirectAck, ForwardedAck: short ‖ probe (u8)
//!                    ‖ Announce, Feed, Gossip, TurnUndead: nothing
//! packet  = id of the sender ‖ its incarnation (u16) ‖ short of the receiver ‖ message
//!           [‖ number of members (u16) ‖ member…]     never after Announce and TurnUndead
//! ```
//!
//! Integers are big-endian. Tags count from 0 in the order Ping, Ack, PingReq, IndirectPing, IndirectAck,
//! ForwardedAck, Announce, Feed, Gossip, TurnUndead. A packet has at most [`PACKET_BYTES_MAX`] bytes and
//! nothing after its last member. Decoding allocates no more than a small multiple of the packet's length
//! and does not recurse.

use std::sync::Arc;

use bytes::{Buf, BufMut};
use foca::{Header, Incarnation, Member, Message, State};

use crate::id::NodeId;
use crate::mesh::ADDRESS_BYTES_MAX;

/// Longest packet, in bytes; fits a frame of the control stream with room to spare.
pub const PACKET_BYTES_MAX: usize = 8192;
/// Most addresses that are kept of one node.
pub const ADDRESSES_MAX: usize = 8;

/// A member in one of its lives.
///
/// Two ids are the same life if node, generation and the mark of leaving agree; the addresses belong to
/// the life and are not compared.
#[derive(Clone, Debug)]
pub(super) struct Id {
    pub(super) node: NodeId,
    /// Counts the lives of a node; the higher one is the newer.
    pub(super) generation: u64,
    /// This life is one that ended by the node's own will. Such an id is only ever told as `Down`.
    pub(super) left: bool,
    pub(super) addresses: Arc<[String]>,
}

impl Id {
    /// An id with the first [`ADDRESSES_MAX`] of the addresses that are not empty or too long.
    pub(super) fn new(node: NodeId, generation: u64, addresses: Vec<String>) -> Self {
        Id { node, generation, left: false, addresses: bounded(addresses).into() }
    }

    /// An id that is good enough to address a node by: an Announce is taken by any life of it.
    pub(super) fn any_life(node: NodeId) -> Self {
        Id::new(node, 0, Vec::new())
    }

    /// What decides which of two lives is the newer.
    pub(super) fn life(&self) -> (u64, bool) {
        (self.generation, self.left)
    }
}

/// The addresses that are neither empty nor too long, without repetition, at most [`ADDRESSES_MAX`].
pub(crate) fn bounded(addresses: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for address in addresses {
        if kept.len() == ADDRESSES_MAX {
            break;
        }
        if (1..=ADDRESS_BYTES_MAX).contains(&address.len()) && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node && self.life() == other.life()
    }
}

impl Eq for Id {}

impl foca::Identity for Id {
    type Addr = NodeId;

    /// Always `None`: with `Some`, foca would take a new life at once whenever anybody says that we are
    /// down, so that one member that insists makes two nodes exchange packets as fast as the link allows.
    /// The wrapper takes the new life itself, at a bounded rate, and can step over a generation that
    /// others believe to be newer.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life() > adversary.life()
    }
}

/// The bytes are not a packet, or do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("the packet ends early")]
    Truncated,
    #[error("bytes after the end of the packet")]
    Trailing,
    #[error("no such message, state or flag")]
    UnknownTag,
    #[error("too many addresses, or one that is empty, too long or not UTF-8")]
    BadAddress,
    #[error("no room left in the packet")]
    Full,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn short(&mut self) -> Result<Id, WireError> {
        let node = NodeId::from_bytes(self.array()?);
        let generation = u64::from_be_bytes(self.array()?);
        let left = match self.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::UnknownTag),
        };
        Ok(Id { node, generation, left, addresses: Arc::new([]) })
    }

    fn id(&mut self) -> Result<Id, WireError> {
        let mut id = self.short()?;
        let count = usize::from(self.u8()?);
        if count > ADDRESSES_MAX {
            return Err(WireError::BadAddress);
        }
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            let len = usize::from(self.u16()?);
            if !(1..=ADDRESS_BYTES_MAX).contains(&len) {
                return Err(WireError::BadAddress);
            }
            let text = std::str::from_utf8(self.slice(len)?).map_err(|_| WireError::BadAddress)?;
            addresses.push(text.to_owned());
        }
        id.addresses = addresses.into();
        Ok(id)
    }

    fn message(&mut self) -> Result<Message<Id>, WireError> {
        Ok(match self.u8()? {
            0 => Message::Ping(self.u8()?),
            1 => Message::Ack(self.u8()?),
            2 => Message::PingReq { target: self.short()?, probe_number: self.u8()? },
            3 => Message::IndirectPing { origin: self.short()?, probe_number: self.u8()? },
            4 => Message::IndirectAck { target: self.short()?, probe_number: self.u8()? },
            5 => Message::ForwardedAck { origin: self.short()?, probe_number: self.u8()? },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::TurnUndead,
            _ => return Err(WireError::UnknownTag),
        })
    }

    fn header(&mut self) -> Result<Header<Id>, WireError> {
        Ok(Header {
            src: self.id()?,
            src_incarnation: self.u16()?,
            dst: self.short()?,
            message: self.message()?,
        })
    }

    fn member(&mut self) -> Result<Member<Id>, WireError> {
        let id = self.id()?;
        let incarnation: Incarnation = self.u16()?;
        let state = match self.u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(WireError::UnknownTag),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

fn put_short(out: &mut Vec<u8>, id: &Id) {
    out.put_slice(id.node.as_bytes());
    out.put_u64(id.generation);
    out.put_u8(u8::from(id.left));
}

fn put_id(out: &mut Vec<u8>, id: &Id) {
    put_short(out, id);
    out.put_u8(u8::try_from(id.addresses.len()).expect("an id has at most 8 addresses"));
    for address in id.addresses.iter() {
        out.put_u16(u16::try_from(address.len()).expect("an id's addresses have at most 256 bytes"));
        out.put_slice(address.as_bytes());
    }
}

fn put_message(out: &mut Vec<u8>, message: &Message<Id>) -> Result<(), WireError> {
    let (tag, id, probe) = match message {
        Message::Ping(probe) => (0, None, Some(probe)),
        Message::Ack(probe) => (1, None, Some(probe)),
        Message::PingReq { target, probe_number } => (2, Some(target), Some(probe_number)),
        Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(probe_number)),
        Message::IndirectAck { target, probe_number } => (4, Some(target), Some(probe_number)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(probe_number)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::TurnUndead => (9, None, None),
        // Custom broadcasts are not used.
        Message::Broadcast => return Err(WireError::UnknownTag),
    };
    out.put_u8(tag);
    if let Some(id) = id {
        put_short(out, id);
    }
    if let Some(probe) = probe {
        out.put_u8(*probe);
    }
    Ok(())
}

/// Writes and reads for foca.
#[derive(Debug, Default)]
pub(super) struct Codec {
    scratch: Vec<u8>,
}

impl Codec {
    /// Writes what is in the scratch buffer, or nothing if it does not fit.
    fn flush(&self, mut buf: impl BufMut) -> Result<(), WireError> {
        if buf.remaining_mut() < self.scratch.len() {
            return Err(WireError::Full);
        }
        buf.put_slice(&self.scratch);
        Ok(())
    }
}

fn read<T>(
    mut buf: impl Buf,
    f: impl for<'a> FnOnce(&mut Reader<'a>) -> Result<T, WireError>,
) -> Result<T, WireError> {
    let mut reader = Reader(buf.chunk());
    let before = reader.0.len();
    let value = f(&mut reader)?;
    let used = before - reader.0.len();
    buf.advance(used);
    Ok(value)
}

impl foca::Codec<Id> for Codec {
    type Error = WireError;

    fn encode_header(&mut self, header: &Header<Id>, buf: impl BufMut) -> Result<(), WireError> {
        self.scratch.clear();
        put_id(&mut self.scratch, &header.src);
        self.scratch.put_u16(header.src_incarnation);
        put_short(&mut self.scratch, &header.dst);
        put_message(&mut self.scratch, &header.message)?;
        self.flush(buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Id>, WireError> {
        read(buf, |reader| reader.header())
    }

    fn encode_member(&mut self, member: &Member<Id>, buf: impl BufMut) -> Result<(), WireError> {
        self.scratch.clear();
        put_id(&mut self.scratch, member.id());
        self.scratch.put_u16(member.incarnation());
        self.scratch.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        self.flush(buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Id>, WireError> {
        read(buf, |reader| reader.member())
    }
}

/// A packet, read before foca sees it.
pub(super) struct Packet<'a> {
    pub(super) header: Header<Id>,
    header_bytes: &'a [u8],
    pub(super) updates: Vec<(Member<Id>, &'a [u8])>,
}

impl<'a> Packet<'a> {
    /// Reads all of it.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let header = reader.header()?;
        let (header_bytes, _) = bytes.split_at(bytes.len() - reader.0.len());
        let mut updates = Vec::new();
        if !reader.0.is_empty() {
            if matches!(header.message, Message::Announce | Message::TurnUndead) {
                return Err(WireError::Trailing);
            }
            for _ in 0..reader.u16()? {
                let start = reader.0;
                let member = reader.member()?;
                let (member_bytes, _) = start.split_at(start.len() - reader.0.len());
                updates.push((member, member_bytes));
            }
            if !reader.0.is_empty() {
                return Err(WireError::Trailing);
            }
        }
        Ok(Packet { header, header_bytes, updates })
    }

    /// The packet with the updates that are left in it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header_bytes.to_vec();
        if !self.updates.is_empty() {
            bytes.put_u16(u16::try_from(self.updates.len()).expect("no more than were counted by a u16"));
            for (_, member_bytes) in &self.updates {
                bytes.put_slice(member_bytes);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8, addresses: &[&str]) -> Id {
        Id::new(
            NodeId::from_bytes([n; 32]),
            u64::from(n) << 40,
            addresses.iter().map(|a| (*a).into()).collect(),
        )
    }

    fn packet(message: Message<Id>, updates: &[Member<Id>]) -> Vec<u8> {
        let header =
            Header { src: id(1, &["/ip4/10.0.0.1/tcp/7411"]), src_incarnation: 7, dst: id(2, &[]), message };
        let mut bytes = Vec::new();
        Codec::default().encode_header(&header, &mut bytes).unwrap();
        if !updates.is_empty() {
            bytes.put_u16(u16::try_from(updates.len()).unwrap());
            for member in updates {
                Codec::default().encode_member(member, &mut bytes).unwrap();
            }
        }
        bytes
    }

    fn messages() -> Vec<Message<Id>> {
        let (target, origin, probe_number) = (id(3, &[]), id(4, &[]), 200);
        vec![
            Message::Ping(1),
            Message::Ack(255),
            Message::PingReq { target: target.clone(), probe_number },
            Message::IndirectPing { origin: origin.clone(), probe_number },
            Message::IndirectAck { target, probe_number },
            Message::ForwardedAck { origin, probe_number },
            Message::Feed,
            Message::Gossip,
        ]
    }

    #[test]
    fn packets_round_trip_and_every_cut_is_an_error() {
        let updates = [
            Member::new(id(5, &["/a", "/b"]), 3, State::Suspect),
            Member::new(Id { left: true, ..id(6, &[]) }, 0, State::Down),
        ];
        for message in messages() {
            let bytes = packet(message.clone(), &updates);
            let read = Packet::decode(&bytes).unwrap();
            assert_eq!(read.header.message, message);
            assert_eq!(read.header.src.addresses.as_ref(), ["/ip4/10.0.0.1/tcp/7411"]);
            assert_eq!(read.updates.iter().map(|u| u.0.clone()).collect::<Vec<_>>(), updates);
            assert!(read.updates[1].0.id().left);
            assert_eq!(read.encode(), bytes);
            let whole = packet(message, &[]).len();
            for cut in (0..bytes.len()).filter(|cut| *cut != whole) {
                assert!(Packet::decode(&bytes[..cut]).is_err(), "{cut}");
            }
            let mut long = bytes.clone();
            long.push(0);
            assert_eq!(Packet::decode(&long).err(), Some(WireError::Trailing));
        }
    }

    #[test]
    fn exact_bytes_of_a_ping() {
        let mut expected = vec![1; 32];
        expected.extend(hex("0000010000000000 00 01 0016"));
        expected.extend(b"/ip4/10.0.0.1/tcp/7411");
        expected.extend(hex("0007"));
        expected.extend([2; 32]);
        expected.extend(hex("0000020000000000 00 00 2a"));
        assert_eq!(packet(Message::Ping(42), &[]), expected);
    }

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
    }

    #[test]
    fn addresses_are_bounded() {
        let many: Vec<String> = (0..20).map(|i| format!("/{i}")).collect();
        assert_eq!(bounded(many).len(), ADDRESSES_MAX);
        assert_eq!(bounded(vec!["x".repeat(257), String::new(), "/a".into(), "/a".into()]), ["/a"]);
    }

    #[test]
    fn a_member_that_does_not_fit_leaves_no_trace() {
        let mut small = Vec::new().limit(44);
        let member = Member::alive(id(1, &[]));
        assert_eq!(Codec::default().encode_member(&member, &mut small), Err(WireError::Full));
        assert!(small.get_ref().is_empty());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Packet::decode(&bytes);
        }

        #[test]
        fn a_changed_packet_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0usize..400) {
            let mut bytes = packet(Message::Gossip, &vec![Member::alive(id(9, &["/x"])); 3]);
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes.truncate(cut);
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert!(packet.updates.len() <= 3);
            }
        }
    }
}
