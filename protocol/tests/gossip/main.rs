//! Tests of the gossip router from outside: rules one by one, the wire, many routers, lists of operations,
//! fuzzing.

mod bench;
mod forest;
mod fuzz;
mod network;
mod operations;
mod rules_control;
mod rules_mesh;
mod rules_message;
mod rules_score;
mod rules_tree;
mod wire;
