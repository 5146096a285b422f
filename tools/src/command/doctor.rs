//! `doctor`: what could keep a node from working here, each with a remedy.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use omnimesh_node::api::types::Status;
use omnimesh_node::audit::AUDIT_FILE;
use omnimesh_node::data_dir::{self, API_ADDRESS_FILE};
use omnimesh_node::store::{STORE_FILE, Store, StoreError};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::observer::audit::{self, Damage, ENTRY_BYTES_MAX, Wrong};
use serde::Serialize;

use super::audit::{read as audit_bytes, read_mark};
use super::start::store_unusable;
use crate::cli::Globals;
use crate::client::Client;
use crate::error::{CliError, Code};
use crate::output;
use crate::settings::{self, Flags};

/// No right clock is before this: 2026-01-01.
const CLOCK_MIN: Duration = Duration::from_secs(1_767_225_600);

/// Descriptors that a node needs beside two for each peer: files, listeners, clients of the API.
const DESCRIPTORS_BASE: u64 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    detail: String,
    remedy: Option<String>,
}

impl Check {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Check { check, verdict: Verdict::Ok, detail: detail.into(), remedy: None }
    }

    fn warn(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Check { check, verdict: Verdict::Warn, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn fail(check: &'static str, error: CliError) -> Self {
        Check { check, verdict: Verdict::Fail, detail: error.message, remedy: error.hint }
    }
}

pub(super) fn run(globals: &Globals) -> Result<(), CliError> {
    let dir = settings::data_dir(globals)?;
    let mut checks = Vec::new();
    let config = match settings::load(globals, &Flags::new(globals)) {
        Ok(settings) => {
            let file =
                globals.config.as_ref().map_or("no file".to_owned(), |file| file.display().to_string());
            checks.push(Check::ok("configuration", format!("valid ({file})")));
            settings.config
        }
        Err(error) => {
            checks.push(Check::fail("configuration", error));
            Config::default()
        }
    };
    let holder = data_dir::holder(&dir);
    checks.push(directory(&dir));
    checks.push(identity(&dir));
    checks.push(mesh(&dir));
    checks.push(store(&dir, holder.as_deref()));
    checks.push(audit_log(&dir));
    match &holder {
        Some(pid) => checks.push(Check::ok("ports", format!("not tried: a node runs here (pid {pid})"))),
        None => ports(&config, &mut checks),
    }
    checks.push(clock());
    checks.push(descriptors(&config));
    checks.push(memory(&config));
    checks.push(exposure(&config));
    checks.push(node(globals, &dir, holder.as_deref()));
    report(globals, &checks)
}

fn report(globals: &Globals, checks: &[Check]) -> Result<(), CliError> {
    output::list(globals.output, checks, &["check", "verdict", "detail", "remedy"], |check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let remedy = check.remedy.clone().unwrap_or_else(|| "-".to_owned());
        vec![check.check.to_owned(), verdict.to_owned(), check.detail.clone(), remedy]
    })?;
    match checks.iter().filter(|check| check.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        n => Err(CliError::new(Code::Failed, format!("{n} of {} checks failed", checks.len()))
            .hint("each of them names its remedy")),
    }
}

fn directory(dir: &Path) -> Check {
    let name = "data directory";
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok(name, format!("{} will be made at the first start", dir.display()));
        }
        Err(error) => {
            let error = CliError::new(Code::Failed, format!("cannot look at {}: {error}", dir.display()));
            return Check::fail(name, error.hint("give its owner access, or use another --data-dir"));
        }
    };
    if !metadata.is_dir() {
        let error = CliError::new(Code::Failed, format!("{} is not a directory", dir.display()));
        return Check::fail(name, error.hint("use another --data-dir"));
    }
    let probe = dir.join(".doctor");
    if let Err(error) = fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)) {
        let error = CliError::new(Code::Failed, format!("cannot write in {}: {error}", dir.display()));
        return Check::fail(name, error.hint(format!("make it writable: `chown $USER {0}`", dir.display())));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Check::warn(
            name,
            format!("{} is open to others (mode {mode:03o})", dir.display()),
            format!("run `chmod 700 {}`", dir.display()),
        );
    }
    Check::ok(name, dir.display().to_string())
}

fn identity(dir: &Path) -> Check {
    match data_dir::read_identity(dir) {
        Ok(Some(identity)) => Check::ok("identity", identity.id().to_string()),
        Ok(None) => Check::ok("identity", "will be made at the first start"),
        Err(error) => Check::fail("identity", error.into()),
    }
}

