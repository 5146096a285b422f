//! The log and the registry: a node that keeps them in memory, and what the API makes of it.

use std::fs::File;
use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt;
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::id::{Hash, NodeId, Seq, Step};
use omnimesh_protocol::log::checkpoint::{Checkpoint, Part, Sealed, Vote};
use omnimesh_protocol::log::{AppendError, Appended, Missed, Recovered, Report, Stats, StoreError};
use omnimesh_protocol::projection::{EntryRef, Projection};
use omnimesh_protocol::registry::{
    self, Action, AsOf, CATEGORY, Direction, EntryKey, Fields, Found, Link, LinkView, ListQuery, Page,
    Relation, SearchQuery, State, WalkQuery, Walked,
};
use omnimesh_protocol::{Outbox, log};
use serde_json::{Value, json};

use super::support::*;
use crate::actors::log::{Change, LogError};
use crate::actors::registry::RegistryError;
use crate::api::backend::{Answer, DurableBackend};
use crate::api::types::*;
use crate::durable::{HeadView, LogPage, LogView};
use crate::feed::{Feed, FeedLimits, FeedSender, feed};

const ME: NodeId = NodeId::from_bytes([1; 32]);
const NOW: Step = Step(10);

/// A log of one author, and the registry that is made of it.
pub(super) struct Kept(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: Vec<log::Entry>,
    registry: State,
    watchers: Vec<FeedSender<RegistryEvent>>,
    readers: Vec<FeedSender<LogEvent>>,
}

impl Default for Kept {
    fn default() -> Self {
        let mut inner = Inner::default();
        let key = EntryKey::new("model", "news").unwrap();
        inner.write(Action::Put { key, ttl: None, fields: Fields::new() }).unwrap();
        Kept(Mutex::new(inner))
    }
}

impl Inner {
    fn append(&mut self, category: &str, data: Bytes) -> Appended {
        let seq = Seq(self.entries.len() as u64 + 1);
        let entry = log::Entry {
            author: ME,
            seq,
            prev: self.entries.last().map(|entry| entry.hash),
            hash: Hash::of(&data),
            step: NOW,
            category: Channel::new(category).unwrap(),
            timestamp_us: Some(1),
            data,
        };
        let appended = Appended { author: ME, seq, hash: entry.hash, step: NOW, replicas: 0 };
        for event in LogEvent::all_of(Change::Applied(vec![entry.clone()])) {
            self.readers.retain(|feed| feed.offer(event.clone(), 1).is_ok());
        }
        self.entries.push(entry);
        appended
    }

    fn write(&mut self, action: Action) -> Result<(AsOf, Appended), RegistryError> {
        let payload = self.registry.write(action, NOW)?.encode().map_err(registry::WriteError::from)?;
        let appended = self.append(CATEGORY, payload.clone().into());
        let Appended { author, seq, hash, step, .. } = appended;
        let mut out = Outbox::new();
        let entry = EntryRef { author, seq, step, hash, category: CATEGORY, payload: &payload };
        self.registry.apply(&entry, &mut out);
        for change in out.drain() {
            self.watchers.retain(|feed| feed.offer(RegistryEvent::from(&change), 1).is_ok());
        }
        Ok((self.registry.as_of(NOW), appended))
    }
}

impl Kept {
    fn with<T: Send + 'static, E: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, E>,
    ) -> Answer<'_, T, E> {
        futures::future::ready(work(&mut self.0.lock().unwrap())).boxed()
    }
}

