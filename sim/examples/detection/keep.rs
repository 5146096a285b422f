//! The rounds that were done, in a file: a long measurement is stopped and goes on.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use omnimesh_sim::CODE_VERSION;
use serde::{Deserialize, Serialize};

use crate::Cli;
use crate::rows::Mesh;
use crate::table::{Line, Part};

/// What the file has.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What was measured, with what: figures of another mesh or of other code are not added.
    of: Of,
    /// Rounds.
    done: u64,
    /// Each attack.
    attacks: BTreeMap<String, Vec<Part>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Of {
    code: String,
    nodes: u32,
    first_seed: u64,
    only: Vec<String>,
    no_slow: bool,
}

fn of(cli: &Cli) -> Of {
    Of {
        code: CODE_VERSION.into(),
        nodes: cli.nodes,
        first_seed: cli.first_seed,
        only: cli.only.clone(),
        no_slow: cli.no_slow,
    }
}

/// Puts what is in the file into the lines, and says how many rounds that is.
pub(crate) fn read(file: &Path, cli: &Cli, meshes: &mut [(Mesh, Vec<Line>)]) -> Result<u64, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    let other = |why: String| format!("{}: {why}; use another file, or remove it", file.display());
    let mut kept: Kept = serde_json::from_str(&text).map_err(|error| other(error.to_string()))?;
    if kept.of != of(cli) {
        return Err(other(format!("has rounds of {:?}, and these would be of {:?}", kept.of, of(cli))));
    }
    for line in meshes.iter_mut().flat_map(|(_, lines)| lines) {
        line.parts = kept.attacks.remove(line.attack.name).unwrap_or_default();
        if line.parts.len() != usize::from(!cli.no_slow) + 1 {
            return Err(other(format!("lacks the attack {}", line.attack.name)));
        }
    }
    Ok(kept.done)
}

/// Writes the file.
pub(crate) fn write(file: &Path, cli: &Cli, done: u64, meshes: &[(Mesh, Vec<Line>)]) -> Result<(), String> {
    let lines = meshes.iter().flat_map(|(_, lines)| lines);
    let attacks = lines.map(|line| (line.attack.name.to_owned(), line.parts.clone())).collect();
    let text = serde_json::to_string(&Kept { of: of(cli), done, attacks }).expect("numbers and names");
    omnimesh_sim::report::replace(file, &text)
        .map_err(|error| format!("cannot write {}: {error}", file.display()))
}
