//! Encryption: XChaCha20-Poly1305 in chunks (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015).
//!
//! ```text
//! encrypted = header ‖ chunk …                                   header = "OMX1" ‖ nonce (19 bytes)
//! chunk     = up to 65,536 bytes encrypted ‖ tag (16 bytes)      the header is authenticated with each
//! nonce     = first 19 bytes of keyed_hash(nonce key, content)
//! nonce key = derive_key("omnimesh 2026-11 compute nonce", key)
//! cipher key = derive_key("omnimesh 2026-11 compute cipher", key)
//! ```
//!
//! The nonce follows from the content: the same content under the same key gives the same bytes on every worker, so
//! that results can be compared, and nobody can use a nonce twice by accident. Who sees the bytes sees which of
//! them are equal, and nothing else. Chunks cannot be left out, put in another order or cut off.

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::stream::{DecryptorBE32, EncryptorBE32};
use chacha20poly1305::aead::{KeyInit, Payload};
use omnimesh_protocol::compute::ledger::FailReason;
use zeroize::Zeroizing;

use crate::compute::task::{Cancel, Context, OpError, Sink, Task};

const MAGIC: &[u8; 4] = b"OMX1";
const NONCE: usize = 19;
const HEADER: usize = MAGIC.len() + NONCE;
const CHUNK: usize = 65_536;
const TAG: usize = 16;
const CIPHER_CONTEXT: &str = "omnimesh 2026-11 compute cipher";
const NONCE_CONTEXT: &str = "omnimesh 2026-11 compute nonce";

fn key(task: &Task, context: &Context) -> Result<Zeroizing<[u8; 32]>, OpError> {
    let name = task.text("key")?.ok_or_else(|| OpError::param("key", "the name of a key"))?;
    let missing = || OpError::new(FailReason::KeyMissing, format!("there is no key {name} at this node"));
    context.keys.key(&name).ok_or_else(missing)
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    let key = Zeroizing::new(blake3::derive_key(CIPHER_CONTEXT, key));
    XChaCha20Poly1305::new((&*key).into())
}

/// Encrypts all parts, one after another.
pub(in crate::compute) fn encrypt(
    task: &Task,
    context: &Context,
    cancel: &Cancel,
    sink: &mut Sink,
) -> Result<(), OpError> {
    let key = key(task, context)?;
    let plain: Vec<&[u8]> = task.parts().map(|part| &part[..]).collect();
    let nonce_key = Zeroizing::new(blake3::derive_key(NONCE_CONTEXT, &*key));
    let mut hasher = blake3::Hasher::new_keyed(&nonce_key);
    for part in &plain {
        hasher.update(part);
    }
    let mut header = [0; HEADER];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..].copy_from_slice(&hasher.finalize().as_bytes()[..NONCE]);
    sink.push(&header)?;
    let mut stream = EncryptorBE32::from_aead(cipher(&key), header[MAGIC.len()..].into());
    let failed = |_| OpError::new(FailReason::BadInput, "the content is longer than 2^32 chunks");
    let mut chunk = Zeroizing::new(Vec::with_capacity(CHUNK));
    for mut part in plain {
        while !part.is_empty() {
            // A full chunk goes out only when something follows: the last one is marked.
            if chunk.len() == CHUNK {
                cancel.check()?;
                let payload = Payload { msg: &chunk, aad: &header };
                sink.push(&stream.encrypt_next(payload).map_err(failed)?)?;
                chunk.clear();
            }
            let (head, rest) = part.split_at(part.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(head);
            part = rest;
        }
    }
    sink.push(&stream.encrypt_last(Payload { msg: &chunk, aad: &header }).map_err(failed)?)
}

/// Decrypts one part.
pub(in crate::compute) fn decrypt(
    task: &Task,
    context: &Context,
    cancel: &Cancel,
    sink: &mut Sink,
) -> Result<(), OpError> {
    let key = key(task, context)?;
    let input = task.only_part()?;
    let bytes = input.bytes.as_deref().unwrap_or_default();
    let bad = || OpError::new(FailReason::BadInput, "not encrypted by this key, or damaged");
    let (header, mut rest) = bytes.split_first_chunk::<HEADER>().ok_or_else(bad)?;
    let nonce = header.strip_prefix(MAGIC).ok_or_else(bad)?;
    let mut stream = DecryptorBE32::from_aead(cipher(&key), nonce.into());
    while rest.len() > CHUNK + TAG {
        cancel.check()?;
        let (chunk, after) = rest.split_at(CHUNK + TAG);
        let plain = stream.decrypt_next(Payload { msg: chunk, aad: header }).map_err(|_| bad())?;
        sink.push(&Zeroizing::new(plain))?;
        rest = after;
    }
    let plain = stream.decrypt_last(Payload { msg: rest, aad: header }).map_err(|_| bad())?;
    sink.push(&Zeroizing::new(plain))
}