impl DurableBackend for Memory {
    fn append(
        &self,
        payloads: Vec<Bytes>,
        _: usize,
    ) -> Answer<'_, Vec<Result<Appended, LogError>>, LogError> {
        let one = |inner: &mut Inner, payload: Bytes| match &payload[..] {
            b"full" => Err(StoreError::Full.into()),
            b"busy" => Err(AppendError::Busy.into()),
            b"behind" => Err(AppendError::Behind.into()),
            b"frozen" => Err(AppendError::Frozen(Seq(3)).into()),
            _ if payload.len() > PAYLOAD_BYTES_MAX => {
                Err(AppendError::TooLarge { bytes: payload.len(), bytes_max: PAYLOAD_BYTES_MAX }.into())
            }
            _ => Ok(inner.append("log", payload)),
        };
        self.kept.with(|inner| Ok(payloads.into_iter().map(|payload| one(inner, payload)).collect()))
    }

    fn log_page(
        &self,
        author: Option<NodeId>,
        from: Option<Seq>,
        limit: usize,
    ) -> Answer<'_, LogPage, LogError> {
        self.kept.with(|inner| {
            let author = author.unwrap_or(ME);
            if author != ME {
                return Err(LogError::UnknownAuthor(author));
            }
            let head = inner.head();
            let from = from.unwrap_or(Seq(1));
            if from > Seq(head.seq.0 + 1) {
                let (base, head) = (1, head.seq.0);
                return Err(LogError::OutOfRange { author, base, head, asked: from.0 });
            }
            let entries: Vec<_> =
                inner.entries.iter().filter(|entry| entry.seq >= from).take(limit).cloned().collect();
            let next = entries.last().map(|last| Seq(last.seq.0 + 1)).filter(|next| *next <= head.seq);
            Ok(LogPage { head, entries, next })
        })
    }

    fn log(&self) -> Answer<'_, LogView, LogError> {
        self.kept.with(|inner| Ok(inner.view()))
    }

    fn log_reports(&self) -> Answer<'_, Vec<Report>, LogError> {
        futures::future::ready(Ok(vec![sample_report()])).boxed()
    }

    fn log_events(&self) -> Answer<'_, Feed<LogEvent>, LogError> {
        let (sender, feed) = feed(FeedLimits::default());
        self.kept.with(|inner| {
            inner.readers.push(sender);
            Ok(feed)
        })
    }

    fn log_backup(&self) -> Answer<'_, File, LogError> {
        let path = std::env::temp_dir().join(format!("omnimesh-api-backup-{}", std::process::id()));
        std::fs::write(&path, "all of it").unwrap();
        futures::future::ready(Ok(File::open(&path).unwrap())).boxed()
    }

    fn registry_write(&self, action: Action, _: usize) -> Answer<'_, (AsOf, Appended), RegistryError> {
        self.kept.with(|inner| inner.write(action))
    }

    fn registry_get(&self, key: EntryKey) -> Answer<'_, registry::Answer<Option<registry::Entry>>, LogError> {
        self.kept.with(|inner| Ok(inner.registry.get(&key, NOW)))
    }

    fn registry_list(&self, query: ListQuery) -> Answer<'_, registry::Answer<Page>, LogError> {
        self.kept.with(|inner| Ok(inner.registry.list(&query, NOW)))
    }

    fn registry_search(&self, query: SearchQuery) -> Answer<'_, registry::Answer<Found>, LogError> {
        self.kept.with(|inner| Ok(inner.registry.search(&query, NOW)))
    }

    fn registry_links(
        &self,
        key: EntryKey,
        direction: Direction,
        relations: Vec<Relation>,
    ) -> Answer<'_, registry::Answer<Vec<LinkView>>, LogError> {
        self.kept.with(|inner| Ok(inner.registry.links(&key, direction, &relations, NOW)))
    }

    fn registry_walk(&self, query: WalkQuery) -> Answer<'_, registry::Answer<Walked>, LogError> {
        self.kept.with(|inner| Ok(inner.registry.walk(&query, NOW)))
    }

    fn registry_events(&self) -> Answer<'_, Feed<RegistryEvent>, LogError> {
        let (sender, feed) = feed(FeedLimits::default());
        self.kept.with(|inner| {
            inner.watchers.push(sender);
            Ok(feed)
        })
    }
}

impl Inner {
    fn head(&self) -> HeadView {
        let hash = self.entries.last().map_or(Hash::of(b""), |entry| entry.hash);
        HeadView { author: ME, base: Seq(1), seq: Seq(self.entries.len() as u64), hash, fork: None }
    }

