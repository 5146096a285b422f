//! `log`: durable messages.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fs;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use data_encoding::HEXLOWER;
use omnimesh_node::api::types::{
    AppendBatch, AppendRequest, BatchResult, CatchUp, Lagged, LogAppended, LogCheckpoint, LogEntry, LogHead,
    LogProof, LogStatus, Payload, PublishRequest,
};
use omnimesh_protocol::registry::{self, Action, Operation};
use omnimesh_protocol::{NodeId, Seq, Step};
use serde::Deserialize;
use serde_json::Value;

use super::inspect::{passed_on, typed};
use super::message::{STDIN_BYTES_MAX, read_stdin};
use crate::cli::{AppendArgs, Globals, LogCommand, ReadArgs};
use crate::client::{Client, EventStream, as_commands, exit_of_code, segment};
use crate::error::{CliError, Code};
use crate::files;
use crate::output::{self, Format, printable};

/// Entries of one request to read.
const PAGE: u64 = 500;
/// Entries of one request to append.
const BATCH: usize = 512;
/// Bytes of JSON of one request to append, beyond the first entry: below the node's `api.body_bytes_max`.
const BATCH_BYTES: usize = 96 << 10;
/// Of the categories that there are, so many are named.
const CATEGORIES_NAMED: usize = 8;
/// Lines that wait to be sent.
const LINES_WAITING: usize = 2048;
/// Longest line that is an entry: as much as can be published at once.
const ENTRY_BYTES_MAX: u64 = STDIN_BYTES_MAX;

pub(super) fn run(globals: &Globals, what: &LogCommand) -> Result<(), CliError> {
    match what {
        LogCommand::Append(args) if args.lines => append_lines(globals, args),
        LogCommand::Append(args) => append(globals, args),
        LogCommand::Read(args) => Reader::new(globals, args)?.run(),
        LogCommand::Heads => {
            let heads = ["author", "seq", "hash", "base", "frozen"];
            passed_on::<LogHead>(globals, "/api/v1/log/heads", &heads, head_row)
        }
        LogCommand::Status => status(globals),
        LogCommand::Gaps => gaps(globals),
        LogCommand::Proofs { out } => proofs(globals, out.as_deref()),
    }
}

fn head_row(head: &LogHead) -> Vec<String> {
    // A log that is frozen from its first entry on ends with none.
    let if_any = |text: String| if head.seq > Seq(0) { text } else { "-".to_owned() };
    let frozen = match (head.frozen, head.fork) {
        (false, _) => "no".to_owned(),
        (true, Some(fork)) => format!("yes, at entry {fork}"),
        (true, None) => "yes".to_owned(),
    };
    vec![
        head.author.to_string(),
        if_any(head.seq.to_string()),
        if_any(head.hash.to_string()),
        if_any(head.base.to_string()),
        frozen,
    ]
}

fn append(globals: &Globals, args: &AppendArgs) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    let payload = if args.data == "-" { read_stdin()?.into() } else { Payload::from(args.data.as_str()) };
    let request = AppendRequest { payload, replicas: args.replicas };
    let value: Value = client.post("/api/v1/log/entries", &request).map_err(may_be_there)?;
    let appended: LogAppended = typed(&value)?;
    output::record(globals.output, &value, || {
        vec![
            ("author", appended.author.to_string()),
            ("seq", appended.seq.to_string()),
            ("step", appended.step.to_string()),
            ("hash", appended.hash.to_string()),
            ("durable", durable(appended.replicas)),
        ]
    })?;
    short_of(appended.replicas, args.replicas)
}

/// Where something is on disk.
pub(super) fn durable(others: usize) -> String {
    match others {
        0 => "here".to_owned(),
        1 => "here and on 1 other node".to_owned(),
        others => format!("here and on {others} other nodes"),
    }
}

/// Says so if fewer nodes have something on disk than were asked for.
pub(super) fn short_of(has: usize, asked: usize) -> Result<(), CliError> {
    if has >= asked {
        return Ok(());
    }
    let message =
        format!("it is on disk here, but only {has} of {asked} other nodes said that they have it, too");
    Err(CliError::new(Code::PartlyDone, message).hint(
        "they get it as soon as they can be reached; `omnimesh members` shows how many others there are, and `omnimesh peers` \
         which are connected as members",
    ))
}

