//! shell: x.
