//! A node process, and a process that subscribes to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use std::time::Duration;

use serde_json::Value;

use crate::api::Api;
use crate::http::{Request, Response};
use crate::lab::{Lab, Run};
use crate::process::Process;
use crate::wait::{SOON, check, wait_for};

/// Lines of a log that are shown when a test fails.
const TAIL_LINES: usize = 30;

/// How a node is to be started.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is started"]
pub struct Spec<'lab> {
    lab: &'lab Lab,
    name: String,
    listen: Vec<String>,
    api: String,
    arguments: Vec<String>,
    prefix: Vec<String>,
    environment: Vec<(String, String)>,
    input: Option<String>,
}

impl<'lab> Spec<'lab> {
    pub(crate) fn new(lab: &'lab Lab, name: &str) -> Self {
        Spec {
            lab,
            name: name.to_owned(),
            listen: Vec::new(),
            api: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            prefix: Vec::new(),
            environment: Vec::new(),
            input: None,
        }
    }

    /// Listens there, once for each call; unless told otherwise, on a free TCP port of 127.0.0.1, and on the same again after a restart.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen.push(address.to_owned());
        self
    }

    /// Listens on a free UDP port of 127.0.0.1, for QUIC alone.
    pub fn quic(self) -> Self {
        let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", self.lab.port());
        self.listen(&address)
    }

    /// Has its API there; unless told otherwise, on a free port of 127.0.0.1.
    pub fn api(mut self, address: &str) -> Self {
        self.api = address.to_owned();
        self
    }

    /// More arguments of `start`.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Takes part in the open mesh of this name.
    pub fn open(self, mesh: &str) -> Self {
        self.args(&["--open", mesh])
    }

    /// Joins by the address that another node printed.
    pub fn bootstrap(self, node: &Node<'_>) -> Self {
        let address = node.address();
        self.args(&["--bootstrap", &address])
    }

    /// Runs it, and the commands that talk to it, behind these words, such as `["ip", "netns", "exec", "NAME"]`.
    pub fn prefix(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Sets environment variables of the node itself, instead of any set before.
    pub fn env(mut self, variables: &[(String, String)]) -> Self {
        self.environment = variables.to_vec();
        self
    }

    /// Gives it this on standard input at its first start.
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Where it will keep its data.
    pub fn data_dir(&self) -> PathBuf {
        self.lab.dir().join(&self.name)
    }

    /// The whole command line, for those who want to see it fail: `lab.run(&spec.command_line())`.
    pub fn command_line(&self) -> Vec<String> {
        let dir = self.data_dir();
        let mut words: Vec<String> = vec!["start".into(), "--data-dir".into(), dir.display().to_string()];
        let mut add = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
        self.listen.iter().for_each(|address| add("--listen", address));
        add("--api", &self.api);
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// Starts it and waits until it has told its addresses, though not until it is ready.
    #[track_caller]
    pub fn start(mut self) -> Node<'lab> {
        if self.listen.is_empty() {
            let address = format!("/ip4/127.0.0.1/tcp/{}", self.lab.port());
            self = self.listen(&address);
        }
        let process = self.spawn();
        self.input = None;
        let mut node = Node { spec: self, process, told: Told::default(), logs: Vec::new() };
        node.wait_told();
        node
    }

    fn spawn(&self) -> Process {
        let mut command = self.lab.command(&self.prefix);
        command.args(self.command_line()).envs(self.environment.iter().cloned());
        if self.input.is_none() {
            command.arg("--exit-on-stdin-close");
        }
        Process::spawn(&mut command, &self.lab.stem(&self.name), self.input.as_deref().map(str::as_bytes))
    }
}

/// What a node said of itself when it started.
#[derive(Clone, Debug, Default)]
struct Told {
    peer_id: String,
    listening: Vec<String>,
    api: String,
    join: String,
}

impl Told {
    fn read(log: &str) -> Option<Told> {
        let values = |name: &str| -> Vec<String> {
            let lines = log.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            lines.map(|value| value.trim().to_owned()).collect()
        };
        Some(Told {
            peer_id: values("peer id").pop()?,
            listening: values("listening"),
            api: values("api").pop()?.strip_prefix("http://")?.to_owned(),
            join: values("join").pop()?,
        })
    }
}

/// An `omnimesh start` process. Killed when dropped; if the test fails, the end of its log is printed.
#[derive(Debug)]
pub struct Node<'lab> {
    spec: Spec<'lab>,
    process: Process,
    told: Told,
    /// What earlier runs wrote to standard error.
    logs: Vec<String>,
}

impl<'lab> Node<'lab> {
    /// Its name in the test.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its peer id.
    pub fn peer_id(&self) -> &str {
        &self.told.peer_id
    }

