//! The standard gossipsub wire form: protobuf (`rpc.proto` of the specification), written and read by hand.
//!
//! ```text
//! stream = frame*          frame = varint length, RPC
//! RPC          1 SubOpts* { 1 bool subscribe, 2 string topic }    2 Message*    3 ControlMessage
//! Message      2 bytes data, 4 string topic        (1 from, 3 seqno, 5 signature, 6 key: refused)
//! Control      1 IHAVE* { 1 topic, 2 id* }   2 IWANT* { 1 id* }   3 GRAFT* { 1 topic }
//!              4 PRUNE* { 1 topic, 2 PeerInfo*, 3 uint64 seconds }   5 IDONTWANT* { 1 id* }
//!              7302401 CHOKE* { 1 topic, 2 uint64 trees }   7302402 UNCHOKE* { 1 topic, 2 uint64 trees }
//! ```
//!
//! CHOKE and UNCHOKE are OmniMesh's own, and sent to nodes of OmniMesh alone. Their numbers are in the range
//! that the specification leaves to extensions (above 0x200000); other decoders skip them.
//!
//! By hand rather than derived, because the reader is stricter and cheaper: it counts before it stores, never
//! recurses, and hands out message data as slices of the frame. Unknown fields are skipped; groups (a
//! protobuf relic) are refused. `StrictNoSign` (pubsub specification, "Message Signing"): a message in which
//! `from`, `seqno`, `signature` or `key` is present, even empty, is refused; the rest of its frame counts.
//! Ids that do not have 20 bytes name nothing here and are passed over, as are topics longer than
//! [`TOPIC_BYTES_MAX`](super::rpc::TOPIC_BYTES_MAX).

use bytes::{BufMut, Bytes, BytesMut};

use super::rpc::{Choke, Control, IHave, Message, Prune, Rpc, Subscription, Topic};
use crate::MessageId;

mod split;

pub use split::split;

/// Data that fills less than one part in this many of its frame is copied out, so that a small message kept
/// for seconds does not keep a large frame. (guess)
const RETAIN_FACTOR_MAX: usize = 4;

/// The field numbers of CHOKE and UNCHOKE: "om" in ASCII, and 1 or 2.
const CHOKE: u32 = 0x6f_6d01;
const UNCHOKE: u32 = 0x6f_6d02;

/// Bytes of the tag of a field with one of these numbers.
const EXTENSION_TAG_LEN: usize = 4;

/// A tag and a length before an id of 20 bytes.
const ID_LEN: usize = 2 + MessageId::LEN;

/// How much one frame may hold; for reading, and for writing what stock peers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a frame without its length. Default 65,536: stock gossipsub's `max_transmit_size`.
    pub frame_bytes_max: usize,
    /// What [`split`] fills a frame with when several things share it. Default 56 KiB: rust-libp2p applies
    /// its limit to all it has buffered, up to 8 KiB of which may belong to the next frame.
    pub batch_bytes_max: usize,
    /// Bytes of subscriptions and control that [`split`] puts into a frame. Default 16,384: rust-libp2p's
    /// `max_control_message_size`, above which it closes the stream.
    pub control_bytes_max: usize,
    /// Messages in a frame. Default 500, as in rust-libp2p.
    pub messages_max: usize,
    /// Entries of each other kind in a frame (subscriptions, IHAVE, IWANT, ...). Default 1,024. (guess)
    pub entries_max: usize,
    /// Ids of each kind in a frame. Default 8,192: more than fit into 64 KiB. (guess)
    pub ids_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes_max: 65_536,
            batch_bytes_max: 56 * 1024,
            control_bytes_max: 16_384,
            messages_max: 500,
            entries_max: 1_024,
            ids_max: 8_192,
        }
    }
}

/// A frame that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// What it says.
    pub rpc: Rpc,
    /// Messages in it that were refused; to be given to the router as `Input::Refused`.
    pub refused: Vec<Refused>,
}

