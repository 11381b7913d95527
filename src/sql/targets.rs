//! The relations that a statement of definitions or maintenance is about.

use pg_raw_parse::{Node, nodes};

/// The relations that a statement is about, where the tree has them at hand.
pub(super) fn targets(node: Node<'_>) -> Vec<&nodes::RangeVar> {
    let one = |relation: Option<_>| relation.into_iter().collect();
    match node {
        Node::CreateStmt(s) => one(s.relation()),
        Node::AlterTableStmt(s) => one(s.relation()),
        Node::IndexStmt(s) => one(s.relation()),
        Node::CreateTrigStmt(s) => one(s.relation()),
        Node::CreateTableAsStmt(s) => one(s.into().and_then(nodes::IntoClause::rel)),
        Node::ViewStmt(s) => one(s.view()),
        Node::RuleStmt(s) => one(s.relation()),
        Node::RefreshMatViewStmt(s) => one(s.relation()),
        Node::CreatePolicyStmt(s) => one(s.table()),
        Node::ClusterStmt(s) => one(s.relation()),
        Node::CreateSeqStmt(s) => one(s.sequence()),
        Node::TruncateStmt(s) => ranges(s.relations()),
        Node::LockStmt(s) => ranges(s.relations()),
        Node::VacuumStmt(s) => s.rels().iter().filter_map(nodes::VacuumRelation::relation).collect(),
        _ => Vec::new(),
    }
}

/// The relations of a list.
pub(super) fn ranges(list: &pg_raw_parse::list::NodeList) -> Vec<&nodes::RangeVar> {
    let relations = list.iter().filter_map(|node| match node {
        Node::RangeVar(relation) => Some(relation),
        _ => None,
    });
    relations.collect()
}
