//! Which statements that define and maintain things are proven to leave nothing: those that evaluate no expression, or
//! whose expressions are all read, and that give no known name to anything that runs code.

use pg_raw_parse::{
    Node, nodes,
    raw::{ConstrType, ObjectType},
};

use super::{
    parse::qualified,
    query::{Walk, is_system},
    seen::Access,
    targets::{ranges, targets},
    used::Use,
};

/// Proves a statement that is no query, or says that it does not.
pub(super) fn prove<'p>(walk: &mut Walk<'p, '_>, node: Node<'p>) {
    match node {
        // Nothing of anybody's runs, also no event trigger.
        Node::AlterDatabaseSetStmt(_)
        | Node::AlterDatabaseStmt(_)
        | Node::AlterRoleSetStmt(_)
        | Node::AlterRoleStmt(_)
        | Node::AlterSystemStmt(_)
        | Node::CheckPointStmt(_)
        | Node::CreateRoleStmt(_)
        | Node::CreatedbStmt(_)
        | Node::DropRoleStmt(_)
        | Node::DropdbStmt(_)
        | Node::GrantRoleStmt(_)
        | Node::LockStmt(_) => {}
        // An event trigger may run.
        Node::AlterDefaultPrivilegesStmt(_)
        | Node::AlterEnumStmt(_)
        | Node::AlterSeqStmt(_)
        | Node::CommentStmt(_)
        | Node::CreateEnumStmt(_)
        | Node::CreateSeqStmt(_)
        | Node::DropOwnedStmt(_)
        | Node::DropStmt(_)
        | Node::GrantStmt(_)
        | Node::ReassignOwnedStmt(_) => walk.prove_definition(),
        Node::CreateSchemaStmt(create) if create.schema_elts().iter().next().is_none() => {
            walk.prove_definition();
        }
        Node::CreateStmt(create) => table(walk, create),
        Node::CreateTableAsStmt(create) => table_as(walk, create),
        Node::IndexStmt(create) => index(walk, create),
        Node::TruncateStmt(_) | Node::RefreshMatViewStmt(_) | Node::ClusterStmt(_) | Node::VacuumStmt(_) => {
            maintained(walk, node);
        }
        _ => walk.unproven("a statement that is not read"),
    }
}

/// Whether a statement that is proven makes nothing but what runs no code, and changes nothing that is there: see
/// [`additions`](super::additions).
pub(super) fn only_adds(node: Node<'_>) -> bool {
    match node {
        Node::CreateStmt(create) => is_apart(create),
        Node::CreateTableAsStmt(create) => create.objtype == ObjectType::OBJECT_TABLE,
        Node::CreateSchemaStmt(create) => create.schema_elts().iter().next().is_none(),
        Node::SelectStmt(_) | Node::CreateSeqStmt(_) | Node::IndexStmt(_) => true,
        _ => false,
    }
}

/// Whether no other table reaches the new one: it is no heir or partition, and refers to none.
fn is_apart(create: &nodes::CreateStmt) -> bool {
    let refers = |node| matches!(node, Node::Constraint(constraint) if constraint.contype == ConstrType::CONSTR_FOREIGN);
    let is_apart = |element| match element {
        Node::ColumnDef(column) => !column.constraints().iter().any(refers),
        Node::TableLikeClause(_) => true,
        other => !refers(other),
    };
    let is_plain = create.partbound().is_none()
        && create.partspec().is_none()
        && create.of_typename().is_none()
        && create.inh_relations().iter().next().is_none();
    is_plain && create.table_elts().iter().all(is_apart)
}

/// It may run triggers, views and the expressions of indexes, of the relations that it names.
fn maintained<'p>(walk: &mut Walk<'p, '_>, node: Node<'p>) {
    // REFRESH MATERIALIZED VIEW fires event triggers.
    walk.prove_definition();
    walk.prove_any();
    let relations = targets(node);
    if relations.is_empty() {
        return walk.unproven("all relations at once");
    }
    for relation in relations {
        walk.prove_relation(relation.schemaname(), relation.relname().unwrap_or_default(), Access::Write);
    }
}

