//! The API server as its clients see it: requests go through its one door, over a store in memory.

mod deletions;
mod forms;
mod harness;
mod lists;
mod managed;
mod namespaces;
mod nodes;
mod proxies;
mod quotas;
mod reviews;
mod rules;
mod usage;
mod writes;
