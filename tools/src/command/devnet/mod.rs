//! `devnet`: several real nodes on this machine that join and broadcast to each other.
//!
//! ```text
//! node 1 founds a mesh ─► its invite ─► nodes 2..N join by its bootstrap address
//! every node subscribes ─► every node publishes, again until all have it ─► one line per verified message
//! ```
//!
//! A line is printed when a node delivers a message of another one to its subscribers, which it does only
//! after it has verified it.

mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use omnimesh_node::api::types::{
    InviteView, Member, MemberState, Message, Payload, PublishRequest, Published, Status,
};
use omnimesh_node::data_dir::write_secret;
use serde_json::json;

use self::process::{Home, Node};
use super::inspect::state;
use crate::cli::{DevnetArgs, Globals};
use crate::error::{CliError, Code};
use crate::output::{self, Format, millis, printable};
use crate::signals;

/// How long the nodes may take to verify each other's messages.
const VERIFY_MAX: Duration = Duration::from_secs(60);
/// Between two tries of what has not happened yet.
const POLL: Duration = Duration::from_millis(100);
/// Between two messages of a node that not everybody has heard.
const PUBLISH_AGAIN: Duration = Duration::from_secs(2);
/// Between two messages once all is verified.
const PUBLISH_ON: Duration = Duration::from_secs(1);
/// The channel of the broadcasts.
const CHANNEL: &str = "devnet";
/// Deliveries that wait to be printed.
const QUEUE: usize = 1024;

pub(super) fn run(globals: &Globals, args: &DevnetArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let mut devnet = Devnet {
        format: globals.output,
        count: usize::from(args.nodes),
        config: globals.config.clone(),
        started,
        deadline: started + globals.timeout.unwrap_or(VERIFY_MAX),
        stop: signals::stop_flag(),
        progress: ProgressBar::new_spinner(),
        nodes: Vec::new(),
        home: Home::new(globals.data_dir.as_deref())?,
    };
    devnet.progress.enable_steady_tick(POLL);
    let outcome = devnet.run(args);
    devnet.progress.finish_and_clear();
    let Devnet { nodes, home, .. } = devnet;
    process::stop(nodes);
    home.close(outcome.as_ref().err());
    outcome
}

struct Devnet {
    format: Format,
    count: usize,
    config: Option<PathBuf>,
    started: Instant,
    deadline: Instant,
    stop: &'static AtomicBool,
    progress: ProgressBar,
    nodes: Vec<Node>,
    home: Home,
}

/// A message that a node gave its subscriber.
struct Delivery {
    receiver: usize,
    message: Message,
}

impl Devnet {
    fn run(&mut self, args: &DevnetArgs) -> Result<(), CliError> {
        self.start_nodes()?;
        let ids = self.wait_for_members()?;
        let deliveries = self.subscribe()?;
        let last = args.duration.map(|duration| self.started + duration);
        self.broadcast(&ids, &deliveries, args.exit_when_verified, last)
    }

    /// Node 1 founds the mesh; the others join it.
    fn start_nodes(&mut self) -> Result<(), CliError> {
        self.say("starting node 1");
        self.spawn(&[])?;
        self.until("node 1 to be ready", |this| Ok(this.status(0)?.ready))?;
        let client = self.nodes[0].client()?;
        let invite: InviteView = client.get("/api/v1/invite")?;
        let file = self.home.path().join("invite");
        write_secret(&file, invite.invite.as_bytes())?;
        let bootstrap = self.status(0)?.listen.into_iter().next().ok_or_else(|| {
            CliError::new(Code::Failed, "node 1 listens nowhere").hint("see its log in the data directory")
        })?;
        self.say(&format!("starting {} more with bootstrap {bootstrap}", self.count - 1));
        let flags = ["--invite".to_owned(), file.display().to_string(), "--bootstrap".to_owned(), bootstrap];
        for _ in 1..self.count {
            self.spawn(&flags)?;
        }
        Ok(())
    }

    fn spawn(&mut self, flags: &[String]) -> Result<(), CliError> {
        let number = self.nodes.len() + 1;
        self.nodes.push(Node::spawn(number, self.home.path(), self.config.as_deref(), flags)?);
        Ok(())
    }

