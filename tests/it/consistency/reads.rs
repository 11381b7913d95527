//! The forms that a read can have. Each answers the newest version that it sees and whether a replica was asked.

use super::{
    forms::{FORMS, Form, Kind},
    session::{Failed, Rows, Session},
};

/// One form of read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Plain,
    Join,
    Subquery,
    Cte,
    Several,
    View,
    Function,
    Bound,
    Prepared,
    /// First in a transaction that is `READ ONLY`.
    Transaction,
    /// The same where all statements have one snapshot.
    Snapshot,
    /// By a raw session only.
    CopyOut,
    /// Behind a read of another relation, with one Sync. By a raw session only.
    Pipeline,
    /// In a transaction that is opened with one Sync by a read of another relation. By a raw session only.
    Opened,
}

use Read::{
    Bound, CopyOut, Cte, Function, Join, Opened, Pipeline, Plain, Prepared, Several, Snapshot, Subquery,
    Transaction, View,
};

pub(super) const READS: [Read; 14] = [
    Plain,
    Join,
    Subquery,
    Cte,
    Several,
    View,
    Function,
    Bound,
    Prepared,
    Transaction,
    Snapshot,
    CopyOut,
    Pipeline,
    Opened,
];

/// What a read has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: u64,
    pub(super) on_replica: bool,
}

/// With `quote_all_identifiers` set on replicas, it tells them from their primary. Allowed on both, unlike
/// `pg_is_in_recovery()`.
const WHERE: &str = "quote_ident('x')";

/// Objects of all reads: a relation that never changes, and for each form a view and a function.
pub(super) fn schema(last: usize) -> String {
    let mut sql = format!("CREATE TABLE keys AS SELECT n AS key FROM generate_series(0, {last}) n;\n");
    for form in FORMS.iter().copied().flatten().filter(|form| form.kind != Kind::Replaces) {
        for key in 0..=last {
            let (name, relation) = (form.name, form.relation(key));
            let looks = format!(
                "CREATE VIEW look_{name}_{key} AS SELECT r.key, r.version FROM {relation} r;
                 CREATE FUNCTION looks_{name}_{key}() RETURNS bigint LANGUAGE sql STABLE AS
                 $$ SELECT coalesce(max(r.version), 0) FROM {relation} r WHERE r.key = {key} $$;\n"
            );
            sql += &looks;
        }
    }
    sql
}

impl Read {
    /// Whether it can be used for what the form writes.
    pub(super) fn fits(self, form: &Form) -> bool {
        // A snapshot that was taken before the lock sees nothing of what replaces a relation, and PostgreSQL itself takes one
        // for COPY before it waits for that lock; nor may anything depend on it.
        form.kind != Kind::Replaces || !matches!(self, View | Function | Snapshot | CopyOut)
    }

    /// Whether a session that is raw, or is not, can send it.
    pub(super) fn fits_session(self, is_raw: bool) -> bool {
        is_raw || !matches!(self, CopyOut | Pipeline | Opened)
    }

    /// Reads a key of what the form writes.
    pub(super) async fn run(
        self,
        session: &mut Session,
        form: &Form,
        key: usize,
        hint: &str,
    ) -> Result<Found, Failed> {
        let relation = form.relation(key);
        let sql = format!("{hint}{}", self.sql(form, &relation, key));
        let rows = match self {
            Bound => session.read_bound(&sql, key).await?,
            Prepared => session.read_prepared(&sql, key).await?,
            CopyOut => session.copy_out(&sql).await?,
            Pipeline => session.pipeline(&["SELECT count(*), '' FROM keys", &sql]).await?,
            Transaction => in_transaction(session, "BEGIN READ ONLY", &sql).await?,
            Opened => {
                session.pipeline(&["BEGIN READ ONLY", "SELECT count(*) FROM keys"]).await?;
                end_with(session, &sql).await?
            }
            Snapshot => {
                in_transaction(session, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", &sql).await?
            }
            _ => session.text(&sql).await?,
        };
        Ok(found(&rows))
    }

    fn sql(self, form: &Form, relation: &str, key: usize) -> String {
        let name = form.name;
        let from = |relation: &str, key: &str| {
            format!(
                "SELECT coalesce(max(r.version), 0)::bigint, {WHERE} FROM {relation} r WHERE r.key = {key}"
            )
        };
        let plain = from(relation, &key.to_string());
        match self {
            Plain | Transaction | Snapshot | Pipeline | Opened => plain,
            Join => format!(
                "SELECT coalesce(max(r.version), 0)::bigint, {WHERE} FROM keys k LEFT JOIN {relation} r USING (key) \
                 WHERE k.key = {key}"
            ),
            Subquery => format!(
                "SELECT (SELECT coalesce(max(r.version), 0)::bigint FROM {relation} r WHERE r.key = {key}), {WHERE}"
            ),
            Cte => format!(
                "WITH r AS (SELECT * FROM {relation} r WHERE r.key = {key}) \
                 SELECT coalesce(max(r.version), 0)::bigint, {WHERE} FROM r"
            ),
            Several => format!("SELECT count(*), '' FROM keys; {plain}"),
            View => from(&format!("look_{name}_{key}"), &key.to_string()),
            Function => format!("SELECT looks_{name}_{key}(), {WHERE}"),
            Bound | Prepared => from(relation, "$1::int"),
            CopyOut => format!("COPY ({plain}) TO STDOUT"),
        }
    }
}

/// What the last row says.
fn found(rows: &Rows) -> Found {
    let [version, place] = rows.last().map(Vec::as_slice).expect("an aggregate has a row") else {
        panic!("two columns: {rows:?}")
    };
    Found { version: version.parse().expect("a version"), on_replica: place.len() > 1 }
}

async fn in_transaction(session: &mut Session, begin: &str, sql: &str) -> Result<Rows, Failed> {
    session.text(begin).await?;
    end_with(session, sql).await
}

async fn end_with(session: &mut Session, sql: &str) -> Result<Rows, Failed> {
    let rows = session.text(sql).await;
    let ended = session.text("COMMIT").await;
    let rows = rows?;
    ended?;
    Ok(rows)
}
