//! A child process and what it wrote.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// A child in a process group of its own, killed with all its own children when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Kept open: some commands end when their standard input does.
    _stdin: Option<ChildStdin>,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it. Its output goes to the files `<stem>.out` and `<stem>.err`. With `input`, that is all its standard
    /// input; without, its standard input stays open and empty.
    pub(crate) fn spawn(command: &mut Command, stem: &Path, input: Option<&[u8]>) -> Process {
        let (stdout, stderr) = (stem.with_extension("out"), stem.with_extension("err"));
        let create = |path| File::create(path).expect("the lab's directory can be written");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut stdin = child.stdin.take();
        if let (Some(input), Some(mut pipe)) = (input, stdin.take_if(|_| input.is_some())) {
            // A command that fails early does not read it all.
            let _ = pipe.write_all(input);
        }
        Process { child, _stdin: stdin, stdout, stderr, ended: None }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Its exit code once it has ended; of a signal, 128 and its number, as shells count.
    pub fn exit_code(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    /// Waits for its end and gives its exit code; `None` if it goes on.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            match self.exit_code() {
                None if Instant::now() < deadline => thread::sleep(POLL),
                code => return code,
            }
        }
    }

    /// Sends it a signal, by name: `TERM`, `INT`.
    pub fn signal(&self, name: &str) {
        assert!(send(name, &self.pid().to_string()), "there is no process {} to signal", self.pid());
    }

    /// `kill -9`, with all its children.
    pub fn kill(&mut self) {
        if self.exit_code().is_none() {
            send("KILL", &format!("-{}", self.pid()));
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process, or with a minus before its id to its group, and says whether that went well.
fn send(signal: &str, target: &str) -> bool {
    // The shell's own kill: the tool of that name is not everywhere.
    let status = Command::new("sh").arg("-c").arg(format!("kill -s {signal} -- {target}")).status();
    status.is_ok_and(|status| status.success())
}

fn read(path: &Path) -> String {
    // A line may be half written, in the middle of a character.
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
