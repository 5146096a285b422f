//! Dialer: whom to connect to.