/// Each line is an entry. What has been read already goes out together, so that a fast writer is not slowed down by the
/// disk, and a slow one is not kept waiting.
fn append_lines(globals: &Globals, args: &AppendArgs) -> Result<(), CliError> {
    if args.data != "-" {
        return Err(CliError::new(Code::Usage, "--lines reads standard input").hint("give - as the entry"));
    }
    let client = Client::new(globals)?;
    let lines = read_lines();
    let (mut done, mut fewest) = (0_u64, usize::MAX);
    let mut held = None;
    loop {
        let (batch, rest) = next_batch(held.take(), &lines).map_err(|error| partly(error, done))?;
        held = rest;
        if batch.is_empty() {
            break;
        }
        let request = AppendBatch { entries: batch, replicas: args.replicas };
        let sent = client.post("/api/v1/log/batches", &request);
        let results: Vec<Value> = sent.map_err(|error| partly(may_be_there(error), done))?;
        for value in results {
            match typed(&value)? {
                BatchResult::Appended(appended) => {
                    done += 1;
                    fewest = fewest.min(appended.replicas);
                    acknowledge(globals.output, &value, &appended)?;
                }
                BatchResult::Failed { error } => {
                    let hint = as_commands(&error.hint);
                    let failed = CliError::new(exit_of_code(error.code), error.message).hint(hint);
                    return Err(partly(failed, done));
                }
            }
        }
    }
    short_of(fewest.min(args.replicas), args.replicas)
}

fn acknowledge(format: Format, value: &Value, appended: &LogAppended) -> Result<(), CliError> {
    if format.is_json() {
        return output::line(value);
    }
    output::text(&format!("seq {}  step {}  {}", appended.seq, appended.step, appended.hash))
}

/// Who did not wait for the answer does not know.
fn may_be_there(error: CliError) -> CliError {
    if error.code != Code::Timeout {
        return error;
    }
    CliError::new(Code::Timeout, format!("{}; what was appended may be on disk all the same", error.message)).hint(
        "`omnimesh log read` shows it; give it longer with --timeout SECONDS: with --replicas the node waits for the others \
         before it answers",
    )
}

fn partly(error: CliError, done: u64) -> CliError {
    if done == 0 {
        return error;
    }
    let message = format!("{done} entries were appended, and then: {}", error.message);
    CliError { code: Code::PartlyDone, message, hint: error.hint }
}

