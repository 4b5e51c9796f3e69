//! The local Postgres: its process, its files, its words.

pub(crate) mod conf;
pub(crate) mod control;
pub(crate) mod numbers;
pub(crate) mod process;
pub(crate) mod query;
pub(crate) mod slots;
pub(crate) mod supervisor;
