//! What a name in a statement is used as.

/// The use of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Use {
    /// Called.
    Call,
    /// `x.name`: a column, or a call.
    Attribute,
    /// Read from.
    Read,
    /// Written to.
    Write,
    /// Written to, rows being deleted.
    Delete,
    /// A type.
    Type,
    /// An operator.
    Operator,
    /// Named in a program, as whatever.
    Mention,
}
