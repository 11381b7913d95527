//! Authentication, both sides.
