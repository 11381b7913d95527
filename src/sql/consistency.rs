//! How fresh a replica must be for a read.

/// How fresh a replica must be for a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// It has replayed what this instance has written to the tables that the read reaches.
    #[default]
    Tables,
    /// It has replayed what this session has written, and seen.
    Session,
    /// It has replayed everything that was committed when the read arrived.
    Strong,
    /// It is within its bound on lag.
    Eventual,
}

impl Consistency {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Tables, Self::Session, Self::Strong, Self::Eventual];

    /// Its name in the configuration, in settings and hints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Session => "session",
            Self::Strong => "strong",
            Self::Eventual => "eventual",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}
