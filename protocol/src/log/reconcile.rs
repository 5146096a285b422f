//! Range-based set reconciliation of heads.
