//! A node's HTTP API, for threads that use it while another kills and restarts the node.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::http::{Request, Response};
use crate::wait::check;

/// Entries of a page.
const PAGE: usize = 1000;

/// Where it is, and the token. Both outlive the process if the node was told its address.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    token: String,
}

/// An entry that a node acknowledged, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub author: String,
    /// Its place.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// What it says.
    pub data: String,
}

impl Api {
    pub(crate) fn new(address: SocketAddr, token: String) -> Api {
        Api { address, token }
    }

    /// Sends a request with the token.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn send(&self, request: Request) -> Result<Response, String> {
        request.token(&self.token).send(self.address)
    }

    /// A document.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.send(Request::get(&format!("/api/v1/{path}")))?.json()
    }

    /// Appends entries. The second list is why those were not taken that are not in the first.
    ///
    /// # Errors
    /// Why there is no answer; any of them may have been appended.
    pub fn append(&self, data: &[String], replicas: usize) -> Result<(Vec<Entry>, Vec<Value>), String> {
        let entries: Vec<Value> = data.iter().map(|data| json!({ "data": data })).collect();
        let body = json!({ "entries": entries, "replicas": replicas }).to_string();
        let results = self.send(Request::post("/api/v1/log/batches", &body))?.json()?;
        let results = results.as_array().ok_or("no list")?;
        check(results.len() == data.len(), || format!("{} answers to {}", results.len(), data.len()))?;
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for (result, data) in results.iter().zip(data) {
            match result["durable"].as_bool() {
                Some(true) => taken.push(entry(result, data)),
                _ => refused.push(result.clone()),
            }
        }
        Ok((taken, refused))
    }

    /// Writes an entry of the registry.
    ///
    /// # Errors
    /// Why it was not written, as far as is known.
    pub fn put(&self, key: &str, fields: &Value) -> Result<Value, String> {
        let body = json!({ "fields": fields }).to_string();
        let path = format!("/api/v1/registry/{key}");
        self.send(Request::new("PUT", &path, &body).header("Content-Type", "application/json"))?.json()
    }

    /// All entries of an author, each of which must follow on the one before it.
    ///
    /// # Errors
    /// Why they cannot be had, or where the chain is broken.
    pub fn entries(&self, author: &str) -> Result<Vec<Entry>, String> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = None;
        loop {
            let from = next.map_or_else(String::new, |next: u64| format!("&from={next}"));
            let page = self.get(&format!("log/entries?author={author}&limit={PAGE}{from}"))?;
            for value in page["entries"].as_array().into_iter().flatten() {
                let data = value["data"].as_str().or(value["data_base64"].as_str()).unwrap_or_default();
                let entry = entry(value, data);
                let before = entries.last();
                let is_next = entry.seq == before.map_or(1, |before| before.seq + 1)
                    && value["prev"].as_str() == before.map(|before| before.hash.as_str());
                check(is_next, || format!("{value} follows on {before:?}"))?;
                entries.push(entry);
            }
            next = page["next"].as_u64();
            if next.is_none() {
                return Ok(entries);
            }
        }
    }

    /// All entries of all authors.
    ///
    /// # Errors
    /// As [`Api::entries`].
    pub fn all_entries(&self) -> Result<BTreeMap<String, Vec<Entry>>, String> {
        let heads = self.get("log/heads")?;
        let authors = heads.as_array().into_iter().flatten().filter_map(|head| head["author"].as_str());
        authors.map(|author| Ok((author.to_owned(), self.entries(author)?))).collect()
    }

    /// What has to be the same on all nodes: the heads, the fingerprint, the registry and the entries that it is made of.
    /// An error while the node knows of entries that it does not have.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn summary(&self) -> Result<Value, String> {
        let (status, heads) = (self.get("log/status")?, self.get("log/heads")?);
        check(status["behind"] == 0 && status["own_log_known"] == true, || status.to_string())?;
        let registry = self.get(&format!("registry?limit={PAGE}"))?;
        check(registry["next"].is_null(), || "there are more entries than one page".to_owned())?;
        Ok(json!({
            "fingerprint": status["fingerprint"], "entries": status["entries"], "heads": heads,
            "registry": registry["entries"], "registry_heads": registry["as_of"]["heads"],
        }))
    }

    /// The value of a metric without labels.
    ///
    /// # Errors
    /// If there is none.
    pub fn metric(&self, name: &str) -> Result<f64, String> {
        let text = self.send(Request::get("/metrics"))?.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| format!("no metric {name} in {text}"))
    }
}

fn entry(value: &Value, data: &str) -> Entry {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Entry {
        author: text("author"),
        seq: value["seq"].as_u64().unwrap_or_default(),
        hash: text("hash"),
        data: data.to_owned(),
    }
}

/// What all of them have in common.
///
/// # Errors
/// Where they differ.
pub fn equal(apis: &[Api]) -> Result<Value, String> {
    let first = apis.first().ok_or("nobody")?.summary()?;
    for (number, api) in apis.iter().enumerate().skip(1) {
        let other = api.summary()?;
        for part in ["entries", "heads", "fingerprint", "registry_heads", "registry"] {
            let (ours, theirs) = (&first[part], &other[part]);
            check(ours == theirs, || {
                format!("{part} of node 1 and node {} differ:\n{ours:.2000}\n{theirs:.2000}", number + 1)
            })?;
        }
    }
    Ok(first)
}
