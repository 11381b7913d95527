//! A transaction that has added jobs on their own server, and nothing else there, and goes on with the application's tables:
//! the rows that it has added are carried over to the primary, where they are part of its transaction and relayed after its
//! commit as if they had been added there. They keep their numbers, which the application has been told.

use super::{
    Session, Stop,
    held::Held,
    hold::{Leased, Work},
    reply::{self, Reply},
    request::Request,
    transaction::LocalTransaction,
};
use crate::{
    backend::query::Answer,
    route::{Demand, PoolId},
    sql::{Reading, quote_literal, quote_name},
    wire::TxStatus,
};

/// Rows, and bytes of them as JSON, that are carried over; a transaction that has added more is refused.
const ROWS_MAX: usize = 1_000;
const BYTES_MAX: usize = 4 << 20;

/// The columns of the tables that the transaction has written to, but for those that are computed from others: each with its
/// type, and whether policies may hide rows of its table. A table that is written to is locked so until the transaction ends.
const COLUMNS: &str = "SELECT n.nspname, c.relname, pg_catalog.row_security_active(c.oid), \
    pg_catalog.quote_ident(a.attname::pg_catalog.text), pg_catalog.format('%I.%I', m.nspname, y.typname) \
    FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid \
    JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) a.atttypid \
    JOIN pg_catalog.pg_namespace m ON m.oid OPERATOR(pg_catalog.=) y.typnamespace \
    WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog.\"char\"[]) AND NOT c.relispartition \
    AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
    AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped \
    AND a.attgenerated OPERATOR(pg_catalog.=) ''::pg_catalog.\"char\" \
    AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.relation OPERATOR(pg_catalog.=) c.oid \
    AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
    AND l.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock'::pg_catalog.text) ORDER BY 1, 2, a.attnum";

/// Has values be written in a way that reads the same with any settings. It holds to the end of the transaction, which is
/// undone on this server whatever comes of it.
const EXACT: &str = "SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 3; \
    SET LOCAL bytea_output = 'hex'";

/// A column: its name and its type, as they are written in SQL whatever the search path is.
struct Column {
    name: String,
    kind: String,
}

/// A table that the transaction has written to.
struct Written {
    schema: String,
    table: String,
    /// Policies may hide some of its rows.
    hides: bool,
    columns: Vec<Column>,
}

/// A table whose rows are named by numbers of their own server, and its columns; as names in quotes.
struct Parent {
    relation: String,
    column: String,
    id: String,
    name: String,
}

/// The tables, of rows as [`COLUMNS`] gives them.
fn written(rows: Vec<Vec<Option<String>>>) -> Vec<Written> {
    let mut tables: Vec<Written> = Vec::new();
    for row in rows {
        let mut row = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || row.next().unwrap_or_default();
        let (schema, table, hides) = (next(), next(), next() == "t");
        let column = Column { name: next(), kind: next() };
        match tables.last_mut().filter(|last| last.schema == schema && last.table == table) {
            Some(last) => last.columns.push(column),
            None => tables.push(Written { schema, table, hides, columns: vec![column] }),
        }
    }
    tables
}

/// The rows of a table that the transaction itself, or a part of it that has its own number, has added: nobody else's are seen
/// while they are in progress. How many, how many of these name what is not there, and all of them: each an array of texts,
/// the names of what it names at the end.
fn added(relation: &str, columns: &[Column], parents: &[Parent]) -> String {
    const ID: &str = "(SELECT bulkhead_id FROM bulkhead_me)";
    const AGE: &str = "(SELECT bulkhead_age FROM bulkhead_me)";
    let name_of = |Parent { relation, column, id, name }: &Parent| {
        format!("(SELECT p.{name} FROM {relation} AS p WHERE p.{id} OPERATOR(pg_catalog.=) t.{column})")
    };
    let names: Vec<String> = parents.iter().map(name_of).collect();
    let is_orphan = |(Parent { column, .. }, name): (&Parent, &String)| {
        format!(" OR t.{column} IS NOT NULL AND {name} IS NULL")
    };
    let orphans: String = parents.iter().zip(&names).map(is_orphan).collect();
    let own = columns.iter().map(|column| format!("t.{}", column.name));
    let texts = own.chain(names.iter().cloned()).map(|value| format!("{value}::pg_catalog.text"));
    format!(
        "WITH bulkhead_me AS MATERIALIZED (SELECT pg_catalog.txid_current() AS bulkhead_id, \
         pg_catalog.age(pg_catalog.mod(pg_catalog.txid_current(), 4294967296)::pg_catalog.text::pg_catalog.xid) AS bulkhead_age), \
         mine AS (SELECT ARRAY[{texts}] AS bulkhead_row, (false{orphans}) AS bulkhead_orphan FROM {relation} AS t WHERE CASE \
         WHEN pg_catalog.age(t.xmin) OPERATOR(pg_catalog.<=) {AGE} THEN pg_catalog.txid_status({ID} \
         OPERATOR(pg_catalog.+) ({AGE} OPERATOR(pg_catalog.-) pg_catalog.age(t.xmin))) \
         OPERATOR(pg_catalog.=) 'in progress'::pg_catalog.text ELSE false END LIMIT {}) \
         SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE bulkhead_orphan), \
         pg_catalog.json_agg(bulkhead_row)::pg_catalog.text FROM mine",
        ROWS_MAX + 1,
        texts = texts.collect::<Vec<_>>().join(", "),
    )
}

/// Rows of one table.
struct Carried {
    relation: String,
    columns: Vec<Column>,
    parents: Vec<Parent>,
    rows: String,
}

