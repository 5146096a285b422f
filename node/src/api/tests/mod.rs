//! A real server on a loopback port, asked by hand-written HTTP.

mod documents;
mod durable;
mod errors;
mod observer;
mod streams;
mod support;