    fn view(&self) -> LogView {
        LogView {
            heads: vec![self.head()],
            fingerprint: Hash::of(b"all"),
            proofs: Vec::new(),
            stats: Stats { authors: 1, entries: self.entries.len() as u64, ..Stats::default() },
            is_own_log_known: true,
            checkpoint: Some(sample_checkpoint()),
            adopting: Some(Step(7200)),
            trouble: Some("a torn page".to_owned()),
            disk_bytes: 4096,
        }
    }
}

fn sample_checkpoint() -> Sealed {
    let mesh = omnimesh_protocol::Mesh::open("api").unwrap().id();
    let checkpoint = Checkpoint { mesh, step: Step(3600), parts: vec![Part::new("cut", b"cut")] };
    let identity = omnimesh_protocol::Identity::from_seed(&[1; 32]);
    let votes = vec![Vote::new(&identity, mesh, &checkpoint.id())];
    Sealed { checkpoint, heads: Part::new("heads", b"heads"), votes }
}

fn sample_report() -> Report {
    let missed = Missed { from: Seq(2), to: Seq(5), recovered: 3, covered: 2, nobody_has: 1 };
    Report {
        entries: 3,
        authors: [(ME, missed)].into(),
        sources: [(NodeId::from_bytes([2; 32]), Recovered { entries: 3, bytes: 900 })].into(),
        ..Report::default()
    }
}

/// A sample of every document of the log and the registry, with the name of its schema.
pub(super) fn samples() -> Vec<(&'static str, Value)> {
    let mut inner = Inner::default();
    let key = |name: &str| format!("model/{name}").parse::<EntryKey>().unwrap();
    let fields =
        json!({"fields": {"a": [1, 2.5, {"base64": "/w=="}], "b": {"c": null}}, "ttl": 5, "replicas": 1});
    let request: RegistryWriteRequest = serde_json::from_value(fields).unwrap();
    for name in ["x", "y"] {
        let fields = request.to_fields().unwrap();
        inner.write(Action::Put { key: key(name), ttl: request.ttl, fields }).unwrap();
    }
    let link = LinkRequest {
        from: key("x").to_string(),
        relation: "uses".into(),
        to: key("y").to_string(),
        replicas: 1,
    };
    let to_link = || Link { from: key("x"), relation: Relation::new("uses").unwrap(), to: key("y") };
    let (as_of, appended) = inner.write(Action::Link(to_link())).unwrap();
    inner.append("log", Bytes::from_static(b"text"));
    let entries =
        LogEntries::from(LogPage { head: inner.head(), entries: inner.entries.clone(), next: Some(Seq(9)) });
    let view = inner.view();
    let report = CatchUp::from(sample_report());
    let entry = inner.registry.get(&key("x"), NOW).value.unwrap();
    let walk = WalkQuery {
        from: key("x"),
        relations: Vec::new(),
        direction: Direction::Out,
        depth_max: 9,
        limit: 9,
    };
    let walk = RegistryWalk::from(inner.registry.walk(&walk, NOW));
    let links = RegistryLinks::from(inner.registry.links(&key("x"), Direction::Out, &[], NOW));
    let page = RegistryPage::from(inner.registry.list(&ListQuery { limit: 1, ..ListQuery::default() }, NOW));
    let search = SearchQuery { text: "x".to_owned(), kind: None, limit: 9 };
    let found = RegistryFound::from(inner.registry.search(&search, NOW));
    let added = LogEvent::all_of(Change::Applied(inner.entries.clone()));
    let frozen = LogEvent::all_of(Change::Frozen { author: ME, end: None });
    let covered = LogEvent::all_of(Change::Jumped(vec![ME]));
    let entry_view = EntryView::from(&entry);
    let changed = registry::Change::Entry { old: None, new: Some(Box::new(entry)) };
    let linked = registry::Change::Linked(to_link());
    let appended = LogAppended::from(appended);
    let failed = ErrorDetail {
        code: ErrorCode::StorageFull,
        message: String::new(),
        hint: String::new(),
        problems: Vec::new(),
    };
    let proof = LogProof { author: ME, fork: Seq(1), id: Hash::of(b"x"), proof: "83".to_owned() };
    let batch = AppendBatch { entries: vec![PublishRequest { payload: "x".into() }], replicas: 2 };
    let as_of = AsOfView::from(as_of);
    vec![
        ("AppendRequest", json!(AppendRequest { payload: vec![0xff].into(), replicas: 1 })),
        ("AppendBatch", json!(batch)),
        ("LogAppended", json!(appended)),
        ("LogBatchResult", json!(BatchResult::Appended(appended.clone()))),
        ("LogBatchResult", json!(BatchResult::Failed { error: failed })),
        ("LogEntry", json!(entries.entries[0])),
        ("LogEntries", json!(entries)),
        ("LogHead", json!(LogHead::from(inner.head()))),
        ("LogEvent", json!(added[0])),
        ("LogEvent", json!(frozen[0])),
        ("LogEvent", json!(covered[0])),
        ("Hit", json!(found.hits[0])),
        ("RegistryFound", json!(found)),
        ("CatchUp", json!(report)),
        ("MissedEntries", json!(report.authors[0])),
        ("Source", json!(report.sources[0])),
        ("LogStatus", json!(LogStatus::from(&view))),
        ("LogCheckpoint", json!(LogStatus::from(&view).checkpoint.unwrap())),
        ("LogProof", json!(proof)),
        ("AsOf", json!(as_of)),
        ("Write", json!(entry_view.created)),
        ("Version", json!(entry_view.versions[0])),
        ("EntryView", json!(entry_view)),
        ("RegistryEntry", json!(RegistryEntry { as_of, entry: entry_view.clone() })),
        ("RegistryPage", json!(page)),
        ("LinkName", json!(walk.reached[0].via)),
        ("LinkOfEntry", json!(links.links[0])),
        ("RegistryLinks", json!(links)),
        ("Reached", json!(walk.reached[0])),
        ("RegistryWalk", json!(walk)),
        ("RegistryWriteRequest", json!(request)),
        ("LinkRequest", json!(link)),
        ("RegistryWritten", json!(RegistryWritten { as_of, appended })),
        ("RegistryEvent", json!(RegistryEvent::from(&changed))),
        ("RegistryEvent", json!(RegistryEvent::from(&linked))),
    ]
}

