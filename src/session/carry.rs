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
    sql::{quote_literal, quote_name},
    wire::TxStatus,
};

/// Rows, and bytes of them as JSON, that are carried over; a transaction that has added more is refused.
const ROWS_MAX: usize = 1_000;
const BYTES_MAX: usize = 4 << 20;

/// The tables that have some columns, none of which is computed from others, with these columns.
const TABLES: &str = "SELECT n.nspname, c.relname, \
    pg_catalog.string_agg(pg_catalog.quote_ident(a.attname::pg_catalog.text), ', ' ORDER BY a.attnum) \
    FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid \
    WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog.\"char\"[]) AND NOT c.relispartition \
    AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
    AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped \
    AND a.attgenerated OPERATOR(pg_catalog.=) ''::pg_catalog.\"char\" \
    GROUP BY n.nspname, c.relname";

/// The rows of a table that the transaction itself, or a part of it that has its own number, has added: nobody else's are seen
/// while they are in progress. How many, how many of these name what is not there, and all of them.
fn added(relation: &str, columns: &str, parents: &[Parent]) -> String {
    const ID: &str = "(SELECT bulkhead_id FROM bulkhead_me)";
    const AGE: &str = "(SELECT bulkhead_age FROM bulkhead_me)";
    let name_of = |(at, Parent { relation, column, id, name }): (usize, &Parent)| {
        format!(
            ", (SELECT p.{name} FROM {relation} AS p WHERE p.{id} OPERATOR(pg_catalog.=) t.{column}) AS bulkhead_name_{at}"
        )
    };
    let is_orphan = |(at, Parent { column, .. }): (usize, &Parent)| {
        format!(" OR {column} IS NOT NULL AND bulkhead_name_{at} IS NULL")
    };
    let names: String = parents.iter().enumerate().map(name_of).collect();
    let orphans: String = parents.iter().enumerate().map(is_orphan).collect();
    format!(
        "WITH bulkhead_me AS MATERIALIZED (SELECT pg_catalog.txid_current() AS bulkhead_id, \
         pg_catalog.age(pg_catalog.mod(pg_catalog.txid_current(), 4294967296)::pg_catalog.text::pg_catalog.xid) AS bulkhead_age), \
         mine AS (SELECT {columns}{names} FROM {relation} AS t WHERE CASE \
         WHEN pg_catalog.age(t.xmin) OPERATOR(pg_catalog.<=) {AGE} THEN pg_catalog.txid_status({ID} \
         OPERATOR(pg_catalog.+) ({AGE} OPERATOR(pg_catalog.-) pg_catalog.age(t.xmin))) \
         OPERATOR(pg_catalog.=) 'in progress'::pg_catalog.text ELSE false END LIMIT {}) \
         SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE false{orphans}), \
         pg_catalog.json_agg(mine)::pg_catalog.text FROM mine",
        ROWS_MAX + 1
    )
}

/// A table whose rows are named by numbers of their own server, and its columns; as names in quotes.
struct Parent {
    relation: String,
    column: String,
    id: String,
    name: String,
}

/// Rows of one table.
struct Carried {
    relation: String,
    columns: String,
    parents: Vec<Parent>,
    rows: String,
}

impl Carried {
    /// Statements that insert them on the primary. What they name is added there if it is not there, and they get the
    /// numbers that it has there.
    fn insert(&self) -> Vec<String> {
        let Self { relation, columns, parents, rows } = self;
        let elements = format!("pg_catalog.json_array_elements({}) AS x (bulkhead_row)", quote_literal(rows));
        let mut statements = Vec::new();
        let mut numbers = Vec::new();
        for (at, Parent { relation, column, id, name }) in parents.iter().enumerate() {
            let given =
                format!("(x.bulkhead_row OPERATOR(pg_catalog.->>) 'bulkhead_name_{at}'::pg_catalog.text)");
            let same = format!("p.{name}::pg_catalog.text OPERATOR(pg_catalog.=) {given}");
            statements.push(format!(
                "INSERT INTO {relation} ({name}) SELECT DISTINCT {given} FROM {elements} WHERE {given} IS NOT NULL \
                 AND NOT EXISTS (SELECT FROM {relation} AS p WHERE {same}) ORDER BY 1 ON CONFLICT DO NOTHING"
            ));
            numbers.push((column.as_str(), format!("(SELECT p.{id} FROM {relation} AS p WHERE {same})")));
        }
        let values = columns.split(", ").map(|column| {
            let number = numbers.iter().find(|(of, _)| *of == column);
            number.map_or(column, |(_, number)| number.as_str())
        });
        statements.push(format!(
            "INSERT INTO {relation} ({columns}) OVERRIDING SYSTEM VALUE SELECT {} FROM {elements} \
             CROSS JOIN LATERAL pg_catalog.json_populate_record(NULL::{relation}, x.bulkhead_row) AS t",
            values.collect::<Vec<_>>().join(", ")
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

    /// The rows that the transaction has added; `None` if they are too many, or name what is gone.
    async fn added_rows(&mut self) -> Result<Option<Vec<Carried>>, Stop> {
        let snapshot = std::sync::Arc::clone(&self.view.snapshot);
        let rules = snapshot.classifier.rules();
        let mut carried = Vec::new();
        let mut bytes = 0;
        for row in self.say(TABLES).await?.rows {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            let (schema, table, columns) = (row.next(), row.next(), row.next());
            let (Some(schema), Some(table), Some(columns)) = (schema, table, columns) else { continue };
            let Some(relayed) = rules.relayed(Some(&schema), &table) else { continue };
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
