//! Blobs in the OpenAPI document.

use serde_json::{Map, Value, json};

use super::durable::{errors, query, whole, with_parameters};
use super::{answer, boolean, hex, list, object, ok, operation, parameter, string};
use crate::api::types::ErrorCode;

pub(super) fn add_paths(paths: &mut Map<String, Value>) {
    if let Value::Object(more) = blob_paths() {
        paths.extend(more);
    }
}

fn blob_paths() -> Value {
    let refused: &[ErrorCode] = &[ErrorCode::Refused];
    let found: &[ErrorCode] = &[ErrorCode::NotFound, ErrorCode::BadRequest];
    let full: &[ErrorCode] = &[ErrorCode::StorageFull];
    let body: &[ErrorCode] =
        &[ErrorCode::BadRequest, ErrorCode::RequestTimeout, ErrorCode::UnsupportedMediaType];
    let name = json!([parameter("hash", "BLAKE3 of the content", &hex(64))]);
    let all = operation("blobList", "What is here of blobs, by hash", list("Blob"), &errors(&[refused]));
    let mut put = operation(
        "blobPut",
        "Takes content in, of any length and media type; answered when it is on disk",
        ok("BlobPut"),
        &errors(&[refused, full, body]),
    );
    put["requestBody"] = json!({
        "required": true,
        "content": { "application/octet-stream": { "schema": string() } },
    });
    let put = with_parameters(
        put,
        &[query("pin", "Whether it stays until the pin is taken back; true unless given", &boolean())],
    );
    let get = operation(
        "blobGet",
        "The content. If it is not here, it is fetched from all nodes that hold it, and checked piece by piece",
        answer("application/octet-stream", &string()),
        &errors(&[refused, found, full]),
    );
    let change = |id, summary| operation(id, summary, ok("Blob"), &errors(&[refused, found]));
    json!({
        "/api/v1/blobs": { "get": all, "post": put },
        "/api/v1/blobs/{hash}": {
            "parameters": name,
            "get": get,
            "delete": change("blobDelete", "Deletes a blob here, pinned or not"),
        },
        "/api/v1/blobs/{hash}/pin": {
            "parameters": name,
            "put": change("blobPin", "Keeps a blob that is here"),
            "delete": change("blobUnpin", "Lets a blob go when there is need of room"),
        },
    })
}

pub(super) fn add_schemas(schemas: &mut Map<String, Value>) {
    let mut add = |name: &str, schema| schemas.insert(name.to_owned(), schema);
    let name = [("hash", hex(64)), ("size", whole(0))];
    add("BlobPut", object(&name, &[]));
    let here = [("here_bytes", whole(0)), ("pinned", boolean())];
    add("Blob", object(&[&name[..], &here[..]].concat(), &[]));
}
