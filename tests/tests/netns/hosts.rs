//! Hosts as network namespaces on a bridge, and what can go wrong between them.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{self, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Names of namespaces begin with this, the id of the test process, and a dash.
const PREFIX: &str = "om";
/// The table of each host that drops packets.
const TABLE: &str = "inet omnimesh";
/// Lets the tests pass where they cannot run.
const SKIP: &str = "OMNIMESH_SKIP_NETNS";

/// Some hosts in one network, named by their number from 0. They go when this is dropped.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// What their names begin with.
    stem: String,
    addresses: Vec<String>,
}

impl Hosts {
    /// So many hosts. `None` if there can be none here and that is allowed.
    ///
    /// # Panics
    /// If there can be none and that is not allowed.
    #[track_caller]
    pub(crate) fn new(count: usize) -> Option<Hosts> {
        Hosts::at((0..count).map(|host| format!("10.77.0.{}", host + 1)).collect())
    }

    /// A host at each of these addresses, which may be of several networks of 256.
    #[track_caller]
    pub(crate) fn at(addresses: Vec<String>) -> Option<Hosts> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        if !are_possible() {
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let hosts = Hosts { stem: format!("{PREFIX}{}-{number}", process::id()), addresses };
        hosts.build();
        Some(hosts)
    }

    #[track_caller]
    fn build(&self) {
        let hub = self.hub();
        ip(&["netns", "add", &hub]);
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "br0", "up"]);
        let network = |address: &str| address.rsplit_once('.').map(|(network, _)| network.to_owned());
        let are_one = self.addresses.windows(2).all(|pair| network(&pair[0]) == network(&pair[1]));
        for host in 0..self.count() {
            let (name, port, address) = (self.name(host), port(host), format!("{}/24", self.address(host)));
            ip(&["netns", "add", &name]);
            ip(&[
                "link", "add", &port, "netns", &hub, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ]);
            ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            ip(&["-n", &name, "address", "add", &address, "dev", "eth0"]);
            ip(&["-n", &name, "link", "set", "eth0", "up"]);
            if !are_one {
                // They share the wire all the same.
                ip(&["-n", &name, "route", "add", "default", "dev", "eth0"]);
            }
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.addresses.len()
    }

    /// The address of a host.
    pub(crate) fn address(&self, host: usize) -> &str {
        &self.addresses[host]
    }

    /// The words before a command that make it run on a host.
    pub(crate) fn prefix(&self, host: usize) -> [String; 4] {
        ["ip", "netns", "exec", &self.name(host)].map(str::to_owned)
    }

    /// Pulls a host's cable, or puts it in again.
    #[track_caller]
    pub(crate) fn plug(&self, host: usize, is_in: bool) {
        ip(&["-n", &self.hub(), "link", "set", &port(host), if is_in { "up" } else { "down" }]);
    }

    /// Drops, in silence, what hosts of different groups send to each other.
    #[track_caller]
    pub(crate) fn part(&self, groups: &[&[usize]]) {
        for group in groups {
            let others = groups.iter().filter(|other| *other != group).flat_map(|other| other.iter());
            let others: Vec<&str> = others.map(|host| self.address(*host)).collect();
            for host in *group {
                self.drop_input(*host, &format!("ip saddr {{ {} }} counter drop", others.join(", ")));
            }
        }
    }

    /// Loses so many of a hundred packets that arrive at any host, at random.
    #[track_caller]
    pub(crate) fn lose(&self, percent: u32) {
        (0..self.count()).for_each(|host| self.lose_at(host, percent));
    }

    /// The same at one host.
    #[track_caller]
    pub(crate) fn lose_at(&self, host: usize, percent: u32) {
        self.drop_input(host, &format!("numgen random mod 100 < {percent} counter drop"));
    }

    /// Loses nothing any more at this host. Returns how many packets were lost there.
    #[track_caller]
    pub(crate) fn mend_at(&self, host: usize) -> u64 {
        let lost = self.lost(host);
        self.nft(host, &format!("delete table {TABLE}\n"));
        lost
    }

    /// Loses nothing any more. Returns how many packets were lost at each host.
    #[track_caller]
    pub(crate) fn mend(&self) -> Vec<u64> {
        (0..self.count()).map(|host| self.mend_at(host)).collect()
    }

    /// How many packets a rule has dropped at a host.
    #[track_caller]
    fn lost(&self, host: usize) -> u64 {
        let rules = self.nft(host, &format!("list table {TABLE}\n"));
        let mut words = rules.split_whitespace().skip_while(|word| *word != "packets");
        let count = words.nth(1).and_then(|word| word.parse().ok());
        count.unwrap_or_else(|| panic!("no counter in {rules}"))
    }

    #[track_caller]
    fn drop_input(&self, host: usize, rule: &str) {
        let mut rules = String::new();
        let _ = writeln!(rules, "add table {TABLE}");
        let _ = writeln!(
            rules,
            "add chain {TABLE} arriving {{ type filter hook input priority 0; policy accept; }}"
        );
        let _ = writeln!(rules, "add rule {TABLE} arriving iif eth0 {rule}");
        self.nft(host, &rules);
    }

    #[track_caller]
    fn nft(&self, host: usize, rules: &str) -> String {
        let words = self.prefix(host);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend(["nft", "-f", "-"]);
        run(&words, rules).unwrap_or_else(|why| panic!("{why}; the rules were:\n{rules}"))
    }

    fn hub(&self) -> String {
        format!("{}-0", self.stem)
    }

    fn name(&self, host: usize) -> String {
        format!("{}-{}", self.stem, host + 1)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // Without the hub there are no links, also while a process still keeps a host's namespace.
        let hosts = (0..self.count()).map(|host| self.name(host));
        for name in hosts.chain([self.hub()]) {
            let _ = run(&["ip", "netns", "delete", &name], "");
        }
    }
}

