//! Full-text search over entries: by words in kinds, names and fields.
//!
//! Text is cut into *words*: runs of letters and digits, in lower case. An entry is found if each word that is asked for
//! is the beginning of one of its words: those of its kind, its name, the names of its fields, and of the text, numbers
//! and yes or no in their values. Bytes have no words.
//!
//! The more often, the higher: a word of the entry that is one asked for counts two, one that only begins so counts one, and both
//! twice in the name. There is no index: a search looks at all entries, up to [`SEARCH_ENTRIES_MAX`].

use std::cmp::Reverse;
use std::ops::Bound;

use crate::id::Step;

use super::entry::{Entry, EntryCell};
use super::name::{EntryKey, EntryKind};
use super::query::{Answer, PAGE_MAX};
use super::state::State;
use super::value::Value;

/// Words of a search that count; further ones are ignored. Default: guess.
pub const SEARCH_WORDS_MAX: usize = 16;
/// Most entries that a search looks at. Default: guess, below a second.
pub const SEARCH_ENTRIES_MAX: usize = 100_000;

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct SearchQuery {
    /// Words, all of which an entry must have.
    pub text: String,
    /// Only entries of this kind.
    pub kind: Option<EntryKind>,
    /// At most so many; at least 1 and at most [`PAGE_MAX`].
    pub limit: usize,
}

impl SearchQuery {
    /// The words of its text, in order, each once.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        each_word(&self.text, &mut |word| {
            if words.len() < SEARCH_WORDS_MAX && !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        });
        words
    }
}

/// An entry that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// How well it fits; higher is better.
    pub score: u64,
    /// The entry.
    pub entry: Entry,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The best first, and of equal ones the one with the lower key.
    pub hits: Vec<Hit>,
    /// How many entries fit, those beyond the limit included.
    pub matches: usize,
    /// There were more entries than a search looks at.
    pub is_cut_short: bool,
}

impl State {
    /// Entries that have all words of a text. None if the text has no word.
    pub fn search(&self, query: &SearchQuery, now: Step) -> Answer<Found> {
        let words = query.words();
        let mut found = Found { hits: Vec::new(), matches: 0, is_cut_short: false };
        let mut scores: Vec<(Reverse<u64>, &EntryKey, &EntryCell)> = Vec::new();
        let first = query.kind.clone().map(|kind| EntryKey::lowest(kind, ""));
        let start = first.map_or(Bound::Unbounded, Bound::Included);
        let all = self.entries.range((start, Bound::Unbounded));
        let of_kind = all.take_while(|(key, _)| query.kind.as_ref().is_none_or(|kind| key.kind == *kind));
        for (looked_at, (key, cell)) in of_kind.enumerate() {
            if looked_at == SEARCH_ENTRIES_MAX {
                found.is_cut_short = true;
                break;
            }
            if cell.is_live(now)
                && let Some(score) = score(key, cell, &words)
            {
                scores.push((Reverse(score), key, cell));
            }
        }
        found.matches = scores.len();
        scores.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let best = scores.into_iter().take(query.limit.clamp(1, PAGE_MAX));
        found.hits = best
            .filter_map(|(Reverse(score), key, cell)| Some(Hit { score, entry: cell.view(key)? }))
            .collect();
        Answer { as_of: self.as_of(now), value: found }
    }
}

/// How well an entry fits; `None` if a word is missing.
fn score(key: &EntryKey, cell: &EntryCell, words: &[String]) -> Option<u64> {
    let mut counts = Counts { words, scores: vec![0; words.len()] };
    counts.add(key.kind.as_str(), 1);
    counts.add(key.name.as_str(), 2);
    for (name, field) in cell.fields.iter().filter(|(_, field)| !field.value.is_null()) {
        counts.add(name.as_str(), 1);
        counts.add_value(&field.value.decode());
    }
    let is_match = !words.is_empty() && counts.scores.iter().all(|score| *score > 0);
    is_match.then(|| counts.scores.iter().sum())
}

/// How well each word that is asked for was found so far.
struct Counts<'a> {
    words: &'a [String],
    scores: Vec<u64>,
}

impl Counts<'_> {
    fn add(&mut self, text: &str, weight: u64) {
        each_word(text, &mut |word| {
            for (wanted, score) in self.words.iter().zip(&mut self.scores) {
                if word.starts_with(wanted.as_str()) {
                    *score += if word.len() == wanted.len() { 2 * weight } else { weight };
                }
            }
        });
    }

    /// Values are nested at most a few levels deep.
    fn add_value(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bytes(_) => {}
            Value::Bool(value) => self.add(if *value { "true" } else { "false" }, 1),
            Value::Integer(number) => self.add(&number.to_string(), 1),
            Value::Float(number) => self.add(&number.to_string(), 1),
            Value::Text(text) => self.add(text, 1),
            Value::List(values) => values.iter().for_each(|value| self.add_value(value)),
            Value::Map(values) => values.iter().for_each(|(name, value)| {
                self.add(name, 1);
                self.add_value(value);
            }),
        }
    }
}

/// Gives each run of letters and digits in lower case.
fn each_word(text: &str, take: &mut impl FnMut(&str)) {
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        take(&word.to_lowercase());
    }
}
