//! Who may write a side's tables: triggers that refuse everybody on a side that does not have the jobs, and the library's
//! own triggers and references, which rest while rows come in as they are.

use super::super::{
    link::{APPLICATION_NAME as RELAY, Failure, Link},
    text::{literal, name},
};
use super::catalog::{Moved, REFERENCES, SCHEMA, Tables};

/// The name of a move's connections, whom no fence stops.
pub(super) const APPLICATION_NAME: &str = "bulkhead move";

const TRIGGERS: &str = "SELECT t.tgrelid::pg_catalog.regclass, t.tgname FROM pg_catalog.pg_trigger AS t \
    WHERE NOT t.tgisinternal AND t.tgenabled = 'O' AND t.tgname NOT LIKE 'bulkhead\\_%' ORDER BY 1, 2";

/// Why a side refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The job database, before it has the jobs.
    JobsBefore,
    /// The job database, once the primary has them again.
    JobsAfter,
    /// The primary, once the job database has them. With an outbox, jobs are written there all the same, and relayed.
    Primary {
        /// Whether there is one.
        has_outbox: bool,
    },
}

impl Closed {
    fn words(self) -> [&'static str; 3] {
        match self {
            Self::JobsBefore => [
                "are still on the primary: they are being moved here",
                "bulkhead jobs status tells how far that is; until then pools.jobs is on the primary.",
                "",
            ],
            Self::JobsAfter => [
                "are on the primary again",
                "Reload Bulkhead with a configuration whose pools.jobs is on the primary.",
                "",
            ],
            Self::Primary { has_outbox } => [
                "are in the job database now",
                "Reload Bulkhead with a configuration whose pools.jobs is on the job database.",
                if has_outbox { "outbox" } else { "" },
            ],
        }
    }
}

/// A statement that makes the function of the fence.
pub(super) fn make() -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {SCHEMA}.fence() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $bulkhead$ \
         DECLARE who CONSTANT pg_catalog.text := pg_catalog.current_setting('application_name'); \
         BEGIN IF who = '{APPLICATION_NAME}' OR TG_ARGV[2] IN ('outbox', 'mirror') AND TG_OP = 'INSERT' \
         OR TG_ARGV[2] = 'outbox' AND TG_OP = 'DELETE' AND who = '{RELAY}' \
         OR TG_ARGV[2] = 'mirror' AND (TG_OP = 'DELETE' OR who = '{RELAY}') THEN RETURN NEW; END IF; \
         RAISE EXCEPTION USING ERRCODE = '55000', HINT = TG_ARGV[1], \
         MESSAGE = 'jobs of ' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME || ' ' || TG_ARGV[0]; END $bulkhead$"
    )
}

/// Statements that have a table refuse whoever writes. Where functions that add jobs look for one to replace, a statement may
/// update with an outbox, as long as it does not find any.
pub(super) fn close(table: &Moved, closed: Closed) -> Vec<String> {
    let [what, hint, outbox] = closed.words();
    // What the library's functions do with its queues, they do on both sides.
    let outbox = if table.is_mirrored && !outbox.is_empty() { "mirror" } else { outbox };
    let relation = table.relation();
    let trigger = |name: &str, when: &str, each: &str| {
        [
            format!(
                "CREATE TRIGGER {name} BEFORE {when} ON {relation} FOR EACH {each} EXECUTE FUNCTION {SCHEMA}.fence({}, {}, \
                 '{outbox}')",
                literal(what),
                literal(hint)
            ),
            format!("ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {name}"),
        ]
    };
    let mut statements = vec![open(table)];
    if outbox.is_empty() || !table.is_searched {
        let when = "INSERT OR UPDATE OR DELETE OR TRUNCATE";
        statements.extend(trigger("bulkhead_move_fence", when, "STATEMENT"));
    } else {
        statements.extend(trigger("bulkhead_move_fence", "INSERT OR DELETE OR TRUNCATE", "STATEMENT"));
        statements.extend(trigger("bulkhead_move_fence_rows", "UPDATE", "ROW"));
    }
    statements
}

