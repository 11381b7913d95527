//! What the console shows, as figures by the names of their columns: for those who tell them in other words.

use super::{
    pools, stats,
    table::{Columns, Rows, Value},
};
use crate::shared::{Snapshot, connections::Connections};

/// Results of the console at one moment: connections are gone through once.
pub(crate) struct Seen<'a> {
    snapshot: &'a Snapshot,
    census: pools::Census,
}

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

impl<'a> Seen<'a> {
    /// Results of this moment.
    pub(crate) fn now(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, census: pools::Census::take(snapshot, &Connections::of(snapshot)) }
    }

    /// `SHOW POOLS`.
    pub(crate) fn pools(&self) -> Figures {
        Figures::new(pools::pools_columns(), pools::pools(self.snapshot, &self.census))
    }

    /// `SHOW DATABASES`.
    pub(crate) fn databases(&self) -> Figures {
        Figures::new(pools::databases_columns(), pools::databases(self.snapshot, &self.census))
    }

    /// `SHOW STATS_TOTALS`.
    pub(crate) fn totals(&self) -> Figures {
        let like = self.snapshot.console.like;
        Figures::new(stats::totals_columns(like), stats::totals(self.snapshot, like))
    }

    /// `SHOW LISTS`.
    pub(crate) fn lists(&self) -> Figures {
        let columns = Columns::new("si", &["list", "items"]);
        Figures::new(columns, pools::lists(self.snapshot, &self.census))
    }
}

impl Figures {
    fn new(columns: Columns, rows: Rows) -> Self {
        Self { columns, rows: rows.collect() }
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
