//! `evidence`: what proves something to anybody, without a node.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use omnimesh_node::data_dir;
use omnimesh_protocol::compute::statement;
use omnimesh_protocol::log::{Proof, ProofError, Record, proof_bytes_max};
use omnimesh_protocol::observer::AnomalyKind;
use omnimesh_protocol::observer::evidence::Evidence;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{MeshId, NodeId};
use serde_json::{Value, json};

use crate::cli::{EvidenceCommand, Globals};
use crate::error::{CliError, Code};
use crate::files;
use crate::output;
use crate::settings::{self, Flags};

/// The longest envelope that a mesh can be configured for.
const MESSAGE_BYTES_MAX: usize = 1 << 24;

pub(super) fn run(globals: &Globals, what: &EvidenceCommand) -> Result<(), CliError> {
    let EvidenceCommand::Verify { file } = what;
    let tags = |proof: &Proof| -> Result<&'static str, ProofError> {
        let Some((mesh, mut patterns)) = own_mesh(globals, proof) else { return Ok("not checked") };
        proof.verify_in_mesh(mesh, &mut patterns).map(|()| "checked")
    };
    let nothing = |reason: String| {
        CliError::new(Code::Failed, format!("{} proves nothing: {reason}", file.display()))
            .hint("evidence holds what one key has signed and an honest one cannot: two records for one place in a log, for example")
    };
    let bytes = read(file)?;
    if let Ok(evidence) = statement::Evidence::decode(&bytes) {
        if !evidence.verify() {
            return Err(nothing(
                "the results in it do not contradict each other, or are not signed by whom it names"
                    .to_owned(),
            ));
        }
        return show_result(globals, &evidence);
    }
    let evidence = Evidence::decode(&bytes, MESSAGE_BYTES_MAX).map_err(|error| nothing(error.to_string()))?;
    evidence.verify_signatures(MESSAGE_BYTES_MAX).map_err(|error| nothing(error.to_string()))?;
    let Evidence::Log(proof) = evidence else { return show(globals, &evidence) };
    let tags = tags(&proof).map_err(|error| nothing(error.to_string()))?;
    let (author, fork, id) = (proof.author(), proof.fork(), proof.id());
    let mesh = proof.mesh();
    let [first, second] = proof.records();
    let item = json!({
        "verified": true, "kind": "equivocation", "author": author, "fork": fork, "id": id, "mesh_id": mesh,
        "tags": tags, "records": [view(first), view(second)],
    });
    output::record(globals.output, &item, || {
        vec![
            ("verified", "yes: the author has signed two entries for one place in its log".to_owned()),
            ("author", author.to_string()),
            ("fork", format!("entry {fork}: from it on the log counts no more")),
            ("mesh id", mesh.to_string()),
            (
                "tags",
                match tags {
                    "checked" => "checked: a member of the mesh has written both".to_owned(),
                    _ => {
                        "not checked: that takes the mesh's secret, in the --data-dir of a member".to_owned()
                    }
                },
            ),
            ("id", id.to_string()),
            ("record", line(first)),
            ("record", line(second)),
        ]
    })
}

/// The proof's mesh and its patterns, if the data directory has its secret. A proof needs none, so whatever stands in the way is
/// no error.
fn own_mesh(globals: &Globals, proof: &Proof) -> Option<(MeshId, PatternGenerator)> {
    let dir = settings::data_dir(globals).ok()?;
    let mesh = data_dir::read_mesh(&dir).ok()??.mesh;
    if mesh.id() != proof.mesh() {
        return None;
    }
    let config = settings::load(globals, &Flags::new(globals)).ok()?.config;
    let interval = NonZeroU64::new(config.node.phase_interval)?;
    Some((mesh.id(), PatternGenerator::new(mesh.secret().clone(), interval, NonZeroUsize::MIN)))
}

/// Evidence that is not about a log.
fn show(globals: &Globals, evidence: &Evidence) -> Result<(), CliError> {
    let (kind, author) = (evidence.kind().code(), evidence.accused());
    let (id, mesh, step) = (evidence.id(), evidence.mesh(), evidence.step());
    let item = json!({
        "verified": true, "kind": kind, "author": author, "step": step, "id": id, "mesh_id": mesh,
        "detail": evidence.says(),
    });
    output::record(globals.output, &item, || {
        vec![
            ("verified", format!("yes: {}", evidence.says())),
            ("author", author.to_string()),
            ("last step", step.to_string()),
            ("mesh id", mesh.to_string()),
            ("id", id.to_string()),
        ]
    })
}

/// Evidence that a worker has signed another result than others.
fn show_result(globals: &Globals, evidence: &statement::Evidence) -> Result<(), CliError> {
    let (accused, key, mesh) = (evidence.accused(), evidence.key, evidence.mesh());
    let witnesses: Vec<NodeId> = evidence.witnesses().collect();
    let results = evidence.results().map(|(wrong, others)| (wrong.hash, others.hash));
    let item = json!({
        "verified": true, "kind": AnomalyKind::ResultMismatch.code(), "author": accused, "task_key": key,
        "mesh_id": mesh, "result": results.map(|(wrong, _)| wrong), "others": results.map(|(_, others)| others),
        "witnesses": witnesses,
    });
    output::record(globals.output, &item, || {
        let says = "another result for a task than the witnesses have, who agree; that proves who disagrees, and who is \
                    right is for who runs the task again";
        let mut lines = vec![
            ("verified", format!("yes: the worker has signed {says}")),
            ("worker", accused.to_string()),
            ("task key", key.to_string()),
            ("mesh id", mesh.to_string()),
        ];
        if let Some((wrong, others)) = results {
            lines.extend([("its result", wrong.to_string()), ("theirs", others.to_string())]);
        }
        lines.extend(witnesses.iter().map(|witness| ("witness", witness.to_string())));
        lines
    })
}

fn read(file: &Path) -> Result<Bytes, CliError> {
    // In hex it is twice as long.
    let bytes_max = 2 * proof_bytes_max(MESSAGE_BYTES_MAX) as u64;
    let remedy = "no proof is so long: name a file that `omnimesh log proofs --out DIR` wrote";
    let bytes = files::bytes(file, bytes_max, remedy)?;
    // As `/api/v1/log/proofs` has it.
    let is_text =
        !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace());
    let hex = is_text.then(|| HEXLOWER_PERMISSIVE.decode(bytes.trim_ascii()).ok()).flatten();
    Ok(hex.unwrap_or(bytes).into())
}

fn view(record: &Record) -> Value {
    json!({
        "seq": record.first(), "last_seq": record.last(), "step": record.step(), "hash": record.digest(),
        "prev": record.prev(), "category": record.category().as_str(), "entries": record.entries(),
    })
}

fn line(record: &Record) -> String {
    format!(
        "entries {} to {}, step {}, category {}, hash {}",
        record.first(),
        record.last(),
        record.step(),
        record.category(),
        record.digest()
    )
}
