//! Nodes on hosts of their own: five network namespaces on a bridge, one node in each, at default settings.
//!
//! ```text
//!   om<pid>-1-1   om<pid>-1-2   …   om<pid>-1-5     hosts: 10.77.0.1 … 10.77.0.5 on eth0
//!        │             │                 │
//!       v1            v2       …        v5
//!        └─────────────┴──── br0 ────────┘          the hub, om<pid>-1-0
//! ```
//!
//! Cables are pulled by setting the hub's end of a link down; packets are lost by `nftables` rules within the hosts.
//! Needs root, `ip` and `nft`; the tests fail without, unless `OMNIMESH_SKIP_NETNS=1` says that they may be skipped.

mod cut;
mod hosts;
mod join;
mod log;
mod loss;
mod mesh;
mod stress;
mod tutorial;
mod twice;
