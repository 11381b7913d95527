//! Which text a verdict is of.

/// Stands for a text without its literals, as far as it was judged by itself; the same for all texts that share a
/// verdict. Only the classifier that made it gives the same one again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TextId(u64);

impl TextId {
    /// The id of no text.
    pub const NONE: Self = Self(0);

    /// The id of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number that it is.
    pub const fn number(self) -> u64 {
        self.0
    }
}
