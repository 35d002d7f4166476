//! How answers look: tables, YAML, JSONPath and custom columns as kubectl prints them. Pure: values in, text out.

pub(crate) mod columns;
pub(crate) mod elastic;
pub(crate) mod jsonpath;
pub(crate) mod table;
pub(crate) mod yaml;
