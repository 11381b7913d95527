//! What the bodies of functions use.

use pg_raw_parse::Node;

use super::{
    catalog::Catalog,
    parse, plpgsql,
    proof::{Body, Source},
    query::Walk,
    rules::Rules,
    used::Use,
    verdict::Effects,
};

/// What the body of a function uses, each of which must be proven; `None` if it is not proven, whatever that may be.
/// The catalog knows what there is, but not yet what is proven.
pub(super) fn uses(catalog: &Catalog, body: &Body) -> Option<Vec<(String, Use)>> {
    match body.source() {
        Source::Proven => Some(Vec::new()),
        Source::Unproven => None,
        Source::Sql(source) => sql(catalog, source),
        Source::PlPgSql(source) => plpgsql::uses(source, catalog.proof()),
    }
}

/// A body in SQL: queries and nothing else.
fn sql(catalog: &Catalog, source: &str) -> Option<Vec<(String, Use)>> {
    let parsed = parse::parse(source.as_bytes()).ok()?;
    let rules = Rules::default();
    let mut uses = Vec::new();
    for statement in parsed.statements() {
        let query = statement.node;
        let is_query = match query {
            Node::SelectStmt(select) => select.into_clause().is_none(),
            Node::InsertStmt(_) | Node::UpdateStmt(_) | Node::DeleteStmt(_) | Node::MergeStmt(_) => true,
            _ => false,
        };
        if !is_query {
            return None;
        }
        let mut walk = Walk::new(&rules, catalog, true, None);
        walk.used = Some(uses);
        walk.walk(query);
        uses = walk.used.unwrap_or_default();
        if walk.found.effects.has(Effects::UNPROVEN) {
            return None;
        }
    }
    Some(uses)
}
