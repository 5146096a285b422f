//! The processes of a devnet and the directory they live in.
//!
//! No child outlives its parent: each watches its standard input, which closes when the parent ends in
//! whatever way, and each is a process group of its own, so that Ctrl-C reaches the parent alone, which then
//! stops all in good order.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use omnimesh_node::data_dir::API_ADDRESS_FILE;

use super::log_of;
use crate::client::{Client, TIMEOUT_DEFAULT};
use crate::error::{CliError, Code};
use crate::output;

/// How long a node may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Lines of a failed node's log that are shown.
const TAIL_LINES: usize = 20;

/// The directory with the nodes' data directories.
pub(super) struct Home {
    path: PathBuf,
    temporary: bool,
}

impl Home {
    /// The given directory, or a new one that goes away with the devnet.
    pub(super) fn new(given: Option<&Path>) -> Result<Self, CliError> {
        let path = given.map_or_else(
            || std::env::temp_dir().join(format!("omnimesh-devnet-{}", std::process::id())),
            Path::to_owned,
        );
        DirBuilder::new()
            .mode(0o700)
            // A temporary one must be new: in a shared directory somebody else may have made it.
            .recursive(given.is_some())
            .create(&path)
            .map_err(|error| {
                CliError::new(Code::Failed, format!("cannot create {}: {error}", path.display()))
            })?;
        Ok(Home { path, temporary: given.is_none() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a temporary directory, but keeps what helps to find out what went wrong.
    pub(super) fn close(self, error: Option<&CliError>) {
        if !self.temporary {
            return;
        }
        if error.is_some_and(|error| !matches!(error.code, Code::Interrupted | Code::OutputClosed)) {
            output::tell(&format!("the nodes' data and logs are kept in {}", self.path.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            output::tell(&format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}

/// A node process.
pub(super) struct Node {
    number: usize,
    dir: PathBuf,
    process: Child,
}

impl Node {
    /// Starts node `number` in its own directory under `home`, on free loopback ports.
    pub(super) fn spawn(
        number: usize,
        home: &Path,
        config: Option<&Path>,
        flags: &[String],
    ) -> Result<Self, CliError> {
        let dir = home.join(format!("node-{number}"));
        let failed =
            |error: io::Error| CliError::new(Code::Failed, format!("cannot start node {number}: {error}"));
        DirBuilder::new().mode(0o700).recursive(true).create(&dir).map_err(failed)?;
        // What an earlier run left would be taken for the address of this one.
        match fs::remove_file(dir.join(API_ADDRESS_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let log = File::create(log_of(&dir)).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        for name in ["OMNIMESH_CONFIG", "OMNIMESH_DATA_DIR", "OMNIMESH_API_URL", "OMNIMESH_TOKEN_FILE"] {
            command.env_remove(name);
        }
        command.arg("start").arg("--data-dir").arg(&dir);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
        command.args(["--api", "127.0.0.1:0", "--exit-on-stdin-close"]).args(flags);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Node { number, dir, process })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A client of the node's API, once it has told its address.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        Client::of_data_dir(&self.dir, Some(TIMEOUT_DEFAULT))
    }

    /// A client that waits for events for as long as the node runs.
    pub(super) fn subscriber(&self) -> Result<Client, CliError> {
        Client::of_data_dir(&self.dir, None)
    }

    /// An error with the end of its log if it has ended.
    pub(super) fn check(&mut self) -> Result<(), CliError> {
        let how = match self.process.try_wait() {
            Ok(None) => return Ok(()),
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let log = log_of(&self.dir);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        Err(CliError::new(
            Code::Failed,
            format!("node {} ended ({how}); its last words:\n  {tail}", self.number),
        )
        .hint(format!("the whole log is {}", log.display())))
    }
}

impl Drop for Node {
    /// The last resort, also when the devnet panics; [`stop`] is the polite way.
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Asks all nodes to stop, and ends those that do not.
pub(super) fn stop(mut nodes: Vec<Node>) {
    for node in &mut nodes {
        drop(node.process.stdin.take());
    }
    let deadline = Instant::now() + STOP_MAX;
    while Instant::now() < deadline {
        nodes.retain_mut(|node| matches!(node.process.try_wait(), Ok(None)));
        if nodes.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_home_must_be_new_and_goes_away() {
        let home = Home::new(None).unwrap();
        let path = home.path().to_owned();
        assert!(Home::new(None).is_err());
        home.close(Some(&CliError::interrupted()));
        assert!(!path.exists());
    }

    #[test]
    fn a_node_that_ends_tells_its_last_words() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(log_of(temp.path()), "one\ntwo\n").unwrap();
        let process = Command::new("false").stdin(Stdio::piped()).spawn().unwrap();
        let mut node = Node { number: 3, dir: temp.path().to_owned(), process };
        let _ = node.process.wait();
        let error = node.check().unwrap_err();
        assert!(
            error.message.starts_with("node 3 ended") && error.message.ends_with("one\n  two"),
            "{error}"
        );
        stop(vec![node]);
    }
}