async fn send(rig: &Rig, method: &str, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    rig.send(&rig.request(method, &format!("/api/v1{path}"), &[], &body)).await
}

#[tokio::test]
async fn entries_are_appended_and_read_in_pages() {
    let rig = Rig::start();
    let reply = send(&rig, "POST", "/log/entries", &json!({"data": "a", "replicas": 0})).await;
    assert_eq!((reply.status, reply.json()["durable"].clone()), (200, json!(true)), "{reply:?}");
    assert_eq!(reply.json()["seq"], 2);
    let batch = json!({"entries": [{"data": "b"}, {"data": "full"}, {"data_base64": "/w=="}]});
    let results = send(&rig, "POST", "/log/batches", &batch).await.json();
    assert_eq!((results[0]["seq"].clone(), results[2]["seq"].clone()), (json!(3), json!(4)));
    assert_eq!(results[1]["error"]["code"], "storage_full");
    let page = rig.get("/api/v1/log/entries?from=2&limit=2").await.json();
    assert_eq!((page["next"].clone(), page["entries"][1]["data"].clone()), (json!(4), json!("b")));
    assert_eq!(page["entries"][1]["prev"], page["entries"][0]["hash"]);
    let rest = rig.get("/api/v1/log/entries?from=4").await.json();
    assert_eq!(
        (rest["next"].clone(), rest["entries"][0]["data_base64"].clone()),
        (Value::Null, json!("/w=="))
    );
    let behind = rig.get("/api/v1/log/entries?from=5").await.json();
    assert_eq!(behind["entries"], json!([]));
    assert_eq!(rig.get("/api/v1/log/heads").await.json()[0]["seq"], 4);
    assert_eq!(rig.get("/api/v1/log/backup").await.status, 200);
}

