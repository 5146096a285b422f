//! The operations that are built in.
//!
//! | operation | reads | makes | parameters |
//! |---|---|---|---|
//! | `hash` | any | 32 bytes: BLAKE3 of all parts, one after another | `hex`: write it as 64 digits |
//! | `concat` | any | all parts, one after another | |
//! | `encrypt` | any | see [`crypt`] | `key`: its name |
//! | `decrypt` | one | what was encrypted | `key`: its name |
//! | `analyze` | CSV, Parquet | partial statistics, or a report: see [`analyze`](mod@analyze) | `format`, `columns`, `header`, `delimiter`, `report`, `histogram` |
//! | `analyze_merge` | partial statistics | the same of all of them | `partial` |
//! | `pattern` | nothing | pattern values, 8 bytes each, least significant first | `from`, `count` |

pub mod analyze;
mod columns;
pub mod crypt;
pub(crate) mod parquet;
mod quantiles;
#[cfg(test)]
mod tests;

use omnimesh_protocol::Step;
use omnimesh_protocol::compute::ledger::FailReason;

use super::task::{Cancel, Context, Input, OpError, Sink, Task};

/// How much is done between two looks at the clock.
const PIECE: usize = 16 << 20;
/// Less is hashed sooner by one thread than by more: what the crate blake3 says of `update_rayon`.
const PARALLEL: usize = 128 << 10;
/// Pattern values between two looks at the clock.
const PATTERNS: u64 = 1 << 16;

/// BLAKE3 of all parts, one after another, on all threads.
pub(super) fn hash(task: &Task, context: &Context, cancel: &Cancel, sink: &mut Sink) -> Result<(), OpError> {
    let is_hex = task.flag("hex", false)?;
    if let [Input { hash: Some(hash), .. }] = &task.inputs[..] {
        return if is_hex { sink.push(hash.to_string().as_bytes()) } else { sink.push(hash.as_bytes()) };
    }
    let mut hasher = blake3::Hasher::new();
    for part in task.parts() {
        for piece in part.chunks(PIECE) {
            cancel.check()?;
            if piece.len() < PARALLEL {
                hasher.update(piece);
            } else {
                context.pool.install(|| {
                    hasher.update_rayon(piece);
                });
            }
        }
    }
    let hash = hasher.finalize();
    if is_hex { sink.push(hash.to_hex().as_bytes()) } else { sink.push(hash.as_bytes()) }
}

/// All parts, one after another.
pub(super) fn concat(task: &Task, cancel: &Cancel, sink: &mut Sink) -> Result<(), OpError> {
    task.parts().try_for_each(|part| {
        cancel.check()?;
        sink.push(part)
    })
}

/// The pattern values of steps.
pub(super) fn pattern(
    task: &Task,
    context: &Context,
    cancel: &Cancel,
    sink: &mut Sink,
) -> Result<(), OpError> {
    let from = task.count("from")?.ok_or_else(|| OpError::param("from", "a step"))?;
    let count = task.count("count")?.ok_or_else(|| OpError::param("count", "how many"))?;
    // Before anything is made.
    let bytes = count.checked_mul(8).filter(|bytes| *bytes <= task.limits.output_bytes);
    if bytes.is_none() || from.checked_add(count).is_none() {
        let detail = format!(
            "{count} values of 8 bytes are more than {} bytes (limits.output)",
            task.limits.output_bytes
        );
        return Err(OpError::new(FailReason::OutputLimit, detail));
    }
    let make = context.patterns.as_ref();
    let make = make.ok_or_else(|| OpError::new(FailReason::Unavailable, "this node is in no mesh"))?;
    let mut patterns = make();
    for place in 0..count {
        if place % PATTERNS == 0 {
            cancel.check()?;
        }
        sink.push(&patterns.at(Step(from + place)).value().to_le_bytes())?;
    }
    Ok(())
}
