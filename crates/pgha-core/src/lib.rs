//! The rules of pgha: types, documents and decisions. No I/O, no clock, no async.

#![forbid(unsafe_code)]

pub mod config;
pub mod lsn;
pub mod name;
pub mod time;
pub mod timing;
pub mod wire;
