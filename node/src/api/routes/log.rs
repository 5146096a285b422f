//! `/api/v1/log`.

use std::fs::File;
use std::io::Read;

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::Bytes;
use futures::stream;
use omnimesh_protocol::{NodeId, Seq};

use super::{Call, DATA, sse};
use crate::api::error::ApiError;
use crate::api::types::{
    AppendBatch, AppendRequest, BatchResult, CatchUp, ErrorCode, LogAppended, LogEntries, LogHead, LogProof,
    LogStatus,
};
use crate::durable::HeadView;

/// Entries of a page, at most.
pub(in crate::api) const ENTRIES_MAX: usize = 1000;
/// Entries of a page unless told otherwise.
const ENTRIES_DEFAULT: usize = 100;
/// Entries of a batch, at most.
pub(in crate::api) const BATCH_MAX: usize = 1024;
/// A backup is sent in parts of this size.
const BACKUP_PART_BYTES: usize = 256 << 10;

pub(super) async fn append(mut call: Call) -> Result<HttpResponse, ApiError> {
    let AppendRequest { payload, replicas } = call.document(DATA).await?;
    let payloads = vec![payload.into_bytes()];
    let mut appended = call.wait(call.shared.backend.append(payloads, replicas)).await?;
    let appended = appended
        .pop()
        .ok_or_else(|| ApiError::new(ErrorCode::Internal, "no answer", "a bug, please report"))??;
    Ok(HttpResponse::Ok().json(LogAppended::from(appended)))
}

pub(super) async fn append_batch(mut call: Call) -> Result<HttpResponse, ApiError> {
    let AppendBatch { entries, replicas } = call.document("{\"entries\": [{\"data\": \"text\"}, …]}").await?;
    if entries.len() > BATCH_MAX {
        let message = format!("a batch of {} entries is over the limit of {BATCH_MAX}", entries.len());
        return Err(ApiError::new(ErrorCode::TooLarge, message, "send several"));
    }
    let payloads = entries.into_iter().map(|entry| entry.payload.into_bytes()).collect();
    let results = call.wait(call.shared.backend.append(payloads, replicas)).await?;
    let view = |result| match result {
        Ok(appended) => BatchResult::Appended(LogAppended::from(appended)),
        Err(error) => BatchResult::Failed { error: ApiError::from(error).detail() },
    };
    Ok(HttpResponse::Ok().json(results.into_iter().map(view).collect::<Vec<_>>()))
}

pub(super) async fn entries(call: Call) -> Result<HttpResponse, ApiError> {
    let author: Option<NodeId> = call.query.read("author")?;
    let from = call.query.within("from", &(1..=u64::MAX))?.map(Seq);
    let limit = call.query.limit(ENTRIES_DEFAULT, ENTRIES_MAX)?;
    let page = call.wait(call.shared.backend.log_page(author, from, limit)).await?;
    Ok(HttpResponse::Ok().json(LogEntries::from(page)))
}

pub(super) async fn heads(call: Call) -> Result<HttpResponse, ApiError> {
    let view = call.wait(call.shared.backend.log()).await?;
    let heads = view.heads.into_iter().map(|head: HeadView| LogHead::from(head));
    Ok(HttpResponse::Ok().json(heads.collect::<Vec<_>>()))
}

pub(super) async fn gaps(call: Call) -> Result<HttpResponse, ApiError> {
    let reports = call.wait(call.shared.backend.log_reports()).await?;
    Ok(HttpResponse::Ok().json(reports.into_iter().map(CatchUp::from).collect::<Vec<_>>()))
}

pub(super) async fn status(call: Call) -> Result<HttpResponse, ApiError> {
    let view = call.wait(call.shared.backend.log()).await?;
    Ok(HttpResponse::Ok().json(LogStatus::from(&view)))
}

pub(super) async fn proofs(call: Call) -> Result<HttpResponse, ApiError> {
    let view = call.wait(call.shared.backend.log()).await?;
    Ok(HttpResponse::Ok().json(view.proofs.iter().map(LogProof::from).collect::<Vec<_>>()))
}

pub(super) async fn events(call: Call) -> Result<HttpResponse, ApiError> {
    if call.is_head() {
        return Ok(sse::respond_head());
    }
    let slot = call.slot()?;
    let feed = call.wait(call.shared.backend.log_events()).await?;
    Ok(sse::respond(&call.shared, slot, feed))
}

pub(super) async fn backup(call: Call) -> Result<HttpResponse, ApiError> {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, "application/octet-stream"));
    if call.is_head() {
        return Ok(response.finish());
    }
    // Not `wait`: a large log takes its time.
    let file = call.shared.backend.log_backup().await?;
    Ok(response.streaming(stream::try_unfold(file, next_part)))
}

/// The next part of a file, read where one may block. An error ends the connection before the answer's end, so that
/// a part is never taken for the whole.
async fn next_part(mut file: File) -> Result<Option<(Bytes, File)>, std::io::Error> {
    let read = move || {
        let mut part = vec![0; BACKUP_PART_BYTES];
        let bytes = file.read(&mut part)?;
        part.truncate(bytes);
        Ok((bytes > 0).then_some((Bytes::from(part), file)))
    };
    actix_rt::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
