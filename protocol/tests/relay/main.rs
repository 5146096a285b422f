//! Tests of the relay from outside: rules one by one, many relays, lists of operations.

mod bench;
mod network;
mod operations;
mod rules;