fn read_lines() -> Receiver<Line> {
    let (sender, receiver) = sync_channel(LINES_WAITING);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input) {
            let is_last = line.is_err();
            if sender.send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

type Line = Result<Vec<u8>, CliError>;

/// The next line without its end; `None` after the last. Nothing is read of one that is longer than any entry.
fn next_line(input: &mut impl BufRead) -> Option<Line> {
    let mut line = Vec::new();
    if let Err(error) = input.take(ENTRY_BYTES_MAX + 1).read_until(b'\n', &mut line) {
        return Some(Err(files::cannot_read("standard input", &error)));
    }
    if line.is_empty() {
        return None;
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() as u64 > ENTRY_BYTES_MAX {
        let message = format!(
            "a line of standard input has more than {ENTRY_BYTES_MAX} bytes, which no mesh takes as one entry"
        );
        return Some(Err(CliError::new(Code::Refused, message)
            .hint("split it into lines: a node's limit is gossip.message_bytes_max, by default 65536")));
    }
    Some(Ok(line))
}

/// A line as an entry to append, or why it is none.
type Held = Result<PublishRequest, CliError>;

/// What one request takes of what has been read, after waiting for the first line; and the line that found no more room, or
/// could not be read: what came before it is appended.
fn next_batch(
    held: Option<Held>,
    lines: &Receiver<Line>,
) -> Result<(Vec<PublishRequest>, Option<Held>), CliError> {
    let entry = |line: Line| line.map(|line| PublishRequest { payload: Payload::from(line) });
    let Some(first) = held.or_else(|| lines.recv().ok().map(entry)) else { return Ok((Vec::new(), None)) };
    let first = first?;
    let mut bytes = json_bytes(&first);
    let mut batch = vec![first];
    while batch.len() < BATCH
        && let Ok(line) = lines.try_recv()
    {
        let next = match entry(line) {
            Ok(next) => next,
            error => return Ok((batch, Some(error))),
        };
        bytes += json_bytes(&next);
        if bytes > BATCH_BYTES {
            return Ok((batch, Some(Ok(next))));
        }
        batch.push(next);
    }
    Ok((batch, None))
}

fn json_bytes(entry: &PublishRequest) -> usize {
    serde_json::to_string(entry).map_or(0, |text| text.len() + 1)
}

/// A page of entries, each also as the node sent it.
#[derive(Deserialize)]
struct RawPage {
    entries: Vec<Value>,
    next: Option<Seq>,
}

/// What happened to a log, with the entries as the node sent them.
#[derive(Deserialize)]
struct RawEvent {
    author: Option<NodeId>,
    entries: Vec<Value>,
}

/// One author's entries that are still to be printed.
struct Cursor {
    author: NodeId,
    /// Where to go on; `None` if all that there was is in `entries`.
    next: Option<Seq>,
    entries: VecDeque<(LogEntry, Value)>,
}

struct Reader<'a> {
    globals: &'a Globals,
    args: &'a ReadArgs,
    client: Client,
    left: u64,
    /// The last entry of each author that was seen.
    seen: BTreeMap<NodeId, Seq>,
    /// The categories of entries that were passed over, a few of them.
    others: BTreeSet<String>,
    printed: Vec<Value>,
}

impl<'a> Reader<'a> {
    fn new(globals: &'a Globals, args: &'a ReadArgs) -> Result<Self, CliError> {
        let client = Client::new(globals)?;
        let left = args.limit.unwrap_or(u64::MAX);
        let (seen, others) = (BTreeMap::new(), BTreeSet::new());
        Ok(Reader { globals, args, client, left, seen, others, printed: Vec::new() })
    }

    fn run(mut self) -> Result<(), CliError> {
        let from = self.args.from.map(Seq);
        // Before anything is read: what comes meanwhile is in one or both.
        let news = if self.args.follow { Some(self.client.events("/api/v1/log/events")?) } else { None };
        let cursors = match &self.args.author {
            Some(author) => {
                let author = author.parse().map_err(|error| {
                    CliError::new(Code::Usage, format!("{author:?} is not a peer id: {error}"))
                        .hint("`omnimesh log heads` lists the authors")
                })?;
                if let Some(from) = from {
                    self.seen.insert(author, Seq(from.0.saturating_sub(1)));
                }
                vec![self.cursor(author, from)?]
            }
            None => {
                let heads: Vec<LogHead> = self.client.get("/api/v1/log/heads")?;
                let authors = heads.iter().filter(|head| head.seq > Seq(0)).map(|head| head.author);
                authors
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|author| self.cursor(author, None))
                    .collect::<Result<_, _>>()?
            }
        };
        self.merge(cursors)?;
        if let Some(news) = news {
            return self.follow(news);
        }
        self.tell_if_none();
        match self.globals.output {
            Format::Json if !self.args.follow => output::document(&self.printed),
            _ => Ok(()),
        }
    }

    /// A category is any name, so that one that is misspelt is no error.
    fn tell_if_none(&self) {
        let Some(category) =
            self.args.category.as_ref().filter(|_| self.left == self.args.limit.unwrap_or(u64::MAX))
        else {
            return;
        };
        let others = match self.others.iter().map(|other| printable(other)).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "there is no entry".to_owned(),
            others => format!("those that were read are of {others}"),
        };
        output::tell(&format!("no entry is of category {category:?}; {others}"));
    }

    fn cursor(&self, author: NodeId, from: Option<Seq>) -> Result<Cursor, CliError> {
        let mut cursor = Cursor { author, next: None, entries: VecDeque::new() };
        self.fill(&mut cursor, from)?;
        Ok(cursor)
    }

    fn fill(&self, cursor: &mut Cursor, from: Option<Seq>) -> Result<(), CliError> {
        let limit = if self.args.category.is_none() { self.left.min(PAGE) } else { PAGE };
        let author = segment(&cursor.author.to_string());
        let mut path = format!("/api/v1/log/entries?author={author}&limit={limit}");
        if let Some(from) = from {
            path.push_str(&format!("&from={from}"));
        }
        let page: RawPage = self.client.get(&path)?;
        cursor.next = page.next;
        for value in page.entries {
            cursor.entries.push_back((typed(&value)?, value));
        }
        Ok(())
    }

    /// Prints what there is in the order of step, author and sequence number: the same on every node.
    fn merge(&mut self, mut cursors: Vec<Cursor>) -> Result<(), CliError> {
        let mut first: BinaryHeap<Reverse<(Step, NodeId, usize)>> = BinaryHeap::new();
        let place = |cursor: &Cursor, index| {
            cursor.entries.front().map(|(entry, _)| Reverse((entry.step, entry.author, index)))
        };
        first.extend(cursors.iter().enumerate().filter_map(|(index, cursor)| place(cursor, index)));
        while self.left > 0
            && let Some(Reverse((_, _, index))) = first.pop()
            && let Some(cursor) = cursors.get_mut(index)
        {
            if let Some((entry, value)) = cursor.entries.pop_front() {
                self.show(&entry, value)?;
            }
            if cursor.entries.is_empty()
                && self.left > 0
                && let Some(next) = cursor.next
            {
                self.fill(cursor, Some(next))?;
            }
            first.extend(place(cursor, index));
        }
        Ok(())
    }

    fn show(&mut self, entry: &LogEntry, value: Value) -> Result<(), CliError> {
        self.seen.insert(entry.author, entry.seq);
        if self.args.category.as_ref().is_some_and(|category| *category != entry.category) {
            if self.others.len() < CATEGORIES_NAMED {
                self.others.insert(entry.category.clone());
            }
            return Ok(());
        }
        self.left -= 1;
        match self.globals.output {
            Format::Table => output::text(&line_of(entry)),
            Format::Json if !self.args.follow => {
                self.printed.push(value);
                Ok(())
            }
            Format::Json | Format::Ndjson => output::line(&value),
        }
    }

    fn follow(&mut self, mut news: EventStream) -> Result<(), CliError> {
        while self.left > 0 {
            let Some(event) = news.next()? else {
                return Err(CliError::new(Code::Unreachable, "the node ended the stream")
                    .hint("it was stopped or restarted; follow again when it runs"));
            };
            let value: Value = serde_json::from_str(&event.data).map_err(|error| {
                CliError::new(Code::Failed, format!("the node sent an event that is not understood: {error}"))
            })?;
            if event.name == "lagged" {
                let Lagged { .. } = typed(&value)?;
                self.catch_up()?;
                continue;
            }
            let RawEvent { author, entries } = typed(&value)?;
            match author {
                Some(author) if self.is_wanted(&author) => self.show_news(author, entries)?,
                Some(_) => {}
                None => self.catch_up()?,
            }
        }
        Ok(())
    }

    fn is_wanted(&self, author: &NodeId) -> bool {
        self.args.author.as_ref().is_none_or(|wanted| *wanted == author.to_string())
    }

    /// Shows entries that follow on what was seen of their author; where they do not, reads what lies in between.
    fn show_news(&mut self, author: NodeId, entries: Vec<Value>) -> Result<(), CliError> {
        for value in entries {
            let entry: LogEntry = typed(&value)?;
            let seen = self.seen.get(&author).copied().unwrap_or(Seq(0));
            if self.left == 0 {
                return Ok(());
            }
            if entry.seq <= seen {
                continue;
            }
            if entry.seq != seen.saturating_add(1) {
                return self.catch_up();
            }
            self.show(&entry, value)?;
        }
        Ok(())
    }

    /// Reads all that has not been seen.
    fn catch_up(&mut self) -> Result<(), CliError> {
        let heads: Vec<LogHead> = self.client.get("/api/v1/log/heads")?;
        let mut cursors = Vec::new();
        for head in heads.iter().filter(|head| self.is_wanted(&head.author)) {
            let seen = self.seen.get(&head.author);
            let from = seen.map_or(head.base, |seen| seen.saturating_add(1)).max(head.base);
            if head.seq >= from {
                cursors.push(self.cursor(head.author, Some(from))?);
            }
        }
        self.merge(cursors)
    }
}

