//! What routers say to each other, as values: the wire form is in [`super::wire`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::MessageId;

/// The longest topic name in bytes. Longer ones on the wire are passed over as topics nobody here wants.
/// (guess)
pub const TOPIC_BYTES_MAX: usize = 256;

/// The name of a topic: 1 to [`TOPIC_BYTES_MAX`] bytes of UTF-8. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// A topic name is empty or too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic name has 1 to {TOPIC_BYTES_MAX} bytes, this one has {0}")]
pub struct TopicError(usize);

impl Topic {
    /// Takes a name; errors if it is empty or too long.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        if name.is_empty() || name.len() > TOPIC_BYTES_MAX {
            return Err(TopicError(name.len()));
        }
        Ok(Topic(Arc::from(name)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A published message: a topic and opaque data. Its id follows from the data and is computed once.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    topic: Topic,
    data: Bytes,
    id: MessageId,
}

impl Message {
    /// A message with this data; hashes it.
    pub fn new(topic: Topic, data: Bytes) -> Self {
        let id = MessageId::of(&data);
        Message { topic, data, id }
    }

    /// A message whose id is known to be that of its data.
    pub(super) fn with_id(topic: Topic, data: Bytes, id: MessageId) -> Self {
        Message { topic, data, id }
    }

    /// Where it was published.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// What was published.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// [`MessageId::of`] the data.
    pub fn id(&self) -> MessageId {
        self.id
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} in {:?}, {} bytes)", self.id, self.topic, self.data.len())
    }
}

/// One frame between two routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rpc {
    /// Topics that the sender joined or left.
    pub subscriptions: Vec<Subscription>,
    /// Whole messages.
    pub publish: SmallVec<[Message; 1]>,
    /// Talk about messages and the mesh. Boxed, since most frames only carry messages.
    pub control: Option<Box<Control>>,
}

impl Rpc {
    /// A frame that carries one message.
    pub fn of_message(message: Message) -> Self {
        Rpc { publish: SmallVec::from_buf([message]), ..Rpc::default() }
    }

    /// A frame that carries control only.
    pub fn of_control(control: Control) -> Self {
        Rpc { control: Some(Box::new(control)), ..Rpc::default() }
    }

    /// True if it says nothing.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
            && self.publish.is_empty()
            && self.control.as_ref().is_none_or(|control| control.is_empty())
    }
}

/// The sender joined or left a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Joined, or left.
    pub subscribe: bool,
    /// Which topic.
    pub topic: Topic,
}

/// Talk about messages and the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// "I have these messages."
    pub ihave: Vec<IHave>,
    /// "Send me these messages."
    pub iwant: Vec<MessageId>,
    /// "You are in my mesh for this topic."
    pub graft: Vec<Topic>,
    /// "You are not in my mesh for this topic."
    pub prune: Vec<Prune>,
    /// "Do not send me these messages." (v1.2)
    pub idontwant: Vec<MessageId>,
    /// "Our link is lazy in these trees: ids instead of messages." (tree mode)
    pub choke: Vec<Choke>,
    /// "Our link is eager in these trees." (tree mode)
    pub unchoke: Vec<Choke>,
}

impl Control {
    /// True if it says nothing.
    pub fn is_empty(&self) -> bool {
        self.ihave.is_empty()
            && self.iwant.is_empty()
            && self.graft.is_empty()
            && self.prune.is_empty()
            && self.idontwant.is_empty()
            && self.choke.is_empty()
            && self.unchoke.is_empty()
    }
}

/// Messages of one topic that the sender can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IHave {
    /// Their topic.
    pub topic: Topic,
    /// Their ids.
    pub ids: Vec<MessageId>,
}

/// What a CHOKE or an UNCHOKE is about. Between nodes of OmniMesh only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choke {
    /// In which topic.
    pub topic: Topic,
    /// In which of the topic's trees, bit n for tree n; not zero.
    pub trees: u64,
}

/// The receiver is out of the sender's mesh. Peer exchange is neither sent nor read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    /// For which topic.
    pub topic: Topic,
    /// For how many seconds a GRAFT would be refused; peers of v1.0 do not say.
    pub backoff_s: Option<u64>,
}
