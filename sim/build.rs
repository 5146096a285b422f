//! A hash of the sources that decide what a run does, for `manifest.json`: a run that differs from an earlier one
//! must be able to say whether the code differs too.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    for root in ["src", "../protocol/src"] {
        println!("cargo::rerun-if-changed={root}");
        for path in sources(Path::new(root))? {
            hasher.update(path.display().to_string().replace('\\', "/").as_bytes());
            hasher.update(&fs::read(&path)?);
        }
    }
    let hash = hasher.finalize().to_hex();
    let version = env::var("CARGO_PKG_VERSION").map_err(io::Error::other)?;
    println!("cargo::rustc-env=OMNIMESH_CODE_VERSION={version}+{}", &hash[..16]);
    Ok(())
}

/// All files below, in an order that is the same everywhere.
fn sources(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(sources(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}
