//! `key`: the node's identity.

use data_encoding::HEXLOWER;
use omnimesh_node::data_dir::{self, DataDir};
use omnimesh_protocol::Identity;
use serde_json::json;

use crate::cli::{Globals, KeyCommand};
use crate::error::{CliError, Code};
use crate::{output, settings};

pub(super) fn run(globals: &Globals, what: &KeyCommand) -> Result<(), CliError> {
    let dir = settings::data_dir(globals)?;
    let identity = match what {
        KeyCommand::New => DataDir::open(&dir)?.create_identity()?,
        KeyCommand::Show => data_dir::read_identity(&dir)?.ok_or_else(|| {
            CliError::new(Code::NotFound, format!("there is no identity in {}", dir.display()))
                .hint("make one with `omnimesh key new`, or let `omnimesh start` do it")
        })?,
    };
    show(globals, &identity)
}

/// The public half: the seed never leaves its file.
fn show(globals: &Globals, identity: &Identity) -> Result<(), CliError> {
    let peer_id = identity.id().to_string();
    let public_key = HEXLOWER.encode(identity.id().as_bytes());
    let item = json!({ "peer_id": peer_id, "public_key": public_key });
    output::record(globals.output, &item, || vec![("peer id", peer_id), ("public key", public_key)])
}
