//! What the API asks of the log and the registry.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use omnimesh_protocol::log::{Appended, Report, StoreError};
use omnimesh_protocol::registry::{
    self, Action, AsOf, Change, Direction, Entry, EntryKey, Found, LinkView, ListQuery, Page, Relation,
    SearchQuery, WalkQuery, Walked,
};
use omnimesh_protocol::{NodeId, Seq};

use super::{NodeBackend, translate};
use crate::actors::log::LogError;
use crate::actors::registry::RegistryError;
use crate::api::backend::{Answer, DurableBackend};
use crate::api::types::{LogEvent, RegistryEvent};
use crate::durable::{LogPage, LogView};
use crate::feed::Feed;
use crate::node::MeshNode;

/// What a change, and a field of an entry, takes besides its value.
const CHANGE_BYTES: usize = 256;

impl NodeBackend {
    fn node(&self) -> Result<MeshNode, LogError> {
        self.inner().map(MeshNode).map_err(|_| LogError::Stopped)
    }

    async fn backup(&self) -> Result<File, LogError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let store = self.node()?.links_of_log()?.1;
        let write = move || {
            let failed =
                |error: io::Error| StoreError::Failed(format!("a copy of it cannot be made: {error}"));
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            // In the data directory: there is a place of at least that size and with the same rights.
            let path = store.path().with_extension(format!("redb.backup-{number}"));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            let copy = store.backup(&path).and_then(|()| File::open(&path).map_err(failed));
            // The file goes with its last reader, also when nobody reads it to its end.
            let _ = std::fs::remove_file(&path);
            copy
        };
        Ok(actix_rt::task::spawn_blocking(write).await.map_err(|_| LogError::Stopped)??)
    }
}

impl DurableBackend for NodeBackend {
    fn append(
        &self,
        payloads: Vec<Bytes>,
        replicas: usize,
    ) -> Answer<'_, Vec<Result<Appended, LogError>>, LogError> {
        async move { self.node()?.append_all(payloads, replicas).await }.boxed()
    }

    fn log_page(
        &self,
        author: Option<NodeId>,
        from: Option<Seq>,
        limit: usize,
    ) -> Answer<'_, LogPage, LogError> {
        async move {
            let node = self.node()?;
            node.log_page(author.unwrap_or(node.0.me), from, limit).await
        }
        .boxed()
    }

    fn log(&self) -> Answer<'_, LogView, LogError> {
        async move { self.node()?.log().await }.boxed()
    }

    fn log_reports(&self) -> Answer<'_, Vec<Report>, LogError> {
        async move { self.node()?.log_reports().await }.boxed()
    }

    fn log_events(&self) -> Answer<'_, Feed<LogEvent>, LogError> {
        async move {
            let node = self.node()?;
            let changes = node.log_changes().await?;
            Ok(translate(&node.0, changes, |change| {
                let events = LogEvent::all_of(change);
                events.into_iter().map(|event| (weight_of_log(&event), event)).collect::<Vec<_>>()
            }))
        }
        .boxed()
    }

    fn log_backup(&self) -> Answer<'_, File, LogError> {
        self.backup().boxed()
    }

    fn registry_write(&self, action: Action, replicas: usize) -> Answer<'_, (AsOf, Appended), RegistryError> {
        async move {
            let node = self.node()?;
            let appended = node.registry_write(action, replicas).await?;
            Ok((node.registry(registry::State::as_of).await?, appended))
        }
        .boxed()
    }

    fn registry_get(&self, key: EntryKey) -> Answer<'_, registry::Answer<Option<Entry>>, LogError> {
        async move { self.node()?.registry(move |state, now| state.get(&key, now)).await }.boxed()
    }

    fn registry_list(&self, query: ListQuery) -> Answer<'_, registry::Answer<Page>, LogError> {
        async move { self.node()?.registry(move |state, now| state.list(&query, now)).await }.boxed()
    }

    fn registry_search(&self, query: SearchQuery) -> Answer<'_, registry::Answer<Found>, LogError> {
        async move { self.node()?.registry(move |state, now| state.search(&query, now)).await }.boxed()
    }

    fn registry_links(
        &self,
        key: EntryKey,
        direction: Direction,
        relations: Vec<Relation>,
    ) -> Answer<'_, registry::Answer<Vec<LinkView>>, LogError> {
        let question = move |state: &registry::State, now| state.links(&key, direction, &relations, now);
        async move { self.node()?.registry(question).await }.boxed()
    }

    fn registry_walk(&self, query: WalkQuery) -> Answer<'_, registry::Answer<Walked>, LogError> {
        async move { self.node()?.registry(move |state, now| state.walk(&query, now)).await }.boxed()
    }

    fn registry_events(&self) -> Answer<'_, Feed<RegistryEvent>, LogError> {
        async move {
            let node = self.node()?;
            let changes = node.watch_registry().await?;
            Ok(translate(&node.0, changes, |change| [(weight(&change), RegistryEvent::from(&change))]))
        }
        .boxed()
    }
}

/// The same of an event of the log.
fn weight_of_log(event: &LogEvent) -> usize {
    let entries = event.entries.iter().map(|entry| CHANGE_BYTES + entry.payload.as_bytes().len());
    CHANGE_BYTES + entries.sum::<usize>()
}

/// About how many bytes a change takes while it waits for a slow reader.
fn weight(change: &Change) -> usize {
    let Change::Entry { old, new } = change else { return CHANGE_BYTES };
    let entry = new.as_deref().or(old.as_deref());
    let values = entry.into_iter().flat_map(|entry| entry.fields.values());
    CHANGE_BYTES + values.map(|field| CHANGE_BYTES + field.value.as_bytes().len()).sum::<usize>()
}
