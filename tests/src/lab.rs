//! A place for nodes and the command to run in.

use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::node::Spec;
use crate::process::Process;

/// How long a command may take that is to end by itself: far more than it says it takes.
const RUN_MAX: Duration = Duration::from_secs(90);

/// Ports for nodes: below those that systems give to outgoing connections, which could take one while its
/// node is down.
const PORT_FIRST: u16 = 20_000;
const PORTS: u16 = 10_000;

/// A directory and the command under test. Commands run with the directory as home and without the environment of the tests.
#[derive(Debug)]
pub struct Lab {
    binary: PathBuf,
    dir: TempDir,
    runs: AtomicUsize,
}

/// What a run of the command gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its exit code; of a signal, 128 and its number.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Lab {
    /// A new place for the command at this path, or at the one that `OMNIMESH_BINARY` names, such as one that was built for
    /// release; see [`lab!`](crate::lab).
    pub fn new(binary: impl Into<PathBuf>) -> Lab {
        let dir = tempfile::Builder::new().prefix("omnimesh-lab-").tempdir();
        let other = std::env::var_os("OMNIMESH_BINARY").map(PathBuf::from);
        Lab {
            binary: other.unwrap_or_else(|| binary.into()),
            dir: dir.expect("a temporary directory can be made"),
            runs: AtomicUsize::new(0),
        }
    }

    /// Its directory, which goes when the lab goes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A node to be started, with a data directory of this name.
    pub fn node(&self, name: &str) -> Spec<'_> {
        Spec::new(self, name)
    }

    /// Writes a file for a command to read.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, content).expect("the lab's directory can be written");
        path
    }

    /// Runs the command to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Run {
        self.run_with_input(arguments, b"")
    }

    /// The same with something on standard input.
    pub fn run_with_input<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Run {
        self.finish(self.command(&[]).args(arguments), input)
    }

    /// Starts the command and lets it run.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Process {
        Process::spawn(self.command(&[]).args(arguments), &self.stem("run"), None)
    }

    /// Starts another program in the lab's directory, which is also where it makes temporary files. The command under test is
    /// in its path as `omnimesh`.
    pub fn start_program<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Process {
        let bin = self.dir().join("bin");
        fs::create_dir_all(&bin).expect("the lab's directory can be written");
        let binary = fs::canonicalize(&self.binary).expect("the command under test is there");
        let named = bin.join("omnimesh");
        if !named.exists() {
            symlink(binary, named).expect("a link can be made");
        }
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&others)));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.dir()).env_clear();
        command.env("HOME", self.dir()).env("TMPDIR", self.dir()).env("RUST_BACKTRACE", "1");
        command.env("PATH", path.expect("a directory has no colon in its name"));
        Process::spawn(&mut command, &self.stem("run"), None)
    }

    /// The command, without arguments yet, behind a prefix such as `ip netns exec NAME`.
    pub(crate) fn command(&self, prefix: &[String]) -> Command {
        let mut command = match prefix {
            [] => Command::new(&self.binary),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.binary);
                command
            }
        };
        command.env_clear().env("HOME", self.dir()).env("RUST_BACKTRACE", "1");
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }

    pub(crate) fn finish(&self, command: &mut Command, input: &[u8]) -> Run {
        let mut process = Process::spawn(command, &self.stem("run"), Some(input));
        let code = process.wait(RUN_MAX);
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let code = code.unwrap_or_else(|| panic!("{command:?} did not end; it said:\n{stdout}\n{stderr}"));
        Run { code, stdout, stderr }
    }

    /// Where the output of a process goes.
    pub(crate) fn stem(&self, name: &str) -> PathBuf {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        self.dir().join(format!("{name}-{number}"))
    }

    /// A port of 127.0.0.1 that nobody uses, over TCP or UDP, and that no other caller in this process gets.
    pub fn port(&self) -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Two processes of tests at one time begin at different places.
        let first = process::id().wrapping_mul(97) % u32::from(PORTS);
        for _ in 0..PORTS {
            let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let offset = u16::try_from((first + next) % u32::from(PORTS)).expect("PORTS fits");
            let port = PORT_FIRST + offset;
            let here = ("127.0.0.1", port);
            if TcpListener::bind(here).is_ok() && UdpSocket::bind(here).is_ok() {
                return port;
            }
        }
        panic!("there is no free port");
    }
}

impl Run {
    /// The one JSON document on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON documents on standard output, one on each line.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.stdout.lines().map(line).collect()
    }

    /// Insists on success, and on words on standard output.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Run {
        assert_eq!(self.code, 0, "{self:?}");
        for word in words {
            assert!(self.stdout.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }

    /// Insists on an exit code, and on words on standard error.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) -> &Run {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }
}