/// A message that `StrictNoSign` or its shape forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its topic, if it had one.
    pub topic: Option<Topic>,
    /// Why.
    pub reason: RefusedReason,
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RefusedReason {
    /// It names a source, which `StrictNoSign` forbids.
    #[error("field `from` is present")]
    From,
    /// It has a sequence number, which `StrictNoSign` forbids.
    #[error("field `seqno` is present")]
    Seqno,
    /// It is signed, which `StrictNoSign` forbids.
    #[error("field `signature` is present")]
    Signature,
    /// It carries a key, which `StrictNoSign` forbids.
    #[error("field `key` is present")]
    Key,
    /// It has no topic.
    #[error("field `topic` is missing")]
    NoTopic,
}

impl RefusedReason {
    /// The stable name in metrics and events.
    pub const fn code(self) -> &'static str {
        match self {
            RefusedReason::From => "from",
            RefusedReason::Seqno => "seqno",
            RefusedReason::Signature => "signature",
            RefusedReason::Key => "key",
            RefusedReason::NoTopic => "no_topic",
        }
    }
}

/// Why a frame could not be read. Nothing of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame is longer than allowed.
    #[error("frame of {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        max: usize,
    },
    /// More of one kind than allowed.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// It ends inside a field.
    #[error("frame ends inside a field")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("number longer than 64 bits")]
    Varint,
    /// A field's number or type is not valid.
    #[error("field with an invalid number or type")]
    Field,
    /// A topic is not UTF-8.
    #[error("topic is not UTF-8")]
    Utf8,
}

impl DecodeError {
    /// The stable name in metrics and events.
    pub const fn code(self) -> &'static str {
        match self {
            DecodeError::TooLong { .. } => "too_long",
            DecodeError::TooMany { .. } => "too_many",
            DecodeError::Truncated => "truncated",
            DecodeError::Varint => "bad_varint",
            DecodeError::Field => "bad_field",
            DecodeError::Utf8 => "bad_utf8",
        }
    }
}

/// Bytes of the frame without its length.
pub fn encoded_len(rpc: &Rpc) -> usize {
    let subscriptions: usize = rpc.subscriptions.iter().map(|s| nested_len(subscription_len(s))).sum();
    let messages: usize = rpc.publish.iter().map(|m| nested_len(message_len(m))).sum();
    let control = rpc.control.as_ref().filter(|c| !c.is_empty()).map_or(0, |c| nested_len(control_len(c)));
    subscriptions + messages + control
}

/// Appends the frame without its length.
pub fn encode(rpc: &Rpc, to: &mut BytesMut) {
    to.reserve(encoded_len(rpc));
    for subscription in &rpc.subscriptions {
        put_head(to, 1, subscription_len(subscription));
        to.put_slice(&[0x08, u8::from(subscription.subscribe)]);
        put_bytes(to, 2, subscription.topic.as_str().as_bytes());
    }
    for message in &rpc.publish {
        put_head(to, 2, message_len(message));
        put_bytes(to, 2, message.data());
        put_bytes(to, 4, message.topic().as_str().as_bytes());
    }
    if let Some(control) = rpc.control.as_ref().filter(|c| !c.is_empty()) {
        put_head(to, 3, control_len(control));
        put_control(to, control);
    }
}

/// Appends the frame with its length before it, as it goes into a stream.
pub fn encode_framed(rpc: &Rpc, to: &mut BytesMut) {
    let len = encoded_len(rpc);
    to.reserve(len + 10);
    put_varint(to, len as u64);
    encode(rpc, to);
}