fn line_of(entry: &LogEntry) -> String {
    let data = match (write_of(entry), entry.payload.as_text()) {
        (Some(write), _) => printable(&write),
        (None, Some(text)) => printable(text),
        (None, None) => format!("({} bytes, not text)", entry.payload.as_bytes().len()),
    };
    let LogEntry { author, seq, step, category, .. } = entry;
    format!("{author}  seq {seq}  step {step}  {}  {data}", printable(category))
}

/// What an entry does to the registry, if it is of it.
fn write_of(entry: &LogEntry) -> Option<String> {
    if entry.category != registry::CATEGORY {
        return None;
    }
    Some(match Operation::decode(entry.payload.as_bytes()).ok()?.action {
        Action::Put { key, .. } => format!("put {key}"),
        Action::Update { key, .. } => format!("update {key}"),
        Action::Delete { key } => format!("delete {key}"),
        Action::Link(link) => format!("link {link}"),
        Action::Unlink(link) => format!("unlink {link}"),
    })
}

fn status(globals: &Globals) -> Result<(), CliError> {
    let value: Value = Client::new(globals)?.get("/api/v1/log/status")?;
    let log: LogStatus = typed(&value)?;
    output::record(globals.output, &value, || {
        let own = if log.own_log_known { "known" } else { "still asking peers where it ends" };
        vec![
            ("authors", format!("{} ({} frozen)", log.authors, log.frozen)),
            ("entries", log.entries.to_string()),
            ("behind", log.behind.to_string()),
            ("waiting", format!("{} records, {} bytes", log.waiting, log.waiting_bytes)),
            ("own log", own.to_owned()),
            ("fingerprint", log.fingerprint.to_string()),
            ("rounds", format!("{} ({} found nothing to do)", log.rounds, log.rounds_equal)),
            ("sent", format!("{} bytes", log.bytes_sent)),
            ("received", format!("{} bytes", log.bytes_received)),
            ("writes", format!("{} ({} failed)", log.writes, log.writes_failed)),
            ("disk", format!("{} bytes", log.disk_bytes)),
            ("dropped", format!("{} entries that a checkpoint stands for", log.entries_dropped)),
            ("checkpoint", checkpoint(log.checkpoint.as_ref(), log.checkpoint_fetched)),
            ("trouble", log.trouble.unwrap_or_else(|| "-".to_owned())),
        ]
    })
}