    /// The addresses that it printed, each with its peer id.
    pub fn addresses(&self) -> &[String] {
        &self.told.listening
    }

    /// The first of them.
    #[track_caller]
    pub fn address(&self) -> String {
        self.told.listening.first().expect("a node that has started listens somewhere").clone()
    }

    /// The command line with which it told others to join.
    pub fn join_line(&self) -> &str {
        &self.told.join
    }

    /// The address of its API.
    #[track_caller]
    pub fn api(&self) -> SocketAddr {
        self.told.api.parse().expect("a node tells the address of its API")
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.spec.data_dir()
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it wrote to standard error since it was last started.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Whether it has said that it is ready since it was last started.
    pub fn said_ready(&self) -> bool {
        self.log().lines().any(|line| line == "ready")
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub fn wait_ready(&mut self) -> &mut Self {
        wait_for(&format!("{} to be ready", self.name()), SOON, || {
            self.assert_running();
            check(self.said_ready(), || "it did not say so".to_owned())
        });
        self
    }

    #[track_caller]
    fn wait_told(&mut self) {
        self.told = wait_for(&format!("{} to tell its addresses", self.name()), SOON, || {
            self.assert_running();
            Told::read(&self.log()).ok_or_else(|| "it did not tell them".to_owned())
        });
    }

    #[track_caller]
    fn assert_running(&mut self) {
        if let Some(code) = self.process.exit_code() {
            panic!("{} ended with {code}:\n{}", self.name(), self.log());
        }
    }

    /// Runs the command against it: `node.run(&["members"])`.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_with_input(arguments, b"")
    }

    /// The same with something on standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Run {
        let mut command = self.spec.lab.command(&self.spec.prefix);
        command.args(arguments).arg("--data-dir").arg(self.data_dir());
        self.spec.lab.finish(&mut command, input)
    }

    /// The JSON document that the command prints about it: `node.json(&["members"])`.
    ///
    /// # Errors
    /// What it printed instead, if it failed.
    pub fn try_json(&self, arguments: &[&str]) -> Result<Value, String> {
        let arguments = [arguments, &["--output", "json"]].concat();
        let run = self.run(&arguments);
        if run.code == 0 { Ok(run.json()) } else { Err(format!("{}: {run:?}", self.name())) }
    }