    /// Waits until every node sees every other one alive, prints them, and tells who is who.
    fn wait_for_members(&mut self) -> Result<BTreeMap<String, usize>, CliError> {
        self.say("waiting for the nodes to see each other");
        let count = self.count;
        self.until("every node to see every other one", |this| {
            for index in 0..count {
                if !this.status(index)?.ready || this.alive(index)?.len() < count {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        let mut ids = BTreeMap::new();
        let mut rows = Vec::new();
        for index in 0..count {
            let status = self.status(index)?;
            ids.insert(status.peer_id.to_string(), index);
            rows.push(json!({
                "type": "member", "node": index + 1, "peer_id": status.peer_id, "state": state(MemberState::Alive),
                "step": status.step, "pid": self.nodes[index].pid(), "api": status.api, "listen": status.listen,
            }));
        }
        let heads = ["node", "peer_id", "state", "step", "pid", "api"];
        let format = if self.format == Format::Table { Format::Table } else { Format::Ndjson };
        self.progress.suspend(|| {
            output::list(format, &rows, &heads, |row| {
                heads.iter().map(|head| output::cell(row.get(*head))).collect()
            })
        })?;
        Ok(ids)
    }

    /// Opens one subscription at each node; what they bring comes out of one queue.
    fn subscribe(&mut self) -> Result<Receiver<Delivery>, CliError> {
        let (sender, receiver) = sync_channel(QUEUE);
        for (index, node) in self.nodes.iter().enumerate() {
            let mut stream = node.subscriber()?.events(&format!("/api/v1/channels/{CHANNEL}/events"))?;
            let sender: SyncSender<Delivery> = sender.clone();
            let listen = move || {
                while let Ok(Some(event)) = stream.next() {
                    if event.name != "message" {
                        continue;
                    }
                    let Ok(message) = serde_json::from_str(&event.data) else { return };
                    if sender.send(Delivery { receiver: index, message }).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new()
                .name(format!("node {}", index + 1))
                .spawn(listen)
                .map_err(|error| CliError::new(Code::Failed, format!("cannot start a thread: {error}")))?;
        }
        Ok(receiver)
    }

    /// Lets every node publish until every other one has heard it, and on until somebody ends it.
    fn broadcast(
        &mut self,
        ids: &BTreeMap<String, usize>,
        deliveries: &Receiver<Delivery>,
        exit_when_verified: bool,
        last: Option<Instant>,
    ) -> Result<(), CliError> {
        self.say("broadcasting");
        let mut missing: BTreeSet<(usize, usize)> = (0..self.count)
            .flat_map(|a| (0..self.count).filter(move |b| *b != a).map(move |b| (a, b)))
            .collect();
        let (mut next, mut turn) = (Instant::now(), 0);
        loop {
            self.check()?;
            let now = Instant::now();
            if now >= next {
                if missing.is_empty() {
                    self.publish(turn % self.count);
                    turn += 1;
                    next = now + PUBLISH_ON;
                } else {
                    let authors: BTreeSet<_> = missing.iter().map(|(_, author)| *author).collect();
                    authors.into_iter().for_each(|author| self.publish(author));
                    next = now + PUBLISH_AGAIN;
                }
            }
            match deliveries.recv_timeout(POLL) {
                Ok(delivery) => self.on_delivery(ids, &delivery, &mut missing, exit_when_verified)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CliError::new(Code::Failed, "all subscriptions ended"));
                }
            }
            let over = last.is_some_and(|last| Instant::now() >= last);
            if !missing.is_empty() && (over || Instant::now() >= self.deadline) {
                return Err(missing_error(&missing));
            }
            if over || (exit_when_verified && missing.is_empty()) {
                return Ok(());
            }
        }
    }

    fn on_delivery(
        &self,
        ids: &BTreeMap<String, usize>,
        delivery: &Delivery,
        missing: &mut BTreeSet<(usize, usize)>,
        first_only: bool,
    ) -> Result<(), CliError> {
        let Delivery { receiver, message } = delivery;
        let Some(author) = ids.get(&message.author.to_string()).filter(|author| *author != receiver) else {
            return Ok(());
        };
        let first = missing.remove(&(*receiver, *author));
        if first || !first_only {
            self.progress.suspend(|| show(self.format, *receiver, *author, message))?;
        }
        if first && missing.is_empty() {
            let all = self.count * (self.count - 1);
            let seconds = self.started.elapsed().as_secs_f64();
            self.say(&format!("all {all} messages verified, {seconds:.1} s after the start"));
        }
        Ok(())
    }

    /// A node that cannot publish yet is asked again later.
    fn publish(&self, index: usize) {
        let body = PublishRequest { payload: Payload::from(format!("hello from node {}", index + 1)) };
        let path = format!("/api/v1/channels/{CHANNEL}/messages");
        let outcome: Result<Published, _> =
            self.nodes[index].client().and_then(|client| client.post(&path, &body));
        if let Err(error) = outcome {
            self.progress
                .suspend(|| output::tell(&format!("node {} cannot publish yet: {error}", index + 1)));
        }
    }

    fn status(&self, index: usize) -> Result<Status, CliError> {
        self.nodes[index].client()?.get("/api/v1/status")
    }

    fn alive(&self, index: usize) -> Result<Vec<Member>, CliError> {
        let mut members: Vec<Member> = self.nodes[index].client()?.get("/api/v1/members")?;
        members.retain(|member| member.state == MemberState::Alive);
        Ok(members)
    }

    /// Asks again until it is so, while all nodes run.
    fn until(&mut self, what: &str, so: impl Fn(&Self) -> Result<bool, CliError>) -> Result<(), CliError> {
        loop {
            self.check()?;
            let outcome = so(self);
            if matches!(outcome, Ok(true)) {
                return Ok(());
            }
            if Instant::now() >= self.deadline {
                let why = outcome.err().map_or_else(String::new, |error| format!(" ({error})"));
                return Err(CliError::new(Code::Timeout, format!("gave up waiting for {what}{why}"))
                    .hint("give it longer with --timeout SECONDS"));
            }
            thread::sleep(POLL);
        }
    }

    /// Whether to go on.
    fn check(&mut self) -> Result<(), CliError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(CliError::interrupted());
        }
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    fn say(&self, text: &str) {
        self.progress.set_message(text.to_owned());
        self.progress.suspend(|| output::tell(text));
    }
}

/// One line per verified message.
fn show(format: Format, receiver: usize, author: usize, message: &Message) -> Result<(), CliError> {
    let (receiver, author) = (receiver + 1, author + 1);
    if format.is_json() {
        let mut item = json!({ "type": "delivery", "receiver": receiver, "author": author });
        if let (Some(item), Ok(serde_json::Value::Object(fields))) =
            (item.as_object_mut(), serde_json::to_value(message))
        {
            item.insert("author_id".to_owned(), json!(message.author));
            item.extend(fields.into_iter().filter(|(name, _)| name != "author"));
        }
        return output::line(&item);
    }
    let text = printable(message.payload.as_text().unwrap_or_default());
    let latency = millis(message.latency_ms);
    output::text(&format!(
        "node {receiver} <- node {author}  verified  step {}  {latency}  {text}",
        message.step
    ))
}

fn missing_error(missing: &BTreeSet<(usize, usize)>) -> CliError {
    let shown: Vec<_> =
        missing.iter().take(10).map(|(to, from)| format!("{} <- {}", to + 1, from + 1)).collect();
    let more = if missing.len() > shown.len() { ", …" } else { "" };
    let message = format!("{} messages were not verified in time: {}{more}", missing.len(), shown.join(", "));
    CliError::new(Code::Timeout, message)
        .hint("give it longer with --timeout SECONDS, or see the nodes' logs")
}

/// Where the nodes' logs are, for a person.
fn log_of(dir: &Path) -> PathBuf {
    dir.join("stderr.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let missing = (1..13).map(|receiver| (receiver, 0)).collect();
        let error = missing_error(&missing);
        assert_eq!(error.code, Code::Timeout);
        assert!(
            error.message.starts_with("12 messages were not verified in time: 2 <- 1, 3 <- 1"),
            "{error}"
        );
        assert!(error.message.ends_with("11 <- 1, …"), "{error}");
    }
}