fn mesh(dir: &Path) -> Check {
    match data_dir::read_mesh(dir) {
        Ok(Some(stored)) => Check::ok("mesh", format!("{} (id {})", stored.mesh.name(), stored.mesh.id())),
        Ok(None) => Check::ok("mesh", "will be founded or joined at the first start"),
        Err(error) => Check::fail("mesh", error.into()),
    }
}

/// Whether the node's store can be opened as `start` opens it. That writes, so a copy is opened.
fn store(dir: &Path, holder: Option<&str>) -> Check {
    let name = "store";
    let path = dir.join(STORE_FILE);
    if !path.exists() {
        return Check::ok(name, "will be made at the first start");
    }
    if let Some(pid) = holder {
        return Check::ok(name, format!("not tried: a node runs here (pid {pid})"));
    }
    let scratch = dir.join(".doctor-store");
    let _ = fs::remove_dir_all(&scratch);
    let tried = fs::create_dir(&scratch)
        .and_then(|()| fs::copy(&path, scratch.join(STORE_FILE)))
        .map(|_| Store::open(&scratch).map(drop));
    let _ = fs::remove_dir_all(&scratch);
    match tried {
        Ok(Ok(())) => Check::ok(name, path.display().to_string()),
        Ok(Err(error)) => Check::fail(name, store_unusable(&of_original(error, &path))),
        Err(error) => {
            let error = CliError::new(Code::Failed, format!("cannot copy {}: {error}", path.display()));
            Check::fail(name, error.hint("give its owner the right to read it, and make room on the disk"))
        }
    }
}

/// What is wrong with a copy is wrong with what it was made of.
fn of_original(error: StoreError, original: &Path) -> StoreError {
    let path = original.display().to_string();
    match error {
        StoreError::Open { reason, .. } => StoreError::Open { path, reason },
        StoreError::Damaged { reason, .. } => StoreError::Damaged { path, reason },
        error @ StoreError::Access { .. } => error,
    }
}

/// Whether the audit log is what the node wrote. A node starts with a damaged one, too, and sets it aside.
fn audit_log(dir: &Path) -> Check {
    let name = "audit log";
    let path = dir.join(AUDIT_FILE);
    let Ok(Some(identity)) = data_dir::read_identity(dir) else {
        return Check::ok(name, "not checked: there is no identity to check it with");
    };
    let mark = read_mark(&path, &identity.id());
    if !path.exists() && matches!(mark, Ok(None)) {
        return Check::ok(name, "will be begun at the first start");
    }
    let bytes = match audit_bytes(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Check::fail(name, error),
    };
    let ends = mark.as_ref().ok().and_then(Option::as_ref);
    match (audit::verify(&bytes, &identity.id(), ends, |_| {}), mark) {
        (Ok(_), Err(error)) => Check::warn(name, error.message, error.hint.unwrap_or_default()),
        (Ok(summary), Ok(_)) => {
            Check::ok(name, format!("{} entries, as the node wrote them", summary.entries))
        }
        // Also of a node that runs, and is writing it.
        (Err(Damage { index, from, what: Wrong::CutOff, .. }), _)
            if bytes.len().saturating_sub(from) < ENTRY_BYTES_MAX =>
        {
            Check::warn(
                name,
                format!("{}: entry {index} is cut off at byte {from}, as by a crash", path.display()),
                "a node takes it away when it starts, and says so in the next entry",
            )
        }
        (Err(damage), _) => Check::warn(
            name,
            format!("{} is not what the node wrote: {damage}", path.display()),
            format!(
                "find out who changed it; the node sets it aside as {AUDIT_FILE}.damaged-<time> when it starts, and begins another; \
                 `omnimesh audit show` prints the entries before the damage"
            ),
        ),
    }
}

/// Whether the configured ports are free; only while no node runs here.
fn ports(config: &Config, checks: &mut Vec<Check>) {
    let taken = |what: String, error: &io::Error, setting: &str| {
        let error = CliError::new(Code::Failed, format!("cannot listen on {what}: {error}"));
        Check::fail("ports", error.hint(format!("stop what uses it, or change {setting}")))
    };
    for address in &config.network.listen {
        let Some((socket, udp)) = socket_of(address) else {
            checks.push(Check::ok("ports", format!("{address} was not tried")));
            continue;
        };
        let outcome =
            if udp { UdpSocket::bind(socket).map(drop) } else { TcpListener::bind(socket).map(drop) };
        checks.push(match outcome {
            Ok(()) => Check::ok("ports", format!("{address} is free")),
            Err(error) => taken(address.clone(), &error, "network.listen"),
        });
    }
    checks.push(match TcpListener::bind(config.api.listen) {
        Ok(_) => Check::ok("ports", format!("{} is free for the API", config.api.listen)),
        Err(error) => taken(format!("{} for the API", config.api.listen), &error, "api.listen"),
    });
}

