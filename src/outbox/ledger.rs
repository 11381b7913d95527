//! Forgetting what was moved long ago. The ledger must know every row that is still on the primary, however old it is.

use std::{collections::HashSet, time::Duration};

use super::{
    link::{Failure, Link},
    statements::Statements,
    text::{array, literal},
};

/// Entries that are looked at in one go.
const LOT: usize = 2000;

/// Removes the oldest entries, of those that are older than `keep` and whose rows are not on the primary any more. Returns
/// whether these were all that can be removed now. The question also tells the job database that this one lives.
pub(super) async fn forget<'s>(
    primary: &mut Link,
    jobs: &mut Link,
    tables: impl Iterator<Item = &'s Statements>,
    keep: Duration,
) -> Result<bool, Failure> {
    let tables: Vec<(String, &Statements)> = tables.map(|table| (table.source(), table)).collect();
    let sources: Vec<&String> = tables.iter().map(|(source, _)| source).collect();
    let age = format!("relayed_at < pg_catalog.now() - '{} ms'::pg_catalog.interval", keep.as_millis());
    let old = format!(
        "SELECT source_table, key FROM bulkhead.relayed WHERE {age} AND source_table = ANY ({}) \
         ORDER BY relayed_at LIMIT {LOT}",
        array(&sources)
    );
    let old = jobs.ask(&old).await?;
    let mut is_all = old.rows.len() < LOT;
    for (source, table) in tables {
        let of_table = (0..old.rows.len()).filter(|at| old.value(*at, 0) == source);
        let keys: Vec<&str> = of_table.map(|at| old.value(at, 1)).collect();
        if keys.is_empty() {
            continue;
        }
        let there = match primary.ask(&table.still_there(&array(&keys))).await {
            // Locked: its entries stay until the next time.
            Err(failure) if failure.is_passing() => {
                is_all = true;
                continue;
            }
            there => there?,
        };
        let there: HashSet<&str> = (0..there.rows.len()).map(|at| there.value(at, 0)).collect();
        let gone: Vec<&str> = keys.into_iter().filter(|key| !there.contains(key)).collect();
        let forget = format!(
            "DELETE FROM bulkhead.relayed WHERE {age} AND source_table = {} AND key = ANY ({})",
            literal(&source),
            array(&gone)
        );
        jobs.ask(&forget).await?;
    }
    Ok(is_all)
}