/// A statement that has it take writes.
pub(super) fn open(table: &Moved) -> String {
    let relation = table.relation();
    format!(
        "DROP TRIGGER IF EXISTS bulkhead_move_fence ON {relation}; \
         DROP TRIGGER IF EXISTS bulkhead_move_fence_rows ON {relation}"
    )
}

/// Whether a side refuses. All of its tables do, or none.
pub(super) async fn is_closed(link: &mut Link, tables: &Tables) -> Result<bool, Failure> {
    let relations: Vec<String> =
        tables.all().map(|table| format!("pg_catalog.to_regclass({})", literal(&table.relation()))).collect();
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgname = 'bulkhead_move_fence' AND tgrelid IN ({}))",
        relations.join(", ")
    );
    Ok(link.ask(&sql).await?.value(0, 0) == "t")
}

/// Triggers and references that rest while rows come in: the statements that have it rest, those that end that, and what is to be checked then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) begin: Vec<String>,
    pub(super) end: Vec<String>,
    pub(super) check: Vec<String>,
}

/// Where it is noted on the job database, which rests for as long as the copy takes.
pub(super) fn make_notes() -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {SCHEMA}.resting (id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
         statement pg_catalog.text NOT NULL, is_check pg_catalog.bool NOT NULL)"
    )
}

impl Rest {
    /// Statements that note how it ends.
    pub(super) fn note(&self) -> Vec<String> {
        let note = |sql: &String, is_check: bool| {
            format!(
                "INSERT INTO {SCHEMA}.resting (statement, is_check) VALUES ({}, {is_check})",
                literal(sql)
            )
        };
        let end = self.end.iter().map(|sql| note(sql, false));
        end.chain(self.check.iter().map(|sql| note(sql, true))).collect()
    }
}

/// The triggers of these tables that fire for everybody, and the references between them.
pub(super) async fn rest(link: &mut Link, tables: &[&Moved]) -> Result<Rest, Failure> {
    let mut rest = Rest::default();
    let find = |source: &str| tables.iter().find(|table| table.source == source);
    let triggers = link.ask(TRIGGERS).await?;
    for row in 0..triggers.rows.len() {
        let Some(table) = find(triggers.value(row, 0)) else { continue };
        let (relation, trigger) = (table.relation(), name(triggers.value(row, 1)));
        rest.begin.push(format!("ALTER TABLE {relation} DISABLE TRIGGER {trigger}"));
        rest.end.push(format!("ALTER TABLE {relation} ENABLE TRIGGER {trigger}"));
    }
    let references = link.ask(REFERENCES).await?;
    for row in 0..references.rows.len() {
        let Some(table) = find(references.value(row, 0)) else { continue };
        let (relation, constraint) = (table.relation(), name(references.value(row, 2)));
        let definition = references.value(row, 3);
        rest.begin.push(format!("ALTER TABLE {relation} DROP CONSTRAINT {constraint}"));
        let add = format!("ALTER TABLE {relation} ADD CONSTRAINT {constraint} {definition}");
        let comment = references.value(row, 4);
        if definition.ends_with("NOT VALID") {
            rest.end.push(add);
        } else {
            rest.end.push(format!("{add} NOT VALID"));
            rest.check.push(format!("ALTER TABLE {relation} VALIDATE CONSTRAINT {constraint}"));
        }
        if !comment.is_empty() {
            rest.end
                .push(format!("COMMENT ON CONSTRAINT {constraint} ON {relation} IS {}", literal(comment)));
        }
    }
    Ok(rest)
}

/// The noted statements: those that end the rest, or those that check what was not checked meanwhile.
pub(super) async fn noted(link: &mut Link, is_check: bool) -> Result<Vec<String>, Failure> {
    let exists = format!("SELECT pg_catalog.to_regclass('{SCHEMA}.resting') IS NOT NULL");
    if link.ask(&exists).await?.value(0, 0) != "t" {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT statement FROM {SCHEMA}.resting WHERE is_check = {is_check} ORDER BY id");
    Ok(link.ask(&sql).await?.rows.into_iter().flatten().flatten().collect())
}

/// A statement that forgets those that end the rest, once they have been carried out.
pub(super) fn forget_notes() -> String {
    format!("DELETE FROM {SCHEMA}.resting WHERE NOT is_check")
}
