//! A way to leave state behind.

/// A way: statements, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) deed: Deed,
    /// The client encoding that it needs.
    pub(super) tongue: Option<&'static str>,
    /// The user that it needs.
    pub(super) user: Option<&'static str>,
    /// Whether it reads data from the client, which only works by simple queries.
    pub(super) simple: bool,
    /// Whether it is here for what it must not do: it leaves nothing that can be looked at.
    pub(super) traceless: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Deed {
    /// `{n}` is a number that no other attack has.
    Sql(&'static [&'static str]),
    /// In any bytes. Where the last one seems to have the shape of the first one, the first one is harmless.
    Bytes(&'static [&'static [u8]]),
    /// A statement with values.
    Bound(&'static str, &'static [&'static [u8]]),
    /// `set_config` of a value with so many bytes.
    Large(&'static str, usize),
    /// A FunctionCall message: the function as `regprocedure` writes it, and its arguments.
    Call(&'static str, &'static [&'static str]),
}

pub(super) const fn of(name: &'static str, deed: Deed) -> Way {
    Way { name, deed, tongue: None, user: None, simple: false, traceless: false }
}

pub(super) const fn sql(name: &'static str, parts: &'static [&'static str]) -> Way {
    of(name, Deed::Sql(parts))
}

impl Way {
    pub(super) const fn traceless(mut self) -> Self {
        self.traceless = true;
        self
    }

    pub(super) const fn simple(mut self) -> Self {
        self.simple = true;
        self
    }

    pub(super) const fn tongue(mut self, tongue: &'static str) -> Self {
        self.tongue = Some(tongue);
        self
    }

    /// By a role whose strings are old ones.
    pub(super) const fn old(mut self) -> Self {
        self.user = Some("app_trust");
        self
    }
}