/// Whether there can be namespaces here.
///
/// # Panics
/// If there can be none and that is not allowed.
#[track_caller]
pub(crate) fn are_possible() -> bool {
    static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(why) = POSSIBLE.get_or_init(possible) {
        assert!(
            std::env::var_os(SKIP).is_some_and(|value| value == "1"),
            "{why}; these tests need root, and the Debian packages iproute2 and nftables; set {SKIP}=1 to skip them"
        );
        tell(&format!("SKIPPED, NOT TESTED: {why}"));
        return false;
    }
    true
}

/// Says something to whoever runs the tests, also if they pass.
pub(crate) fn tell(what: &str) {
    // Not `eprintln`, which is captured.
    let _ = writeln!(std::io::stderr(), "netns: {what}");
}

fn port(host: usize) -> String {
    format!("v{}", host + 1)
}

/// Tidies up and finds out whether there can be hosts here, and if not, why.
fn possible() -> Result<(), String> {
    let user = run(&["id", "-u"], "")?;
    if user.trim() != "0" {
        return Err(format!("user {} is not root", user.trim()));
    }
    run(&["nft", "--version"], "")?;
    remove_stale();
    let probe = format!("{PREFIX}{}-probe", process::id());
    run(&["ip", "netns", "add", &probe], "")?;
    run(&["ip", "netns", "delete", &probe], "").map(drop)
}

/// Removes what test processes left that were killed.
fn remove_stale() {
    let list = run(&["ip", "netns", "list"], "").unwrap_or_default();
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(owner, _)| owner);
        let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else { continue };
        if owner == process::id() || !fs::exists(format!("/proc/{owner}")).unwrap_or(true) {
            tell(&format!("removing {name}, which an earlier run left"));
            let _ = run(&["ip", "netns", "delete", name], "");
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let words = [&["ip"], arguments].concat();
    run(&words, "").unwrap_or_else(|why| panic!("{why}"));
}

/// Runs a command and gives its standard output.
fn run(words: &[&str], input: &str) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let failed = |error: std::io::Error| format!("{} does not run: {error}", words.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed: {}", words.join(" "), said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