/// Takes the next whole frame out of what was read from a stream, without its length; `None` if more must be
/// read.
///
/// An error is final: the stream has no frame border any more.
pub fn take_frame(buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Bytes>, DecodeError> {
    let mut reader = Reader { bytes: buffer, at: 0 };
    let len = match reader.varint() {
        Ok(len) => len,
        Err(DecodeError::Truncated) => return Ok(None),
        Err(error) => return Err(error),
    };
    let head = reader.at;
    let too_long = DecodeError::TooLong { bytes: len, max: limits.frame_bytes_max };
    let len = usize::try_from(len).map_err(|_| too_long)?;
    if len > limits.frame_bytes_max {
        return Err(too_long);
    }
    if buffer.len() - head < len {
        return Ok(None);
    }
    let _ = buffer.split_to(head);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// Reads a frame (without its length). Message data are slices of it, but for small ones in a large frame.
pub fn decode(frame: &Bytes, limits: &Limits) -> Result<Decoded, DecodeError> {
    if frame.len() > limits.frame_bytes_max {
        return Err(DecodeError::TooLong { bytes: frame.len() as u64, max: limits.frame_bytes_max });
    }
    let mut decoder =
        Decoder { frame, limits, topic: None, decoded: Decoded::default(), counts: Counts::default() };
    let mut reader = Reader { bytes: frame, at: 0 };
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => decoder.subscription(value.bytes()?)?,
            2 => decoder.message(value.bytes()?)?,
            3 => decoder.control(value.bytes()?)?,
            _ => {}
        }
    }
    Ok(decoder.decoded)
}

// --- writing ---------------------------------------------------------------------------------------

fn varint_len(value: u64) -> usize {
    // 7 bits a byte, at least one byte.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A field of this many bytes with its tag (numbers up to 15) and length.
fn nested_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn topic_len(topic: &Topic) -> usize {
    nested_len(topic.as_str().len())
}

fn subscription_len(subscription: &Subscription) -> usize {
    2 + topic_len(&subscription.topic)
}

fn message_len(message: &Message) -> usize {
    nested_len(message.data().len()) + topic_len(message.topic())
}

/// Bytes that a message takes in a frame.
pub(super) fn message_len_in_frame(topic: &Topic, data: &[u8]) -> usize {
    nested_len(nested_len(data.len()) + topic_len(topic))
}

fn ihave_len(ihave: &IHave) -> usize {
    topic_len(&ihave.topic) + ihave.ids.len() * ID_LEN
}

fn prune_len(prune: &Prune) -> usize {
    topic_len(&prune.topic) + prune.backoff_s.map_or(0, |seconds| 1 + varint_len(seconds))
}

fn choke_len(choke: &Choke) -> usize {
    topic_len(&choke.topic) + 1 + varint_len(choke.trees)
}

/// A CHOKE or UNCHOKE with its tag and length.
fn choke_field_len(choke: &Choke) -> usize {
    EXTENSION_TAG_LEN - 1 + nested_len(choke_len(choke))
}

/// The ids of one IWANT or IDONTWANT; nothing if there are none.
fn ids_len(ids: &[MessageId]) -> usize {
    if ids.is_empty() { 0 } else { nested_len(ids.len() * ID_LEN) }
}

fn control_len(control: &Control) -> usize {
    control.ihave.iter().map(|ihave| nested_len(ihave_len(ihave))).sum::<usize>()
        + ids_len(&control.iwant)
        + control.graft.iter().map(|topic| nested_len(topic_len(topic))).sum::<usize>()
        + control.prune.iter().map(|prune| nested_len(prune_len(prune))).sum::<usize>()
        + ids_len(&control.idontwant)
        + control.choke.iter().chain(&control.unchoke).map(choke_field_len).sum::<usize>()
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    to.put_u8(value.to_le_bytes()[0]);
}

/// The tag of a field with bytes, and their length.
fn put_head(to: &mut BytesMut, field: u8, len: usize) {
    to.put_u8(field << 3 | 2);
    put_varint(to, len as u64);
}

fn put_bytes(to: &mut BytesMut, field: u8, bytes: &[u8]) {
    put_head(to, field, bytes.len());
    to.put_slice(bytes);
}

fn put_ids(to: &mut BytesMut, field: u8, ids: &[MessageId]) {
    for id in ids {
        put_bytes(to, field, id.as_bytes());
    }
}

fn put_control(to: &mut BytesMut, control: &Control) {
    for ihave in &control.ihave {
        put_head(to, 1, ihave_len(ihave));
        put_bytes(to, 1, ihave.topic.as_str().as_bytes());
        put_ids(to, 2, &ihave.ids);
    }
    if !control.iwant.is_empty() {
        put_head(to, 2, control.iwant.len() * ID_LEN);
        put_ids(to, 1, &control.iwant);
    }
    for topic in &control.graft {
        put_head(to, 3, topic_len(topic));
        put_bytes(to, 1, topic.as_str().as_bytes());
    }
    for prune in &control.prune {
        put_head(to, 4, prune_len(prune));
        put_bytes(to, 1, prune.topic.as_str().as_bytes());
        if let Some(seconds) = prune.backoff_s {
            to.put_u8(0x18);
            put_varint(to, seconds);
        }
    }
    if !control.idontwant.is_empty() {
        put_head(to, 5, control.idontwant.len() * ID_LEN);
        put_ids(to, 1, &control.idontwant);
    }
    control.choke.iter().for_each(|choke| put_choke(to, CHOKE, choke));
    control.unchoke.iter().for_each(|choke| put_choke(to, UNCHOKE, choke));
}

fn put_choke(to: &mut BytesMut, field: u32, choke: &Choke) {
    put_varint(to, u64::from(field << 3 | 2));
    put_varint(to, choke_len(choke) as u64);
    put_bytes(to, 1, choke.topic.as_str().as_bytes());
    to.put_u8(0x10);
    put_varint(to, choke.trees);
}

// --- reading ---------------------------------------------------------------------------------------

/// A field's content.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// 4 or 8 fixed bytes, which no field here has.
    Fixed,
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], DecodeError> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(DecodeError::Field) }
    }

    fn number(self) -> Result<u64, DecodeError> {
        if let Value::Number(number) = self { Ok(number) } else { Err(DecodeError::Field) }
    }
}

