//! Step clock and step synchronisation.
