//! A bare redb, written as the node's own store is: the same bytes, as many records in a transaction, the same durability.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Hash, Identity, Mesh, Seq, Step};
use redb::{Database, TableDefinition};

use crate::Outcome;

/// Author and sequence number, as the node's store has it.
const RECORDS: TableDefinition<(&[u8; 32], u64), &[u8]> = TableDefinition::new("records");
/// As the node's.
const CACHE_BYTES: usize = 32 << 20;
/// The node keeps a checksum of so many bytes with each record.
const CHECKSUM_BYTES: usize = 16;
const AUTHOR: [u8; 32] = [7; 32];

/// The database, and where it goes on.
pub(super) struct Bare {
    database: Database,
    next: u64,
}

/// What a transaction holds, on average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Entries.
    pub(super) entries: f64,
    /// Records that they are in.
    pub(super) records: f64,
}

/// Transactions one after another.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// How long each transaction took, in microseconds.
    pub(super) transactions_us: Vec<f64>,
}

impl Bare {
    pub(super) fn create(path: &Path) -> Outcome<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        Ok(Bare { database, next: 1 })
    }

    /// One transaction, on disk when this returns.
    pub(super) fn write_each(&mut self, records: impl Iterator<Item = impl AsRef<[u8]>>) -> Outcome<()> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(RECORDS)?;
            for record in records {
                table.insert((&AUTHOR, self.next), record.as_ref())?;
                self.next += 1;
            }
        }
        Ok(write.commit()?)
    }

    /// Writes such batches of entries of so many bytes for so long, or until there are so many entries.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small counts"
    )]
    pub(super) fn write_all(
        &mut self,
        batch: Batch,
        bytes: usize,
        seconds: f64,
        entries_max: u64,
    ) -> Outcome<Written> {
        let entries_each = (batch.entries / batch.records).round().max(1.0) as usize;
        let record = record(entries_each, bytes)?;
        let began = Instant::now();
        let (mut written, mut due) = (Written::default(), 0.0);
        while began.elapsed().as_secs_f64() < seconds && written.entries < entries_max {
            // Batches are no whole numbers on average: what is left over comes with the next.
            due += batch.entries / entries_each as f64;
            let records = (due as usize).max(1);
            due -= records as f64;
            let transaction = Instant::now();
            self.write_each(std::iter::repeat_n(&record, records))?;
            written.transactions_us.push(transaction.elapsed().as_secs_f64() * 1e6);
            written.entries += (records * entries_each) as u64;
            written.bytes += (records * record.len()) as u64;
        }
        written.took = began.elapsed();
        Ok(written)
    }
}

/// The bytes that the node stores of so many entries in one record.
pub(super) fn record(entries: usize, bytes: usize) -> Outcome<Vec<u8>> {
    let mesh = Mesh::open("benches")?;
    let identity = Identity::from_seed(&[1; 32]);
    let one = std::num::NonZeroUsize::MIN;
    let mut patterns = PatternGenerator::new(mesh.secret().clone(), std::num::NonZeroU64::MIN, one);
    let header = Header {
        mesh: mesh.id(),
        author: identity.id(),
        seq: Seq(1_000_000),
        step: Step(1_000_000),
        kind: Kind::Durable,
        channel: Channel::new(omnimesh_node::USER_CATEGORY)?,
        prev: Some(Hash::of(b"before")),
        timestamp_us: Some(1_000_000_000_000),
    };
    let payloads = (0..entries).map(|_| Bytes::from(vec![7; bytes])).collect();
    let envelope = Envelope::seal(&identity, patterns.at(header.step), header, payloads)?;
    Ok([[0; CHECKSUM_BYTES].as_slice(), envelope.as_bytes()].concat())
}