#[tokio::test]
async fn entries_of_the_registry_are_found_by_words() {
    let rig = Rig::start();
    for (name, text) in [("one", "a red fox"), ("two", "foxes, red and grey: red")] {
        let body = json!({"fields": {"text": text}});
        assert_eq!(send(&rig, "PUT", &format!("/registry/note/{name}"), &body).await.status, 200);
    }
    let found = rig.get("/api/v1/registry/search?q=RED%20fox&kind=note&limit=1").await.json();
    // Two words that are what was asked for, before three of which one only begins so.
    assert_eq!(found["hits"][0]["entry"]["key"], "note/two", "{found}");
    assert_eq!((&found["matches"], &found["hits"][0]["score"]), (&json!(2), &json!(5)));
    assert_eq!(found["cut_short"], false);
    assert!(found["as_of"]["heads"].is_string());
    for bad in ["q=", "q=--", "", "q=x&limit=0", "q=x&kind=Bad", "q=x&page=2"] {
        let reply = rig.get(&format!("/api/v1/registry/search?{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}: {reply:?}");
    }
}

#[tokio::test]
async fn what_the_log_refuses_says_why() {
    let rig = Rig::start();
    for (data, status, code) in [
        ("full", 507, ErrorCode::StorageFull),
        ("busy", 503, ErrorCode::Overloaded),
        ("behind", 503, ErrorCode::NotReady),
        ("frozen", 422, ErrorCode::Refused),
        (&"x".repeat(PAYLOAD_BYTES_MAX + 1), 413, ErrorCode::TooLarge),
    ] {
        send(&rig, "POST", "/log/entries", &json!({"data": data})).await.assert_error(status, code);
    }
    for body in [json!({}), json!({"data": "x", "replica": 1}), json!({"data": "x", "replicas": -1})] {
        send(&rig, "POST", "/log/entries", &body).await.assert_error(400, ErrorCode::InvalidJson);
    }
    let stranger = NodeId::from_bytes([9; 32]);
    for (query, status, code) in [
        ("from=99".to_owned(), 404, ErrorCode::NotFound),
        (format!("author={stranger}"), 404, ErrorCode::NotFound),
        ("author=x".to_owned(), 400, ErrorCode::BadRequest),
        ("from=-1".to_owned(), 400, ErrorCode::BadRequest),
        ("limit=0".to_owned(), 400, ErrorCode::BadRequest),
        ("limit=1001".to_owned(), 400, ErrorCode::BadRequest),
        ("form=1".to_owned(), 400, ErrorCode::BadRequest),
        ("from=1&from=2".to_owned(), 400, ErrorCode::BadRequest),
    ] {
        rig.get(&format!("/api/v1/log/entries?{query}")).await.assert_error(status, code);
    }
}

#[tokio::test]
async fn entries_of_the_registry_are_written_found_and_walked() {
    let rig = Rig::start();
    let fields = json!({"fields": {"size": 7, "raw": {"base64": "/w=="}, "text": "x"}});
    let written = send(&rig, "PUT", "/registry/model/a%2Fb%20c%25", &fields).await.json();
    assert_eq!((written["as_of"]["authors"].clone(), written["durable"].clone()), (json!(1), json!(true)));
    let got = rig.get("/api/v1/registry/model/a%2Fb%20c%25").await.json();
    assert_eq!(
        (got["entry"]["key"].clone(), got["entry"]["fields"].clone()),
        (json!("model/a/b c%"), fields["fields"].clone())
    );
    assert_eq!(got["as_of"], written["as_of"]);
    send(&rig, "PATCH", "/registry/model/a%2Fb%20c%25", &json!({"fields": {"text": null, "size": 8}})).await;
    let filtered = rig.get("/api/v1/registry?kind=model&where=size%3D8&where=raw").await.json();
    assert_eq!((filtered["entries"].as_array().unwrap().len(), filtered["next"].clone()), (1, Value::Null));
    assert!(filtered["entries"][0]["fields"].get("text").is_none());
    let link = json!({"from": "model/news", "relation": "uses", "to": "model/a/b c%"});
    assert_eq!(send(&rig, "POST", "/registry/links", &link).await.status, 200);
    let walk = rig.get("/api/v1/registry/model/news/walk?relation=uses&depth=3").await.json();
    assert_eq!(walk["reached"][0]["entry"]["key"], "model/a/b c%");
    let back = rig.get("/api/v1/registry/model/a%2Fb%20c%25/links?direction=in").await.json();
    assert_eq!(back["links"][0]["from"], "model/news");
    let unlink = "/registry/links?from=model/news&relation=uses&to=model/a/b%20c%25";
    assert_eq!(send(&rig, "DELETE", unlink, &Value::Null).await.status, 200);
    assert_eq!(rig.get("/api/v1/registry/model/news/walk").await.json()["reached"], json!([]));
    assert_eq!(send(&rig, "DELETE", "/registry/model/news", &Value::Null).await.status, 200);
    let gone = rig.get("/api/v1/registry/model/news").await.assert_error(404, ErrorCode::NotFound);
    assert!(gone.message.contains("as of step 10"), "{gone:?}");
}

#[tokio::test]
async fn what_the_registry_refuses_says_why() {
    let rig = Rig::start();
    let bad = (400, ErrorCode::BadRequest);
    for (method, path, body, (status, code)) in [
        ("PUT", "/registry/Model/x", json!({}), bad),
        ("PUT", "/registry/model/x", json!({"fields": {"a": 18_446_744_073_709_551_615_u64}}), bad),
        ("PUT", "/registry/model/x", json!({"field": {}}), (400, ErrorCode::InvalidJson)),
        (
            "PUT",
            "/registry/model/x",
            json!({"fields": {"a": "x".repeat(20_000)}}),
            (413, ErrorCode::TooLarge),
        ),
        ("PATCH", "/registry/model/none", json!({"fields": {"a": 1}}), (404, ErrorCode::NotFound)),
        ("DELETE", "/registry/model/none", Value::Null, (404, ErrorCode::NotFound)),
        ("POST", "/registry/links", json!({"from": "model", "relation": "uses", "to": "model/x"}), bad),
        ("DELETE", "/registry/links?from=model/x&to=model/y", Value::Null, bad),
        ("GET", "/registry/model/news/walk?direction=up", Value::Null, bad),
        ("GET", "/registry?where=", Value::Null, bad),
    ] {
        send(&rig, method, path, &body).await.assert_error(status, code);
    }
}

#[tokio::test]
async fn no_integer_of_a_body_becomes_a_float() {
    let rig = Rig::start();
    let path = "/api/v1/registry/model/x";
    for integer in [
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "1000000000000000000000000000000",
    ] {
        for (method, body) in [
            ("PUT", format!(r#"{{"fields": {{"x": {integer}}}}}"#)),
            ("PATCH", format!(r#"{{"fields": {{"x": [1, {{"y": {integer}}}]}}}}"#)),
        ] {
            let reply = rig.send(&rig.request(method, path, &[], &body)).await;
            let error = reply.assert_error(400, ErrorCode::BadRequest);
            let says = format!("the integer {integer} does not fit 64 bits");
            assert!(error.message.contains(&says) && error.message.contains('x'), "{error:?}");
        }
    }
    let fits =
        r#"{"fields": {"least": -9223372036854775808, "float": 1e30, "text": "18446744073709551616"}}"#;
    assert_eq!(rig.send(&rig.request("PUT", path, &[], fits)).await.status, 200);
    let got = rig.get(path).await.json();
    assert_eq!(got["entry"]["fields"], serde_json::from_str::<Value>(fits).unwrap()["fields"]);
}

#[tokio::test]
async fn a_write_that_makes_no_sense_says_what_of_it() {
    let rig = Rig::start();
    let many: serde_json::Map<_, _> = (0..65).map(|n| (n.to_string(), json!(n))).collect();
    let large: serde_json::Map<_, _> = (0..4).map(|n| (n.to_string(), json!("x".repeat(16_000)))).collect();
    let deep = (0..9).fold(json!(1), |inner, _| json!([inner]));
    let long = "n".repeat(5000);
    let (bad, too_large) = ((400, ErrorCode::BadRequest), (413, ErrorCode::TooLarge));
    for (method, body, (status, code), says) in [
        ("PUT", json!({"fields": {"n": null}}), bad, "the field \"n\" is null"),
        ("PUT", json!({"fields": {"b": {"base64": "!!"}}}), bad, "the field \"b\": `base64` is not"),
        ("PUT", json!({"fields": {"d": deep}}), bad, "the field \"d\": the value is nested deeper than 8"),
        ("PUT", json!({"fields": {"": 1}}), bad, "\"\" is not the name of a field"),
        ("PUT", json!({"fields": {long: 1}}), bad, "n…\" is not the name of a field"),
        ("PUT", json!({"ttl": 0}), bad, "`ttl` is 0"),
        ("PATCH", json!({"ttl": 0}), bad, "`ttl` is 0"),
        ("PATCH", json!({}), bad, "neither a field nor `ttl` is given"),
        ("PATCH", json!({"fields": {}, "replicas": 1}), bad, "neither a field nor `ttl` is given"),
        (
            "PUT",
            json!({"fields": {"a": "x".repeat(20_000)}}),
            too_large,
            "the field \"a\": the value has 20003 bytes; the limit is 16384",
        ),
        ("PUT", json!({"fields": large}), too_large, "bytes; the limit is 49152"),
        ("PUT", json!({"fields": many}), (422, ErrorCode::Refused), "65 fields are over the limit of 64"),
    ] {
        let reply = send(&rig, method, "/registry/model/news", &body).await;
        let error = reply.assert_error(status, code);
        assert!(error.message.contains(says) && error.message.len() < 200, "{error:?}");
    }
    for (link, says) in [
        (json!({"from": "model", "relation": "uses", "to": "model/x"}), "`from` is \"model\""),
        (json!({"from": "model/x", "relation": "Uses", "to": "model/x"}), "`relation` is \"Uses\""),
        (json!({"from": "model/x", "relation": "uses", "to": "x/"}), "`to` is \"x/\""),
    ] {
        let reply = send(&rig, "POST", "/registry/links", &link).await;
        let error = reply.assert_error(400, ErrorCode::BadRequest);
        assert!(error.message.contains(says), "{error:?}");
    }
}

#[tokio::test]
async fn channels_of_the_protocol_are_not_for_users() {
    let rig = Rig::start();
    for reply in
        [rig.publish("_log", "{\"data\":\"x\"}").await, rig.get("/api/v1/channels/_log/events").await]
    {
        let error = reply.assert_error(400, ErrorCode::InvalidChannel);
        assert!(error.message.contains("reserved"), "{error:?}");
    }
}

#[test]
fn what_many_have_written_is_told_by_author() {
    let entry = |author: u8, seq: u64| log::Entry {
        author: NodeId::from_bytes([author; 32]),
        seq: Seq(seq),
        prev: None,
        hash: Hash::of(&[author]),
        step: NOW,
        category: Channel::new("app").unwrap(),
        timestamp_us: None,
        data: Bytes::from_static(b"x"),
    };
    let events = LogEvent::all_of(Change::Applied(vec![entry(1, 4), entry(1, 5), entry(2, 9), entry(1, 6)]));
    let told: Vec<_> = events.iter().map(|event| (event.author, event.head, event.entries.len())).collect();
    let author = |author: u8| Some(NodeId::from_bytes([author; 32]));
    assert_eq!(told, [(author(1), Seq(5), 2), (author(2), Seq(9), 1), (author(1), Seq(6), 1)]);
}