fn table_as<'p>(walk: &mut Walk<'p, '_>, create: &'p nodes::CreateTableAsStmt) {
    walk.prove_definition();
    let is_plain = create.into().is_some_and(|into| into.access_method().is_none());
    // The query itself is walked by whoever judges the statement.
    let is_select = matches!(create.query(), Node::SelectStmt(_));
    if !is_plain || !is_select || create.objtype == ObjectType::OBJECT_VIEW {
        walk.unproven("a definition that is not read");
    }
}

fn index<'p>(walk: &mut Walk<'p, '_>, create: &'p nodes::IndexStmt) {
    walk.prove_definition();
    walk.prove_any();
    let of_columns = create.index_params().iter().all(|element| {
        let has_class = element.opclass().iter().next().is_some();
        matches!(element.expr(), Node::None) && !has_class
    });
    let excludes = create.exclude_op_names().iter().next().is_some();
    if !of_columns || excludes || !matches!(create.where_clause(), Node::None) {
        walk.unproven("an index on expressions");
    }
    if let Some(relation) = create.relation() {
        walk.prove_relation(relation.schemaname(), relation.relname().unwrap_or_default(), Access::Write);
    }
}

/// CREATE TABLE: its expressions run with later statements, which do not name them.
fn table<'p>(walk: &mut Walk<'p, '_>, create: &'p nodes::CreateStmt) {
    walk.prove_definition();
    let is_special = create.partbound().is_some()
        || create.partspec().is_some()
        || create.of_typename().is_some()
        || create.access_method().is_some();
    if is_special || create.relation().is_some_and(|relation| is_system(relation.schemaname(), "")) {
        walk.unproven("a definition that is not read");
    }
    for parent in ranges(create.inh_relations()) {
        walk.prove_relation(parent.schemaname(), parent.relname().unwrap_or_default(), Access::Write);
    }
    for element in create.table_elts() {
        match element {
            Node::ColumnDef(column) => self::column(walk, column),
            Node::Constraint(constraint) => self::constraint(walk, constraint),
            Node::TableLikeClause(like) => {
                if let Some(source) = like.relation() {
                    let name = source.relname().unwrap_or_default();
                    walk.prove_relation(source.schemaname(), name, Access::Write);
                }
            }
            _ => walk.unproven("a definition that is not read"),
        }
    }
}

fn column<'p>(walk: &mut Walk<'p, '_>, column: &'p nodes::ColumnDef) {
    if let Some(type_name) = column.type_name() {
        let (schema, name) = qualified(type_name.names().iter().map(Node::String));
        let is_serial = schema.is_none() && matches!(name, "serial" | "bigserial" | "smallserial");
        if !is_serial {
            walk.defer(Node::TypeName(type_name));
        }
    }
    for constraint in column.constraints() {
        match constraint {
            Node::Constraint(constraint) => self::constraint(walk, constraint),
            Node::CollateClause(_) => {}
            _ => walk.unproven("a definition that is not read"),
        }
    }
}

fn constraint<'p>(walk: &mut Walk<'p, '_>, constraint: &'p nodes::Constraint) {
    match constraint.contype {
        ConstrType::CONSTR_NULL
        | ConstrType::CONSTR_NOTNULL
        | ConstrType::CONSTR_IDENTITY
        | ConstrType::CONSTR_PRIMARY
        | ConstrType::CONSTR_UNIQUE
        | ConstrType::CONSTR_ATTR_DEFERRABLE
        | ConstrType::CONSTR_ATTR_NOT_DEFERRABLE
        | ConstrType::CONSTR_ATTR_DEFERRED
        | ConstrType::CONSTR_ATTR_IMMEDIATE => {}
        ConstrType::CONSTR_DEFAULT | ConstrType::CONSTR_CHECK | ConstrType::CONSTR_GENERATED => {
            walk.defer(constraint.raw_expr());
        }
        ConstrType::CONSTR_FOREIGN => {
            let referred = constraint.pktable().and_then(nodes::RangeVar::relname).unwrap_or_default();
            walk.prove(referred, Use::Read);
        }
        _ => walk.unproven("a definition that is not read"),
    }
}