/// Walks over the fields of one protobuf message.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
            self.at += 1;
            // The tenth byte has room for the one bit that is left.
            if shift == 63 && byte > 1 {
                return Err(DecodeError::Varint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::Truncated)?;
        let end = self.at.checked_add(len).ok_or(DecodeError::Truncated)?;
        let bytes = self.bytes.get(self.at..end).ok_or(DecodeError::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    /// The next field; `None` at the end.
    fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| DecodeError::Field)?;
        let number = key >> 3;
        if number == 0 {
            return Err(DecodeError::Field);
        }
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(DecodeError::Field),
        };
        Ok(Some((number, value)))
    }
}

/// How many of each kind were read, kept or not.
#[derive(Default)]
struct Counts {
    subscriptions: usize,
    messages: usize,
    controls: usize,
    ids: usize,
}

fn count(counter: &mut usize, max: usize, what: &'static str) -> Result<(), DecodeError> {
    *counter += 1;
    if *counter > max { Err(DecodeError::TooMany { what, max }) } else { Ok(()) }
}

struct Decoder<'a> {
    frame: &'a Bytes,
    limits: &'a Limits,
    /// The last topic read: frames mostly have one, which is then shared.
    topic: Option<Topic>,
    decoded: Decoded,
    counts: Counts,
}