/// The socket of `/ip4/A/tcp/P…` or `/ip6/A/udp/P…`, and whether it is UDP.
fn socket_of(multiaddr: &str) -> Option<(SocketAddr, bool)> {
    let mut parts = multiaddr.split('/').skip(1);
    let (_family, ip, transport, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let socket = SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?);
    match transport {
        "tcp" => Some((socket, false)),
        "udp" => Some((socket, true)),
        _ => None,
    }
}

fn clock() -> Check {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(now) if now >= CLOCK_MIN => Check::ok("clock", format!("Unix time {} s", now.as_secs())),
        _ => Check::warn(
            "clock",
            "the wall clock is years behind; the mesh does not need it, but logs will mislead",
            "set it, or run a time service",
        ),
    }
}

fn descriptors(config: &Config) -> Check {
    let needed = DESCRIPTORS_BASE + 2 * config.network.peers_max as u64;
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .map(|text| text.parse::<u64>().unwrap_or(u64::MAX));
    match soft {
        None => Check::ok("descriptors", "the limit cannot be read on this system"),
        Some(soft) if soft < needed => Check::warn(
            "descriptors",
            format!("{soft} may be open at once; network.peers_max asks for up to {needed}"),
            "raise it with `ulimit -n` or LimitNOFILE=, or lower network.peers_max",
        ),
        Some(u64::MAX) => Check::ok("descriptors", "no limit"),
        Some(soft) => Check::ok("descriptors", format!("{soft} may be open at once")),
    }
}

/// Whether the machine has what the node may use.
fn memory(config: &Config) -> Check {
    let mib = |bytes: u64| bytes >> 20;
    let (node, tasks) = (config.limits.memory as u64, config.compute.memory_bytes);
    let tasks = if config.compute.work { tasks } else { 0 };
    let detail = format!(
        "{} MiB for the node (limits.memory), {} MiB for tasks (compute.memory_bytes)",
        mib(node),
        mib(tasks)
    );
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib << 10);
    match total {
        Some(total) if node.saturating_add(tasks) > total => Check::warn(
            "memory",
            format!("{detail}; the machine has {} MiB", mib(total)),
            "lower one of them: a flood, or many tasks, could take all there is",
        ),
        _ => Check::ok("memory", detail),
    }
}

fn exposure(config: &Config) -> Check {
    if config.api.listen.ip().is_loopback() {
        return Check::ok("api", format!("{} is for this machine alone", config.api.listen));
    }
    Check::warn(
        "api",
        format!("{} can be reached from other machines, without encryption", config.api.listen),
        "use 127.0.0.1 and a tunnel, or put a proxy with TLS before it",
    )
}

fn node(globals: &Globals, dir: &Path, holder: Option<&str>) -> Check {
    let asked = globals.api_url.is_some() || dir.join(API_ADDRESS_FILE).exists();
    if holder.is_none() && globals.api_url.is_none() {
        return Check::ok("node", "none runs in this data directory");
    }
    if !asked {
        return Check::warn(
            "node",
            "it runs but has not told the address of its API",
            "wait, or look into its log",
        );
    }
    match Client::new(globals).and_then(|client| client.get::<Status>("/api/v1/status")) {
        Ok(Status { log_trouble: None, .. }) => Check::ok("node", "it answers"),
        Ok(Status { log_trouble: Some(trouble), .. }) => Check::warn(
            "node",
            format!("it answers, but there is trouble with its log: {trouble}"),
            "`omnimesh log status` shows whether it goes on: a full disk needs room, a frozen log a node with a new key",
        ),
        Err(error) => Check::fail("node", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_from_addresses() {
        let socket = |text| socket_of(text).map(|(socket, udp)| (socket.to_string(), udp));
        assert_eq!(socket("/ip4/0.0.0.0/tcp/7411"), Some(("0.0.0.0:7411".to_owned(), false)));
        assert_eq!(socket("/ip6/::/udp/1/quic-v1"), Some(("[::]:1".to_owned(), true)));
        assert_eq!(socket("/dns/a/tcp/1"), None);
        assert_eq!(socket("/ip4"), None);
    }

    #[test]
    fn a_taken_port_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.network.listen = vec![format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port())];
        config.api.listen.set_port(0);
        let mut checks = Vec::new();
        ports(&config, &mut checks);
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Fail, Verdict::Ok]);
    }
}