    /// The same where it must work.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.try_json(arguments).unwrap_or_else(|error| panic!("{arguments:?} failed: {error}"))
    }

    /// What it answers to `status`, `members`, `peers` or `step`: asked by HTTP, which is quick, or by the command if it runs behind a prefix
    /// and may not be reached from here.
    ///
    /// # Errors
    /// Why it cannot tell.
    pub fn view(&self, what: &str) -> Result<Value, String> {
        if self.spec.prefix.is_empty() {
            let answer = self.get(&format!("/api/v1/{what}")).and_then(|answer| answer.json());
            answer.map_err(|error| format!("{}: {error}", self.name()))
        } else {
            self.try_json(&[what])
        }
    }

    /// The states of the members that it knows, by peer id, itself among them.
    ///
    /// # Errors
    /// Why it cannot tell.
    pub fn members(&self) -> Result<BTreeMap<String, String>, String> {
        let members = self.view("members")?;
        let text = |member: &Value, field: &str| member[field].as_str().unwrap_or_default().to_owned();
        let members = members.as_array().ok_or("members is no list")?;
        Ok(members.iter().map(|member| (text(member, "peer_id"), text(member, "state"))).collect())
    }

    /// The state in which it sees another node.
    ///
    /// # Errors
    /// Why it cannot tell.
    pub fn sees(&self, other: &Node<'_>) -> Result<String, String> {
        Ok(self.members()?.remove(other.peer_id()).unwrap_or_else(|| "unknown".to_owned()))
    }

    /// Whether it sees another node in this state.
    ///
    /// # Errors
    /// In which state it sees it instead.
    pub fn expect_sees(&self, other: &Node<'_>, state: &str) -> Result<(), String> {
        let seen = self.sees(other)?;
        check(seen == state, || format!("{} sees {} as {seen}", self.name(), other.name()))
    }

    /// Publishes and gives what the command printed, which is also how many neighbours it went to.
    ///
    /// # Errors
    /// What it printed if it refused.
    pub fn publish(&self, channel: &str, data: &str) -> Result<Value, String> {
        let run = self.run(&["publish", channel, data, "--output", "json"]);
        // 8: published, but to nobody.
        if matches!(run.code, 0 | 8) { Ok(run.json()) } else { Err(format!("{}: {run:?}", self.name())) }
    }

    /// Subscribes with a process of its own, and waits until the node has taken it.
    #[track_caller]
    pub fn subscribe(&self, channel: &str) -> Subscriber {
        let mut command = self.spec.lab.command(&self.spec.prefix);
        command.args(["subscribe", channel, "--output", "ndjson", "--data-dir"]).arg(self.data_dir());
        self.subscriber(&mut command)
    }

    /// The same, to end after so many messages.
    #[track_caller]
    pub fn subscribe_count(&self, channel: &str, count: u32) -> Subscriber {
        let mut command = self.spec.lab.command(&self.spec.prefix);
        command.args([
            "subscribe",
            channel,
            "--output",
            "ndjson",
            "--count",
            &count.to_string(),
            "--data-dir",
        ]);
        self.subscriber(command.arg(self.data_dir()))
    }

    #[track_caller]
    fn subscriber(&self, command: &mut Command) -> Subscriber {
        let stem = self.spec.lab.stem(&format!("{}-subscribe", self.name()));
        let mut subscriber =
            Subscriber { name: self.name().to_owned(), process: Process::spawn(command, &stem, None) };
        wait_for(&format!("{} to subscribe", self.name()), SOON, || {
            let log = subscriber.process.stderr();
            assert!(subscriber.process.exit_code().is_none(), "{} cannot subscribe: {log}", self.name());
            check(log.contains("subscribed to"), || "it did not say so".to_owned())
        });
        subscriber
    }

    /// Sends one request to its API over a bare connection, with its token.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn get(&self, path: &str) -> Result<Response, String> {
        Request::get(path).token(&self.token()).send(self.api())
    }

    /// Its API, for other threads.
    #[track_caller]
    pub fn client(&self) -> Api {
        Api::new(self.api(), self.token())
    }

    /// The most memory that its process has held, in bytes.
    #[track_caller]
    pub fn memory_peak_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no VmHWM in {status}")) * 1024
    }

    /// The token of its API.
    #[track_caller]
    pub fn token(&self) -> String {
        let path = self.data_dir().join("api-token");
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends it a signal, by name: `TERM`, `INT`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for its end and gives its exit code.
    #[track_caller]
    pub fn wait_exit(&mut self) -> i32 {
        let code = self.process.wait(SOON);
        code.unwrap_or_else(|| panic!("{} did not end within {SOON:?}", self.name()))
    }

    /// Starts it again with the same data and peer addresses, and waits until it has told its addresses.
    #[track_caller]
    pub fn restart(&mut self) {
        self.restart_with(|spec| spec);
    }

    /// The same where it may not start.
    ///
    /// # Errors
    /// The exit code of a process that ended before it told its addresses; `log` has what it said.
    #[track_caller]
    pub fn try_restart(&mut self) -> Result<(), i32> {
        self.process.kill();
        self.logs.push(self.log());
        self.process = self.spec.spawn();
        let told = wait_for(&format!("{} to tell its addresses or to end", self.name()), SOON, || {
            let ended = self.process.exit_code();
            let told = Told::read(&self.log()).map(Ok).or(ended.map(Err));
            told.ok_or_else(|| "it did neither".to_owned())
        });
        self.told = told?;
        Ok(())
    }

    /// The same, started in another way.
    #[track_caller]
    pub fn restart_with(&mut self, change: impl FnOnce(Spec<'lab>) -> Spec<'lab>) {
        self.process.kill();
        self.logs.push(self.log());
        self.spec = change(self.spec.clone());
        self.process = self.spec.spawn();
        self.wait_told();
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.logs.push(self.log());
            for (run, log) in self.logs.iter().enumerate() {
                eprintln!("--- the end of {}'s log, run {}:\n{}", self.name(), run + 1, tail(log));
            }
        }
    }
}

/// An `omnimesh subscribe` process.
#[derive(Debug)]
pub struct Subscriber {
    name: String,
    process: Process,
}

impl Subscriber {
    /// The name of its node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The messages that it has printed so far.
    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        let text = self.process.stdout();
        // The last line may be half written.
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        complete.lines().map(parse).collect()
    }

    /// The message with this text, if it came; an error that says so if not.
    ///
    /// # Errors
    /// What came instead.
    #[track_caller]
    pub fn got(&self, data: &str) -> Result<Value, String> {
        let messages = self.messages();
        let seen = messages.len();
        let found = messages.into_iter().find(|message| message["data"] == data);
        found.ok_or_else(|| format!("{} has {seen} messages, but not {data:?}", self.name))
    }

    /// Waits for the message with this text.
    #[track_caller]
    pub fn wait_for(&self, data: &str) -> Value {
        wait_for(&format!("{} to deliver {data:?}", self.name), SOON, || self.got(data))
    }

    /// Waits for the end of the process and gives what it printed.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> Run {
        let code = self.process.wait(limit);
        let code = code.unwrap_or_else(|| panic!("the subscriber of {} did not end", self.name));
        Run { code, stdout: self.process.stdout(), stderr: self.process.stderr() }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
