//! Frames of the control stream.
