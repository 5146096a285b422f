//! Nodes on hosts of their own: network namespaces on a bridge.
