//! The measurements, one per file.

pub(crate) mod all;
pub(crate) mod binary_size;
pub(crate) mod config_maps;
pub(crate) mod fanout;
pub(crate) mod flat;
pub(crate) mod idle;
pub(crate) mod list;
pub(crate) mod memory;
pub(crate) mod pods;
pub(crate) mod schedule;
pub(crate) mod start;
pub(crate) mod wasi_http;
pub(crate) mod wasm_pod;
