//! What is appended to logs: the workload of honest nodes, and what adversaries sign.

use bytes::Bytes;
use omnimesh_protocol::author::Ticket;
use omnimesh_protocol::envelope::{Envelope, Header, Kind, Payloads};
use omnimesh_protocol::log::{self, Record};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::registry::{Action, EntryKey, FieldName, Fields, Link, Relation, Value};
use omnimesh_protocol::{Seq, Step};

use super::log::{Asked, data_hash};
use super::node::{Ctx, Node};
use super::random::Draw;
use super::shared::Shared;

/// Draws of the registry's workload.
const OF_REGISTRY: u64 = 0x7265_6769;

impl Node {
    /// Appends what the workload wants at this number.
    pub(super) fn append(&mut self, number: u32, ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let (Some(settings), Some(log)) = (&shared.log, &shared.scenario.log) else { return };
        let mut draw = Draw::new(shared.seed ^ OF_REGISTRY, u64::from(number), 1);
        let most = omnimesh_protocol::envelope::payload_bytes_max(settings.config.message_bytes_max);
        let mut payload = vec![0; log.payload_bytes.clamp(8, most)];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        let mut category = settings.entries.clone();
        if draw.chance(log.registry_share)
            && let Some(operation) = self.operation(log.registry_keys, &payload, draw, ctx)
        {
            (category, payload) = (settings.registry.clone(), operation);
        }
        let payload = Bytes::from(payload);
        let asked = Asked { number, node: ctx.me, at: ctx.now, data: data_hash(&payload) };
        ctx.sink.record.asked.push(asked);
        let ticket = Ticket(u64::from(number));
        self.log(log::Input::Append { category, payload, ticket, replicas: log.replicas }, ctx);
        self.set_alarm(ctx);
    }

    /// A change of the registry as this node knows it.
    fn operation(&mut self, keys: u32, text: &[u8], mut draw: Draw, ctx: &Ctx<'_>) -> Option<Vec<u8>> {
        let step = self.mesh_step(ctx)?;
        let part = self.machines_log()?;
        let mut key = || {
            let number = draw.next() % u64::from(keys.max(1));
            EntryKey::new("service", &format!("key-{number}")).expect("a good name")
        };
        let (key, other) = (key(), key());
        // A field of its own makes every payload another one.
        let unique = FieldName::new("bytes").expect("a good name");
        let bytes = Value::Bytes(text.to_vec()).encode().ok()?;
        let fields = Fields::from([(unique, bytes)]);
        let put = Action::Put { key: key.clone(), ttl: None, fields: fields.clone() };
        let action = match draw.next() % 20 {
            0..12 => put.clone(),
            12..17 => Action::Update { key, ttl: None, fields },
            _ if key == other => put.clone(),
            17 => Action::Link(Link {
                from: key,
                relation: Relation::new("uses").expect("a good name"),
                to: other,
            }),
            _ => Action::Delete { key },
        };
        // What is not there is made.
        let operation = part.registry.write(action, step).or_else(|_| part.registry.write(put, step)).ok()?;
        operation.encode().ok()
    }

    /// Appends something that is not of the workload.
    pub(super) fn append_besides(&mut self, text: &[u8], ctx: &mut Ctx<'_>) {
        let shared = ctx.shared;
        let (Some(settings), Some(log)) = (&shared.log, &shared.scenario.log) else { return };
        let draw = Draw::new(shared.seed ^ OF_REGISTRY, data_hash(text), 2);
        let Some(payload) = self.operation(log.registry_keys, text, draw, ctx) else { return };
        let (category, payload) = (settings.registry.clone(), payload.into());
        self.log(log::Input::Append { category, payload, ticket: Ticket(u64::MAX), replicas: 0 }, ctx);
    }
}

/// Signs a record with a node's key, whatever its log says.
pub(super) fn forge(
    (author, step): (u32, Step),
    before: Option<&Record>,
    payload: Bytes,
    shared: &Shared,
) -> Option<Record> {
    let settings = shared.log.as_ref()?;
    let mut patterns = PatternGenerator::new(
        shared.mesh.secret().clone(),
        shared.validate.phase_interval,
        shared.validate.pattern_cache,
    );
    let header = Header {
        mesh: shared.mesh.id(),
        author: shared.id(author),
        seq: before.map_or(Seq(1), |before| before.last().saturating_add(1)),
        step,
        kind: Kind::Durable,
        channel: settings.entries.clone(),
        prev: before.map(Record::digest),
        timestamp_us: None,
    };
    let payloads: Payloads = [payload].into_iter().collect();
    Record::new(Envelope::seal(&shared.identity(author), patterns.at(step), header, payloads).ok()?)
}
