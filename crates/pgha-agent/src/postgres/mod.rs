//! The local Postgres: its files, its words, its end; its process is in `pgha_guard::postmaster`.

pub(crate) mod conf;
pub(crate) mod control;
pub(crate) mod death;
pub(crate) mod numbers;
pub(crate) mod query;
pub(crate) mod slots;
pub(crate) mod supervisor;