fn checkpoint(sealed: Option<&LogCheckpoint>, fetched: Option<Step>) -> String {
    let mut text = match sealed {
        None => "-".to_owned(),
        Some(LogCheckpoint { step, id, bytes, signers }) => {
            format!("step {step}, {id}, {bytes} bytes, signed by {}", signers.len())
        }
    };
    if let Some(step) = fetched {
        text.push_str(&format!(" (that of step {step} is being fetched)"));
    }
    text
}

fn gaps(globals: &Globals) -> Result<(), CliError> {
    let values: Vec<Value> = Client::new(globals)?.get("/api/v1/log/gaps")?;
    if globals.output.is_json() {
        return output::list(globals.output, &values, &[], |_| Vec::new());
    }
    if values.is_empty() {
        output::tell("nothing was missed since the node started");
    }
    for value in &values {
        let report: CatchUp = typed(value)?;
        output::text(&format!(
            "{} entries in {:.0} ms: {} fetched, {} by gossip; {} that a checkpoint stands for, {} that nobody has; {} round trips, {} bytes sent, {} received",
            report.entries,
            report.took_ms,
            report.entries.saturating_sub(report.entries_gossip),
            report.entries_gossip,
            report.covered,
            report.nobody_has,
            report.round_trips,
            report.bytes_sent,
            report.bytes_received
        ))?;
        for missed in &report.authors {
            let some =
                |count: u64, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
            let rest = some(missed.covered, "in a checkpoint") + &some(missed.nobody_has, "nobody has");
            let (author, from, to) = (missed.author, missed.from, missed.to);
            output::text(&format!("  missed {author} {from} to {to}: {} recovered{rest}", missed.recovered))?;
        }
        for source in &report.sources {
            output::text(&format!(
                "  from   {}: {} entries, {} bytes",
                source.peer_id, source.entries, source.bytes
            ))?;
        }
    }
    Ok(())
}

fn proofs(globals: &Globals, out: Option<&Path>) -> Result<(), CliError> {
    let heads = ["author", "fork", "id"];
    let Some(dir) = out else {
        return passed_on::<LogProof>(globals, "/api/v1/log/proofs", &heads, |proof| {
            vec![proof.author.to_string(), proof.fork.to_string(), proof.id.to_string()]
        });
    };
    let proofs: Vec<LogProof> = Client::new(globals)?.get("/api/v1/log/proofs")?;
    let failed = |error: io::Error| files::cannot_write(dir, &error);
    fs::create_dir_all(dir).map_err(failed)?;
    let mut written = Vec::new();
    for proof in &proofs {
        let bytes = HEXLOWER.decode(proof.proof.as_bytes()).map_err(|error| {
            CliError::new(Code::Failed, format!("the node sent a proof that is not hex: {error}"))
        })?;
        let file = dir.join(format!("{}.proof", proof.author));
        fs::write(&file, bytes).map_err(failed)?;
        written.push(serde_json::json!({
            "author": proof.author, "fork": proof.fork, "id": proof.id, "file": file.display().to_string(),
        }));
    }
    output::list(globals.output, &written, &["author", "fork", "file"], |file| {
        ["author", "fork", "file"].map(|name| output::cell(file.get(name))).to_vec()
    })
}