impl Decoder<'_> {
    /// The topic of this name; `None` if it is empty or too long.
    fn topic(&mut self, bytes: &[u8]) -> Result<Option<Topic>, DecodeError> {
        if let Some(topic) = self.topic.as_ref().filter(|topic| topic.as_str().as_bytes() == bytes) {
            return Ok(Some(topic.clone()));
        }
        let name = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
        let Ok(topic) = Topic::new(name) else { return Ok(None) };
        self.topic = Some(topic.clone());
        Ok(Some(topic))
    }

    fn subscription(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        count(&mut self.counts.subscriptions, self.limits.entries_max, "subscriptions")?;
        let (mut subscribe, mut topic) = (false, None);
        let mut reader = Reader::of(bytes);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => subscribe = value.number()? != 0,
                2 => topic = self.topic(value.bytes()?)?,
                _ => {}
            }
        }
        if let Some(topic) = topic {
            self.decoded.rpc.subscriptions.push(Subscription { subscribe, topic });
        }
        Ok(())
    }

    fn message(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        count(&mut self.counts.messages, self.limits.messages_max, "messages")?;
        let (mut data, mut topic, mut refused): (&[u8], _, _) = (&[], None, None);
        let mut named = false;
        let mut reader = Reader::of(bytes);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => refused = refused.or(Some(RefusedReason::From)),
                2 => data = value.bytes()?,
                3 => refused = refused.or(Some(RefusedReason::Seqno)),
                4 => {
                    let name = value.bytes()?;
                    named = !name.is_empty();
                    topic = self.topic(name)?;
                }
                5 => refused = refused.or(Some(RefusedReason::Signature)),
                6 => refused = refused.or(Some(RefusedReason::Key)),
                _ => {}
            }
        }
        if !named {
            refused = refused.or(Some(RefusedReason::NoTopic));
        }
        if let Some(reason) = refused {
            self.decoded.refused.push(Refused { topic, reason });
        } else if let Some(topic) = topic {
            let data = if data.len().saturating_mul(RETAIN_FACTOR_MAX) < self.frame.len() {
                Bytes::copy_from_slice(data)
            } else {
                self.frame.slice_ref(data)
            };
            self.decoded.rpc.publish.push(Message::new(topic, data));
        }
        Ok(())
    }

    fn control(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        // A second control message in the frame adds to the first, as protobuf has it.
        let mut control = self.decoded.rpc.control.take().unwrap_or_default();
        let mut reader = Reader::of(bytes);
        while let Some((field, value)) = reader.field()? {
            if matches!(field, 1..=5 | CHOKE | UNCHOKE) {
                count(&mut self.counts.controls, self.limits.entries_max, "control entries")?;
                self.control_entry(field, value.bytes()?, &mut control)?;
            }
        }
        if !control.is_empty() {
            self.decoded.rpc.control = Some(control);
        }
        Ok(())
    }

    fn control_entry(&mut self, kind: u32, bytes: &[u8], control: &mut Control) -> Result<(), DecodeError> {
        let (mut topic, mut backoff_s, mut have, mut trees) = (None, None, Vec::new(), 0);
        let mut reader = Reader::of(bytes);
        while let Some((field, value)) = reader.field()? {
            match (kind, field) {
                (1 | 3 | 4 | CHOKE | UNCHOKE, 1) => topic = self.topic(value.bytes()?)?,
                (1, 2) => self.id(value.bytes()?, &mut have)?,
                (2, 1) => self.id(value.bytes()?, &mut control.iwant)?,
                (4, 3) => backoff_s = Some(value.number()?),
                (5, 1) => self.id(value.bytes()?, &mut control.idontwant)?,
                (CHOKE | UNCHOKE, 2) => trees = value.number()?,
                _ => {}
            }
        }
        match (kind, topic) {
            (1, Some(topic)) => control.ihave.push(IHave { topic, ids: have }),
            (3, Some(topic)) => control.graft.push(topic),
            (4, Some(topic)) => control.prune.push(Prune { topic, backoff_s }),
            (CHOKE, Some(topic)) if trees != 0 => control.choke.push(Choke { topic, trees }),
            (UNCHOKE, Some(topic)) if trees != 0 => control.unchoke.push(Choke { topic, trees }),
            _ => {}
        }
        Ok(())
    }

    fn id(&mut self, bytes: &[u8], to: &mut Vec<MessageId>) -> Result<(), DecodeError> {
        count(&mut self.counts.ids, self.limits.ids_max, "message ids")?;
        if let Ok(bytes) = bytes.try_into() {
            to.push(MessageId::from_bytes(bytes));
        }
        Ok(())
    }
}
