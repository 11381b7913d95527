//! How clients learn types: they ask the catalog, and all of them must come from one server.

use super::Found;
use crate::sql::verdict::Reason;

/// Catalogs that say what a type is: who reads no others learns types.
const ABOUT_TYPES: [&str; 7] =
    ["pg_type", "pg_enum", "pg_range", "pg_namespace", "pg_attribute", "pg_collation", "pg_proc"];

impl Found {
    /// Notes that a system catalog is read.
    pub(super) fn reads_catalog(&mut self, name: &str) {
        self.catalog = true;
        self.asks_types |= name == "pg_type";
        self.asks_more |= !ABOUT_TYPES.contains(&name);
        self.writes(Reason::Catalog);
    }

    /// Whether the number of a type is asked for, and job objects are named in strings only. Clients are told the
    /// primary's numbers, also of types that belong to jobs: the job database's own would be other types to them.
    pub(super) fn learns_types(&self) -> bool {
        let by_name = matches!(self.job, None | Some(Reason::JobLiteral));
        self.asks_types && !self.asks_more && !self.application && by_name
    }
}
