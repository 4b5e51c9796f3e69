//! What must hold in every history, one property a file, each with its source.

pub mod ahead;
pub mod calm;
pub mod consumer;
pub mod fenced;
pub mod former;
pub mod healed;
pub mod held;
pub mod in_time;
pub mod kept;
pub mod permanent;
pub mod rejoin;
pub mod timeline;
pub mod writable;

use std::fmt;

/// A property that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// How.
    pub text: String,
}

impl Violation {
    /// A violation.
    pub fn new(invariant: &'static str, text: String) -> Self {
        Self { invariant, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}
