//! From bare hosts to a highly available PostgreSQL cluster, over SSH.
//!
//! ```text
//!  inventory.toml ──► inventory ──► cluster ─┐
//!  secrets, pki, programs ───────────────────┼──► role ──► resource ──► plan ──► run ──► remote ──► ssh ──► hosts
//!  hosts ──► ssh ──► facts ──► checks ───────┘                           │        └────► event ──► show
//! ```

#![forbid(unsafe_code)]

pub mod checks;
pub mod cluster;
mod diff;
pub mod event;
pub mod facts;
mod hint;
pub mod inventory;
pub mod pki;
pub mod plan;
pub mod programs;
mod remote;
pub mod render;
pub mod resource;
pub mod role;
pub mod run;
pub mod secrets;
pub mod show;
pub mod ssh;
