//! A real server on a loopback port, asked by hand-written HTTP.

mod blob;
mod documents;
mod durable;
mod errors;
mod job;
mod observer;
mod streams;
mod support;
