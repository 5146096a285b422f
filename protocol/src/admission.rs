//! Admission: who is a member.
