//! Processes of this binary that are told what to do: a JSON document on each line, both ways.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Outcome;

/// How long processes may take to come up, and one to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Orders that wait.
const ORDERS: usize = 64;

/// A process of this binary; it ends when this is dropped.
pub(crate) struct Process {
    child: Child,
    pid: u32,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this binary with these arguments.
    pub(crate) fn start<'a>(args: impl IntoIterator<Item = &'a str>) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("a process ended at once")?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        Ok(Process { child, pid, input, output })
    }

    pub(crate) async fn order(&mut self, order: impl Serialize) -> Outcome<()> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        Ok(self.input.write_all(&line).await?)
    }

    pub(crate) async fn reply<R: DeserializeOwned>(&mut self) -> Outcome<R> {
        self.reply_within(PATIENCE).await
    }

    /// The next reply, for which there is so much time.
    pub(crate) async fn reply_within<R: DeserializeOwned>(&mut self, patience: Duration) -> Outcome<R> {
        let line =
            timeout(patience, self.output.next_line()).await.map_err(|_| "a process does not answer")??;
        Ok(serde_json::from_str(&line.ok_or("a process has ended")?)?)
    }

    /// The next reply before `deadline`, if there is one.
    pub(crate) async fn reply_before<R: DeserializeOwned>(
        &mut self,
        deadline: Instant,
    ) -> Outcome<Option<R>> {
        match timeout_at(deadline, self.output.next_line()).await {
            Err(_) => Ok(None),
            Ok(line) => Ok(Some(serde_json::from_str(&line?.ok_or("a process has ended")?)?)),
        }
    }

    /// CPU time of all its threads so far, in seconds.
    pub(crate) fn cpu_s(&self) -> Outcome<f64> {
        let mut ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread may have ended since.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            ns += text.split_whitespace().next().unwrap_or("0").parse::<u64>()?;
        }
        Ok(Duration::from_nanos(ns).as_secs_f64())
    }

    /// Ends it.
    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        Ok(self.child.kill().await?)
    }
}

/// Within such a process: answers.
pub(crate) fn say(reply: &impl Serialize) -> Outcome<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Within such a process: orders from standard input; ends with it.
pub(crate) fn orders<O: DeserializeOwned + Send + 'static>() -> mpsc::Receiver<O> {
    let (sender, receiver) = mpsc::channel(ORDERS);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
            if sender.blocking_send(order).is_err() {
                return;
            }
        }
    });
    receiver
}
