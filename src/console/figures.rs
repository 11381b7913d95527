//! What the console shows, as figures by the names of their columns: for those who tell them in other words.

use super::{
    pools, stats,
    table::{Columns, Value},
};
use crate::shared::Snapshot;

/// A result of the console.
pub(crate) struct Figures {
    columns: Columns,
    rows: Vec<Vec<Value>>,
}

/// A row of it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    columns: &'a Columns,
    values: &'a [Value],
}

impl Figures {
    /// `SHOW POOLS`.
    pub(crate) fn pools(snapshot: &Snapshot) -> Self {
        Self { columns: pools::pools_columns(), rows: pools::pools(snapshot).collect() }
    }

    /// `SHOW DATABASES`.
    pub(crate) fn databases(snapshot: &Snapshot) -> Self {
        Self { columns: pools::databases_columns(), rows: pools::databases(snapshot).collect() }
    }

    /// `SHOW STATS_TOTALS`.
    pub(crate) fn totals(snapshot: &Snapshot) -> Self {
        Self { columns: stats::totals_columns(), rows: stats::totals(snapshot).collect() }
    }

    /// `SHOW LISTS`.
    pub(crate) fn lists(snapshot: &Snapshot) -> Self {
        Self { columns: Columns::new("si", &["list", "items"]), rows: pools::lists(snapshot).collect() }
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row { columns: &self.columns, values })
    }
}

impl Row<'_> {
    fn value(&self, column: &str) -> Option<&Value> {
        self.values.get(self.columns.position(column)?)
    }

    /// The number in a column; zero if there is none.
    pub(crate) fn number(&self, column: &str) -> i64 {
        match self.value(column) {
            Some(Value::Int(number)) => *number,
            _ => 0,
        }
    }

    /// The text of a column; empty if there is none.
    pub(crate) fn text(&self, column: &str) -> String {
        match self.value(column) {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Static(text)) => (*text).to_owned(),
            Some(Value::Int(number)) => number.to_string(),
            Some(Value::Null) | None => String::new(),
        }
    }
}