impl Carried {
    /// Statements that insert them on the primary. What they name is added there if it is not there, and they get the
    /// numbers that it has there.
    fn insert(&self) -> Vec<String> {
        let Self { relation, columns, parents, rows } = self;
        let elements = format!("pg_catalog.json_array_elements({}) AS x (bulkhead_row)", quote_literal(rows));
        let given = |at: usize| format!("(x.bulkhead_row OPERATOR(pg_catalog.->>) {at})");
        let mut statements = Vec::new();
        let mut numbers = Vec::new();
        for (at, Parent { relation, column, id, name }) in parents.iter().enumerate() {
            let given = given(columns.len() + at);
            let same = format!("p.{name}::pg_catalog.text OPERATOR(pg_catalog.=) {given}");
            statements.push(format!(
                "INSERT INTO {relation} ({name}) SELECT DISTINCT {given} FROM {elements} WHERE {given} IS NOT NULL \
                 AND NOT EXISTS (SELECT FROM {relation} AS p WHERE {same}) ORDER BY 1 ON CONFLICT DO NOTHING"
            ));
            numbers.push((column.as_str(), format!("(SELECT p.{id} FROM {relation} AS p WHERE {same})")));
        }
        let values = columns.iter().enumerate().map(|(at, Column { name, kind })| {
            let number = numbers.iter().find(|(of, _)| *of == name);
            number.map_or_else(|| format!("{}::{kind}", given(at)), |(_, number)| number.clone())
        });
        let values = values.collect::<Vec<_>>().join(", ");
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        statements.push(format!(
            "INSERT INTO {relation} ({}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {elements}",
            names.join(", ")
        ));
        statements
    }
}

impl Session {
    /// Carries over what the transaction has added on the jobs' server, so that the request may be run on the primary's. False
    /// if that cannot be done; then nothing has changed.
    pub(super) async fn carry_over(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Result<bool, Stop> {
        let snapshot = std::sync::Arc::clone(&self.view.snapshot);
        let goes_to_primary = snapshot.routes.jobs.is_some_and(|jobs| !snapshot.same_server(pool, jobs));
        let Some(across) = &self.hold.across else { return Ok(false) };
        let opening = across.opening();
        let may_be = goes_to_primary
            // Rows are read here as they would be from anybody.
            && self.judge().reading == Reading::Utf8
            && self.relays()
            && !opening.is_empty()
            // Rows that are added before a savepoint and behind it would be the same on the primary.
            && !across.has_savepoint;
        if !may_be {
            return Ok(false);
        }
        let opening: Vec<String> =
            opening.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        if !self.is_on_jobs() {
            self.change_places();
        }
        let only_adds = |leased: &Leased| leased.work == Work::Adds && leased.protocol.quiescent().is_none();
        let may_be = self.is_on_jobs() && self.hold.backend().is_some_and(only_adds);
        let Some(carried) = (if may_be { self.added_rows().await? } else { None }) else { return Ok(false) };
        if self.hold.is_both() {
            self.change_places();
        } else {
            self.second(request, demand, judged_at, pool).await?;
            for text in &opening {
                self.say(text).await?;
            }
        }
        for sql in carried.iter().flat_map(Carried::insert) {
            self.say(&sql).await?;
        }
        let Held { leased, .. } = self.held();
        (leased.work, leased.adds_jobs) = (Work::Writes, true);
        self.end_other("ROLLBACK").await?;
        Ok(true)
    }

    /// The rows that the transaction has added; `None` if they are too many, name what is gone, or may be hidden from it.
    async fn added_rows(&mut self) -> Result<Option<Vec<Carried>>, Stop> {
        let snapshot = std::sync::Arc::clone(&self.view.snapshot);
        let rules = snapshot.classifier.rules();
        let mut carried = Vec::new();
        let mut bytes = 0;
        self.say(EXACT).await?;
        for Written { schema, table, hides, columns } in written(self.say(COLUMNS).await?.rows) {
            let Some(relayed) = rules.relayed(Some(&schema), &table) else { continue };
            if hides {
                return Ok(None);
            }
            let parents: Vec<Parent> = relayed
                .parents
                .iter()
                .map(|of| Parent {
                    relation: format!("{}.{}", quote_name(&schema), quote_name(of.table)),
                    column: of.column.to_owned(),
                    id: quote_name(of.id),
                    name: quote_name(of.name),
                })
                .collect();
            let relation = format!("{}.{}", quote_name(&schema), quote_name(&table));
            let found = self.say(&added(&relation, &columns, &parents)).await?.rows.into_iter().next();
            let mut found = found.into_iter().flatten().map(Option::unwrap_or_default);
            let mut number = || found.next().and_then(|number| number.parse().ok()).unwrap_or(0_usize);
            let (count, orphans) = (number(), number());
            let rows = found.next().unwrap_or_default();
            bytes += rows.len();
            if count > ROWS_MAX || bytes > BYTES_MAX || orphans > 0 {
                return Ok(None);
            }
            if count > 0 {
                carried.push(Carried { relation, columns, parents, rows });
            }
        }
        Ok(Some(carried))
    }

    /// Says something of ours in the transaction on the backend. Its error is the client's.
    pub(super) async fn say(&mut self, sql: &str) -> Result<Answer, Stop> {
        let Held { leased, transaction, .. } = self.held();
        match leased.ask(sql).await {
            Ok(Answer { error: Some(fields), .. }) => {
                if leased.protocol.status() == TxStatus::Idle {
                    // The transaction could not be opened here: the client's has failed all the same.
                    *transaction = LocalTransaction::Failed;
                }
                Err(Reply::from_server(&fields).into())
            }
            Ok(answer) => Ok(answer),
            Err(broken) => {
                let reply = reply::transaction_lost(&broken, None);
                self.end_lease(broken)?;
                self.hold.transaction = LocalTransaction::Failed;
                Err(reply.into())
            }
        }
    }
}
