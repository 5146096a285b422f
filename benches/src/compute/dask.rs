//! Dask's `distributed`, from PyPI, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::THREADS;
use crate::Outcome;

const PACKAGES: [&str; 2] = ["distributed==2026.8.0", "blake3==1.0.11"];

/// Hashes 1 KiB in each task, as the nodes do, and gathers all results. Each line that it reads is a number of tasks;
/// it answers with the seconds.
const SCRIPT: &str = r#"
import sys, time
from distributed import Client, LocalCluster

def work(i):
    import blake3
    return blake3.blake3(i.to_bytes(8, "little") * 128).digest()

if __name__ == "__main__":
    workers, threads = int(sys.argv[1]), int(sys.argv[2])
    with LocalCluster(n_workers=workers, threads_per_worker=threads, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            client.wait_for_workers(workers)
            print("ready", flush=True)
            begin = 0
            for line in sys.stdin:
                count = int(line)
                began = time.perf_counter()
                client.gather(client.map(work, range(begin, begin + count), pure=False))
                print(time.perf_counter() - began, flush=True)
                begin += count
"#;

/// A cluster of local workers.
pub(super) struct Dask {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Dask {
    /// Starts so many workers; the first run fetches the packages.
    pub(super) fn start(workers: usize) -> Outcome<Self> {
        let python = environment()?;
        let mut child = Command::new(python)
            .args(["-c", SCRIPT, &workers.to_string(), &THREADS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut dask = Dask { child, input, output };
        if dask.line()?.trim() == "ready" { Ok(dask) } else { Err("Dask does not start".into()) }
    }

    /// Does so many tasks; how many seconds it took.
    pub(super) fn run(&mut self, tasks: u64) -> Outcome<f64> {
        writeln!(self.input, "{tasks}")?;
        Ok(self.line()?.trim().parse()?)
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Dask {
    fn drop(&mut self) {
        // Its workers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn environment() -> Outcome<PathBuf> {
    let directory = Path::new("target").join("benches-dask");
    let python = directory.join("bin/python");
    let stamp = directory.join("packages");
    let wanted = PACKAGES.join(" ");
    if std::fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == wanted) {
        return Ok(python);
    }
    let run = |command: &mut Command| -> Outcome<()> {
        if command.status()?.success() { Ok(()) } else { Err(format!("{command:?} has failed").into()) }
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(PACKAGES)
        .stdout(Stdio::null()))?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}
