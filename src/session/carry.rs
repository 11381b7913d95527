//! A transaction that has added jobs on their own server, and nothing else there, and goes on with the application's tables:
//! the rows that it has added are carried over to the primary, where they are part of its transaction and relayed after its
//! commit as if they had been added there. They keep their numbers, which the application has been told.

use super::{
    Session, Stop,
    hold::{Leased, Work},
    reply::{self, Reply},
    request::Request,
    transaction::LocalTransaction,
};
use crate::{
    backend::query::Answer,
    route::{Demand, PoolId},
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
/// while they are in progress.
fn added(relation: &str, columns: &str) -> String {
    const ID: &str = "(SELECT bulkhead_id FROM bulkhead_me)";
    const AGE: &str = "(SELECT bulkhead_age FROM bulkhead_me)";
    format!(
        "WITH bulkhead_me AS MATERIALIZED (SELECT pg_catalog.txid_current() AS bulkhead_id, \
         pg_catalog.age(pg_catalog.mod(pg_catalog.txid_current(), 4294967296)::pg_catalog.text::pg_catalog.xid) AS bulkhead_age), \
         mine AS (SELECT {columns} FROM {relation} AS t WHERE CASE \
         WHEN pg_catalog.age(t.xmin) OPERATOR(pg_catalog.<=) {AGE} THEN pg_catalog.txid_status({ID} \
         OPERATOR(pg_catalog.+) ({AGE} OPERATOR(pg_catalog.-) pg_catalog.age(t.xmin))) \
         OPERATOR(pg_catalog.=) 'in progress'::pg_catalog.text ELSE false END LIMIT {}) \
         SELECT pg_catalog.count(*), pg_catalog.json_agg(mine)::pg_catalog.text FROM mine",
        ROWS_MAX + 1
    )
}

/// Rows of one table.
struct Carried {
    relation: String,
    columns: String,
    rows: String,
}

impl Carried {
    fn insert(&self) -> String {
        let Self { relation, columns, rows } = self;
        let quoted = rows.replace('\'', "''").replace('\\', "\\\\");
        format!(
            "INSERT INTO {relation} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} \
             FROM pg_catalog.json_populate_recordset(NULL::{relation}, E'{quoted}')"
        )
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
        let is_of_jobs = |leased: &Leased| {
            snapshot.routes.jobs.is_some_and(|jobs| snapshot.same_server(leased.pool, jobs))
        };
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
        if !self.hold.leased.as_deref().is_some_and(is_of_jobs) {
            self.change_places();
        }
        let may_be = self.hold.leased.as_ref().is_some_and(|leased| {
            is_of_jobs(leased) && leased.work == Work::Adds && leased.protocol.quiescent().is_none()
        });
        let Some(carried) = (if may_be { self.added_rows().await? } else { None }) else { return Ok(false) };
        if self.hold.is_both() {
            self.change_places();
        } else {
            self.second(request, demand, judged_at, pool).await?;
            for text in &opening {
                self.say(text).await?;
            }
        }
        for one in &carried {
            self.say(&one.insert()).await?;
        }
        if let Some(leased) = &mut self.hold.leased {
            (leased.work, leased.adds_jobs) = (Work::Writes, true);
        }
        self.end_other("ROLLBACK").await?;
        Ok(true)
    }

    /// The rows that the transaction has added; `None` if they are too many.
    async fn added_rows(&mut self) -> Result<Option<Vec<Carried>>, Stop> {
        let snapshot = std::sync::Arc::clone(&self.view.snapshot);
        let rules = snapshot.classifier.rules();
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let mut carried = Vec::new();
        let mut bytes = 0;
        for row in self.say(TABLES).await?.rows {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            let (schema, table, columns) = (row.next(), row.next(), row.next());
            let (Some(schema), Some(table), Some(columns)) = (schema, table, columns) else { continue };
            if !rules.is_relayed(Some(&schema), &table) {
                continue;
            }
            let relation = format!("{}.{}", quoted(&schema), quoted(&table));
            let found = self.say(&added(&relation, &columns)).await?.rows.into_iter().next();
            let mut found = found.into_iter().flatten();
            let count = found.next().flatten().and_then(|count| count.parse().ok()).unwrap_or(0_usize);
            let rows = found.next().flatten().unwrap_or_default();
            bytes += rows.len();
            if count > ROWS_MAX || bytes > BYTES_MAX {
                return Ok(None);
            }
            if count > 0 {
                carried.push(Carried { relation, columns, rows });
            }
        }
        Ok(Some(carried))
    }

    /// Says something of ours in the transaction on the backend. Its error is the client's.
    pub(super) async fn say(&mut self, sql: &str) -> Result<Answer, Stop> {
        let Some(leased) = &mut self.hold.leased else { return Ok(Answer::default()) };
        match leased.ask(sql).await {
            Ok(Answer { error: Some(fields), .. }) => {
                if leased.protocol.status() == TxStatus::Idle {
                    // The transaction could not be opened here: the client's has failed all the same.
                    self.hold.transaction = LocalTransaction::Failed;
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
