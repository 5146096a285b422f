//! `/api/v1/blobs`.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::{GROUP_BYTES, groups_of};

use super::{Call, SEND_AT_ONCE, check_encoding};
use crate::actors::blob::GetError;
use crate::api::backend::Backend;
use crate::api::error::{ApiError, quoted};
use crate::api::types::{Blob, BlobPut, ErrorCode};
use crate::store::blob::{BlobError, BlobStore, Putting};

/// What came of a body is written to disk in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

pub(super) async fn list(call: Call) -> Result<HttpResponse, ApiError> {
    let blobs = call.shared.backend.blob_store()?.list();
    Ok(HttpResponse::Ok().json(blobs.into_iter().map(Blob::from).collect::<Vec<_>>()))
}

/// The body is the content, of any media type.
pub(super) async fn put(mut call: Call) -> Result<HttpResponse, ApiError> {
    let is_pinned = call.query.read("pin")?.unwrap_or(true);
    check_encoding(call.request.headers())?;
    let store = call.shared.backend.blob_store()?;
    let mut putting = block(move || store.begin_put()).await?;
    let mut piece = BytesMut::new();
    let limit = call.shared.timeouts.request;
    loop {
        // The content may take as long as it likes, but it has to come.
        let part = tokio::time::timeout(limit, call.payload.next()).await.map_err(|_| {
            let message = format!("nothing of the body arrived within {limit:?}");
            ApiError::new(ErrorCode::RequestTimeout, message, SEND_AT_ONCE)
        })?;
        let Some(part) = part else { break };
        let part = part.map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the body cannot be read: {error}"), SEND_AT_ONCE)
        })?;
        piece.extend_from_slice(&part);
        if piece.len() >= PIECE_BYTES {
            putting = write(putting, piece.split().freeze()).await?;
        }
    }
    let putting = write(putting, piece.freeze()).await?;
    let blob = block(move || putting.finish(is_pinned)).await?;
    Ok(HttpResponse::Ok().json(BlobPut { hash: blob.hash, size: blob.size }))
}

async fn write(mut putting: Putting, piece: Bytes) -> Result<Putting, ApiError> {
    block(move || putting.write(&piece).map(|()| putting)).await
}

/// The content; from other nodes if it is not here.
pub(super) async fn get(call: Call) -> Result<HttpResponse, ApiError> {
    let hash = hash(&call)?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, "application/octet-stream"));
    if call.is_head() {
        return Ok(response.finish());
    }
    // Not `wait`: a large one takes its time.
    let blob = call.shared.backend.blob_get(hash).await?;
    let backend = Arc::clone(&call.shared.backend);
    // The first group before the answer begins: what cannot be had at all is an error with a reason.
    let first = if blob.size == 0 { None } else { Some(group(&*backend, blob, 0).await?) };
    response.no_chunking(blob.size);
    let first = stream::iter(first.map(Ok));
    Ok(response.streaming(first.chain(stream::try_unfold((backend, blob, 1), next_group))))
}

type Place = (Arc<dyn Backend>, BlobRef, u64);

/// An error ends the connection before the answer's end, so that a part is never taken for the whole.
async fn next_group((backend, blob, place): Place) -> Result<Option<(Bytes, Place)>, std::io::Error> {
    if place >= groups_of(blob.size) || place.saturating_mul(GROUP_BYTES) >= blob.size {
        return Ok(None);
    }
    let bytes = group(&*backend, blob, place).await.map_err(std::io::Error::other)?;
    Ok(Some((bytes, (backend, blob, place + 1))))
}

/// A group of a blob that is here. If it turns out damaged or gone, it is got from other nodes.
async fn group(backend: &dyn Backend, blob: BlobRef, group: u64) -> Result<Bytes, GetError> {
    let store = backend.blob_store()?;
    let damaged = GetError::Store(BlobError::Damaged { hash: blob.hash });
    for is_last in [false, true] {
        let from = Arc::clone(&store);
        let read = actix_rt::task::spawn_blocking(move || from.group(&blob.hash, group)).await;
        match read.map_err(|_| GetError::Stopped)? {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) | Err(BlobError::Damaged { .. }) if is_last => break,
            Ok(None) | Err(BlobError::Damaged { .. }) => match backend.blob_get(blob.hash).await {
                Ok(_) => {}
                Err(GetError::NotFound(_)) => break,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Err(damaged)
}

pub(super) async fn pin(call: Call) -> Result<HttpResponse, ApiError> {
    change(&call, |store, hash| store.pin(hash)).await
}

pub(super) async fn unpin(call: Call) -> Result<HttpResponse, ApiError> {
    change(&call, |store, hash| store.unpin(hash)).await
}

pub(super) async fn remove(call: Call) -> Result<HttpResponse, ApiError> {
    change(&call, |store, hash| store.remove(hash)).await
}

/// Answers with the blob as it was found, and as it is after a pin was set or taken back.
async fn change(
    call: &Call,
    change: fn(&BlobStore, &Hash) -> Result<(), BlobError>,
) -> Result<HttpResponse, ApiError> {
    let hash = hash(call)?;
    let store = call.shared.backend.blob_store()?;
    let view = block(move || {
        let before = store.view(&hash);
        change(&store, &hash)?;
        Ok(store.view(&hash).or(before))
    });
    let view = view.await?.ok_or_else(|| {
        let message = format!("there is no blob {hash} here");
        ApiError::new(ErrorCode::NotFound, message, "`omnimesh blob list` shows what is here")
    })?;
    Ok(HttpResponse::Ok().json(Blob::from(view)))
}

fn hash(call: &Call) -> Result<Hash, ApiError> {
    call.part("hash").parse().map_err(|error| {
        let message =
            format!("the hash of a blob is 64 hexadecimal digits; {} is {error}", quoted(call.part("hash")));
        ApiError::new(
            ErrorCode::BadRequest,
            message,
            "`omnimesh blob put` and `omnimesh blob list` print hashes",
        )
    })
}

/// Does work where one may block.
async fn block<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = actix_rt::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| GetError::Stopped)?.map_err(GetError::Store)?)
}
