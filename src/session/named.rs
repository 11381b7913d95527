//! A session's named prepared statements, and how many bytes they take.

use std::collections::HashMap;

use crate::backend::statements::OwnStatement;

/// Bytes of a statement besides its name, its text and its types: the entries here and on backends.
const ENTRY_BYTES: usize = 256;

/// By the client's own names, as long as the server keeps them.
#[derive(Debug, Default)]
pub(super) struct Named {
    statements: HashMap<Box<[u8]>, OwnStatement, foldhash::fast::RandomState>,
    bytes: usize,
}

/// The bytes that a statement of this name takes.
pub(super) const fn cost(name: &[u8], text: &[u8], types: &[u8]) -> usize {
    name.len() + text.len() + types.len() + ENTRY_BYTES
}

impl Named {
    pub(super) fn len(&self) -> usize {
        self.statements.len()
    }

    /// The bytes that all of them take, as if nobody else had them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&OwnStatement> {
        self.statements.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut OwnStatement> {
        self.statements.get_mut(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &OwnStatement)> {
        self.statements.iter().map(|(name, own)| (name.as_ref(), own))
    }

    pub(super) fn contains_key(&self, name: &[u8]) -> bool {
        self.statements.contains_key(name)
    }

    pub(super) fn insert(&mut self, name: Box<[u8]>, statement: OwnStatement) -> Option<OwnStatement> {
        let earlier = self.remove(&name);
        self.bytes += cost(&name, &statement.text, &statement.types);
        self.statements.insert(name, statement);
        earlier
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<OwnStatement> {
        let removed = self.statements.remove(name)?;
        self.bytes -= cost(name, &removed.text, &removed.types);
        Some(removed)
    }

    pub(super) fn clear(&mut self) {
        self.statements.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::{
        backend::statements::{Statement, StatementId},
        sql::{Class, Reason, Verdict},
    };

    fn statement(text: &[u8]) -> OwnStatement {
        let verdict = Verdict::new(Class::Read, Reason::ReadOnly);
        OwnStatement::new(Arc::new(Statement {
            id: StatementId(1),
            text: text.into(),
            types: Box::from([0, 0]),
            verdict,
            epochs: (0, 0),
        }))
    }

    #[test]
    fn bytes_follow_what_is_there() {
        let mut named = Named::default();
        named.insert(Box::from(*b"a"), statement(&[b'x'; 1000]));
        let one = named.bytes();
        assert!(one > 1000);
        named.insert(Box::from(*b"b"), statement(&[b'x'; 1000]));
        assert_eq!(named.bytes(), 2 * one);
        assert!(named.insert(Box::from(*b"b"), statement(b"x")).is_some());
        assert_eq!(named.bytes(), 2 * one - 999);
        assert!(named.remove(b"c").is_none() && named.remove(b"b").is_some());
        assert_eq!(named.bytes(), one);
        named.clear();
        assert_eq!((named.bytes(), named.len()), (0, 0));
    }
}
