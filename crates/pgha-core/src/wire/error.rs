//! What is said about a document that cannot be read.

/// A document that cannot be read: which one, what it should have been, what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {document}: expected {expected}, but {problem}")]
pub struct WireError {
    /// The document, such as ``znode `sync` ``.
    pub document: &'static str,
    /// The form it should have.
    pub expected: &'static str,
    /// What is wrong.
    pub problem: String,
}