#[cfg(test)]
mod tests {
    use omnimesh_protocol::registry::EntryKey;
    use omnimesh_protocol::{Hash, Identity};

    use super::*;

    #[test]
    fn writes_of_the_registry_are_named() {
        let key = EntryKey::new("model", "llama").unwrap();
        let write = Operation { action: Action::Delete { key }, after: None }.encode().unwrap();
        let mut entry = LogEntry {
            author: Identity::from_seed(&[1; 32]).id(),
            seq: Seq(3),
            prev: None,
            hash: Hash::of(b"x"),
            step: Step(7),
            category: registry::CATEGORY.to_owned(),
            timestamp_us: None,
            payload: write.into(),
        };
        assert!(
            line_of(&entry).ends_with("  seq 3  step 7  registry  delete model/llama"),
            "{}",
            line_of(&entry)
        );
        entry.payload = vec![0xff].into();
        assert!(line_of(&entry).ends_with("registry  (1 bytes, not text)"));
        entry.category = "log".to_owned();
        entry.payload = "hello".into();
        assert!(line_of(&entry).ends_with("log  hello"));
    }

    #[test]
    fn a_log_without_an_entry_has_no_head() {
        let author = Identity::from_seed(&[1; 32]).id();
        let head = |seq: u64, fork: Option<u64>| LogHead {
            author,
            seq: Seq(seq),
            hash: Hash::of(b"x"),
            base: Seq(1),
            frozen: fork.is_some(),
            fork: fork.map(Seq),
        };
        let hash = Hash::of(b"x").to_string();
        assert_eq!(head_row(&head(3, None))[1..], ["3", &hash, "1", "no"]);
        assert_eq!(head_row(&head(3, Some(4)))[1..], ["3", &hash, "1", "yes, at entry 4"]);
        assert_eq!(head_row(&head(0, Some(1)))[1..], ["-", "-", "-", "yes, at entry 1"]);
    }

    #[test]
    fn lines_have_an_end() {
        let lines = |mut input: &[u8]| -> Vec<_> {
            std::iter::from_fn(|| next_line(&mut input)).map(Result::unwrap).collect()
        };
        assert_eq!(lines(b"a\n\nc"), [&b"a"[..], b"", b"c"]);
        assert_eq!(lines(b"a\n"), [b"a"]);
        assert!(lines(b"").is_empty());
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let error = next_line(&mut endless).unwrap().unwrap_err();
        assert!(error.code == Code::Refused && error.message.contains("16777216 bytes"), "{error}");
    }

    #[test]
    fn what_came_before_a_line_that_is_none_is_appended() {
        let (sender, lines) = sync_channel(LINES_WAITING);
        sender.send(Ok(b"a".to_vec())).unwrap();
        sender.send(Err(CliError::new(Code::Refused, "too long"))).unwrap();
        let (batch, held) = next_batch(None, &lines).unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(next_batch(held, &lines).unwrap_err().message, "too long");
    }

    #[test]
    fn a_batch_takes_what_is_there_and_fits() {
        let (sender, lines) = sync_channel(LINES_WAITING);
        for size in [10, 20, 60 << 10, 60 << 10, 5] {
            sender.send(Ok(vec![b'x'; size])).unwrap();
        }
        drop(sender);
        let (mut held, mut batches) = (None, Vec::new());
        loop {
            let (batch, rest) = next_batch(held, &lines).unwrap();
            held = rest;
            if batch.is_empty() {
                break;
            }
            batches.push(batch.iter().map(|entry| entry.payload.as_bytes().len()).collect::<Vec<_>>());
        }
        assert_eq!(batches, [vec![10, 20, 60 << 10], vec![60 << 10, 5]]);
    }
}
