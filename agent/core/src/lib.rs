//! pure: x.
