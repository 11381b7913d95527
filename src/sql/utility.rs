//! Statements that define and maintain objects, and programs in literals.
//!
//! The parser's trees of these differ from statement to statement and its library cannot walk them, so
//! job objects are looked for among the names in the text. A column that is called as a job table would be
//! taken for it: no preset has such a name.

use pg_raw_parse::{
    Node, nodes,
    raw::{DropBehavior, ObjectType, OnCommitAction},
};

use super::{
    definitions,
    lexer::{Kind, Lexer},
    names::folded,
    parse::{Statement, qualified, span},
    query::{Walk, is_temporary},
    reach,
    rules::Object,
    seen::Access,
    tables::Tables,
    targets::targets,
    used::Use,
    verdict::{Effects, Reason},
};

/// Judges any statement that has no better place.
pub(super) fn statement<'p>(walk: &mut Walk<'p, '_>, text: &[u8], statement: Statement<'p>) {
    walk.found.writes(Reason::Utility);
    walk.found.effects |= effects(statement.node);
    walk.found.defines = !is_maintenance(statement.node);
    let named = if changes_named_only(statement.node) { defined(walk, statement.node) } else { Tables::ALL };
    walk.found.tables |= named;
    definitions::prove(walk, statement.node);
    for target in targets(statement.node) {
        if is_temporary(target) && is_creation(statement.node) {
            let leaves = if goes_with_transaction(statement.node) { Effects::LOCAL } else { Effects::TEMP };
            walk.found.effects = walk.found.effects.with(leaves).without(Effects::DDL);
        }
        if let Some(name) = target.relname() {
            walk.named_relation(target.schemaname(), name, Access::Write);
        }
    }
    match statement.node {
        Node::CreateFunctionStmt(create) => return function(walk, create),
        Node::ViewStmt(view) => walk.walk(view.query()),
        Node::CreateTableAsStmt(create) => match create.query() {
            Node::SelectStmt(_) => walk.walk(create.query()),
            Node::ExecuteStmt(_) => {
                walk.found.effects |= Effects::OPAQUE.with(Effects::NAMES_STATEMENT);
            }
            _ => {}
        },
        Node::DropStmt(drop) => dropped(walk, drop),
        // Tables of jobs cannot be made where it is missing.
        Node::CreateSchemaStmt(create) => job_schema(walk, create.schemaname()),
        Node::RenameStmt(rename) if rename.rename_type == ObjectType::OBJECT_SCHEMA => {
            job_schema(walk, rename.subname());
            job_schema(walk, rename.newname());
        }
        Node::AlterOwnerStmt(alter) if alter.object_type == ObjectType::OBJECT_SCHEMA => {
            if let Node::String(name) = alter.object() {
                job_schema(walk, name.sval());
            }
        }
        Node::CommentStmt(comment) if comment.objtype == ObjectType::OBJECT_COLUMN => {
            commented_column(walk, comment);
        }
        Node::TruncateStmt(_) => walk.modifies_rows(),
        _ => {}
    }
    names(walk, span(text, statement));
}

/// CREATE FUNCTION: its name counts, its body does not, as it only runs where it is called.
fn function<'p>(walk: &mut Walk<'p, '_>, create: &'p nodes::CreateFunctionStmt) {
    let (schema, name) = qualified(create.funcname().iter());
    if walk.rules.object(Object::Function, schema, name) {
        job_object(walk, schema, name);
    }
    if schema.is_some_and(|schema| schema.starts_with("pg_temp")) {
        walk.found.effects |= Effects::TEMP;
    }
}

/// A relation that has rows.
const RELATIONS: [ObjectType::Type; 4] = [
    ObjectType::OBJECT_TABLE,
    ObjectType::OBJECT_VIEW,
    ObjectType::OBJECT_MATVIEW,
    ObjectType::OBJECT_FOREIGN_TABLE,
];

/// DROP TABLE and the like: each object is a list of the parts of its name.
fn dropped<'p>(walk: &mut Walk<'p, '_>, drop: &'p nodes::DropStmt) {
    let is_schema = drop.remove_type == ObjectType::OBJECT_SCHEMA;
    if !is_schema && !RELATIONS.contains(&drop.remove_type) {
        return;
    }
    for object in drop.objects() {
        match object {
            Node::NodeList(parts) => {
                let (schema, name) = qualified(parts.iter());
                walk.named_relation(schema, name, Access::Write);
            }
            Node::String(name) if is_schema => job_schema(walk, name.sval()),
            _ => {}
        }
    }
}

/// COMMENT ON COLUMN: the last part of the name is the column's.
fn commented_column<'p>(walk: &mut Walk<'p, '_>, comment: &'p nodes::CommentStmt) {
    if let Node::NodeList(parts) = comment.object() {
        let (schema, name) = qualified(parts.iter().take(parts.iter().count().saturating_sub(1)));
        if walk.rules.object(Object::Any, schema, name) {
            job_object(walk, schema, name);
        }
    }
}

/// A schema that a preset's tables may live in belongs to them.
fn job_schema(walk: &mut Walk<'_, '_>, name: Option<&str>) {
    if let Some(schema) = name.filter(|schema| walk.rules.is_for_jobs(schema)) {
        job_object(walk, None, schema);
    }
}

fn effects(node: Node<'_>) -> Effects {
    match node {
        // Temporary tables come and go: reading the catalog again for each would be a bad bargain.
        Node::DropStmt(_) => Effects::DROPS.with(Effects::ENDS_STATE),
        Node::DropOwnedStmt(_) => Effects::DDL.with(Effects::ENDS_STATE),
        Node::ExecuteStmt(_) => Effects::OPAQUE.with(Effects::NAMES_STATEMENT),
        Node::AlterRoleSetStmt(_) | Node::AlterDatabaseSetStmt(_) => Effects::CHANGES_DEFAULTS,
        // CREATE DATABASE copies its template.
        Node::DropdbStmt(_) | Node::CreatedbStmt(_) | Node::AlterDatabaseStmt(_) => Effects::WANTS_DATABASE,
        Node::RenameStmt(rename) if rename.rename_type == ObjectType::OBJECT_DATABASE => {
            Effects::WANTS_DATABASE
        }
        // Roles and rights are no part of what is known of a database.
        Node::CreateRoleStmt(_)
        | Node::AlterRoleStmt(_)
        | Node::DropRoleStmt(_)
        | Node::AlterDefaultPrivilegesStmt(_)
        | Node::TruncateStmt(_)
        | Node::VacuumStmt(_)
        | Node::LockStmt(_)
        | Node::ReindexStmt(_)
        | Node::ClusterStmt(_)
        | Node::RefreshMatViewStmt(_)
        | Node::CheckPointStmt(_)
        | Node::CommentStmt(_)
        | Node::GrantStmt(_)
        | Node::GrantRoleStmt(_)
        | Node::AlterSystemStmt(_)
        | Node::ReassignOwnedStmt(_) => Effects::NONE,
        _ => Effects::DDL,
    }
}

/// Whether it changes nothing but the tables that it names. Of definitions this counts only if they make nothing but what
/// runs no code ([`Effects::ADDS`]), or take relations away.
fn changes_named_only(node: Node<'_>) -> bool {
    match node {
        Node::DropStmt(drop) => RELATIONS.contains(&drop.remove_type),
        // With CASCADE, also of those that refer to them.
        Node::TruncateStmt(truncate) => truncate.behavior == DropBehavior::DROP_RESTRICT,
        Node::CreateStmt(_)
        | Node::CreateTableAsStmt(_)
        | Node::CreateSeqStmt(_)
        | Node::CreateSchemaStmt(_)
        | Node::IndexStmt(_)
        | Node::RefreshMatViewStmt(_)
        | Node::LockStmt(_)
        | Node::VacuumStmt(_) => true,
        _ => false,
    }
}

/// The relations that it makes or takes away.
fn defined<'p>(walk: &Walk<'p, '_>, node: Node<'p>) -> Tables {
    let mut names: Vec<&str> = targets(node).into_iter().filter_map(nodes::RangeVar::relname).collect();
    if let Node::DropStmt(drop) = node {
        names.extend(drop.objects().iter().filter_map(|object| match object {
            Node::NodeList(parts) => Some(qualified(parts.iter()).1),
            _ => None,
        }));
    }
    let all = if is_definition(node) { reach::definitions() } else { Tables::NONE };
    names.into_iter().fold(all, |all, name| all.with(walk.catalog.tables(name, Use::Delete)))
}

/// Whether it changes rows, their order or what is kept of them, and no definition.
fn is_maintenance(node: Node<'_>) -> bool {
    matches!(
        node,
        Node::TruncateStmt(_)
            | Node::VacuumStmt(_)
            | Node::LockStmt(_)
            | Node::ReindexStmt(_)
            | Node::ClusterStmt(_)
            | Node::RefreshMatViewStmt(_)
            | Node::CheckPointStmt(_)
            | Node::ExecuteStmt(_)
            | Node::AlterSystemStmt(_)
    )
}

/// Whether it makes something, or takes it away.
fn is_definition(node: Node<'_>) -> bool {
    matches!(node, Node::DropStmt(_) | Node::CreateSchemaStmt(_) | Node::IndexStmt(_)) || is_creation(node)
}

fn is_creation(node: Node<'_>) -> bool {
    matches!(
        node,
        Node::CreateStmt(_) | Node::CreateTableAsStmt(_) | Node::CreateSeqStmt(_) | Node::ViewStmt(_)
    )
}

/// Whether what is created is gone at the end of its transaction: ON COMMIT DROP.
fn goes_with_transaction(node: Node<'_>) -> bool {
    let on_commit = match node {
        Node::CreateStmt(create) => Some(create.oncommit),
        Node::CreateTableAsStmt(create) => create.into().map(|into| into.on_commit),
        _ => None,
    };
    on_commit == Some(OnCommitAction::ONCOMMIT_DROP)
}

fn job_object(walk: &mut Walk<'_, '_>, schema: Option<&str>, name: &str) {
    walk.found.is_job(Reason::JobObject);
    walk.found.belongs_to_jobs = true;
    if let Some(seen) = walk.seen.as_deref_mut() {
        seen.job_object(schema, name);
    }
}

// === names in the text ===

/// The bytes of one statement.
fn names(walk: &mut Walk<'_, '_>, text: &[u8]) {
    for name in qualified_names(text) {
        let schema = name.schema.as_deref();
        let is_schema = name.after_schema_word && schema.is_none() && walk.rules.schema(&name.last);
        if is_schema || walk.rules.object(Object::Any, schema, &name.last) {
            job_object(walk, schema, &name.last);
        }
        if schema.is_some_and(|schema| schema.starts_with("pg_temp")) {
            walk.found.effects |= Effects::TEMP;
        }
    }
}

struct Name {
    schema: Option<String>,
    last: String,
    /// In the list of names behind SCHEMA or EXTENSION.
    after_schema_word: bool,
}

/// Names with what qualifies them. Keywords are among them; no rule matches one.
fn qualified_names(text: &[u8]) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    let (mut after_dot, mut of_schemas) = (false, false);
    for token in Lexer::new(text) {
        match token.kind {
            Kind::Space | Kind::Comment => {}
            Kind::Word | Kind::Quoted => {
                let name = folded(text, token);
                let previous = if after_dot { names.pop().map(|previous| previous.last) } else { None };
                after_dot = false;
                of_schemas = match name.as_str() {
                    "schema" | "extension" => true,
                    "to" | "from" | "with" | "cascade" | "restrict" | "authorization" => false,
                    _ => of_schemas,
                };
                names.push(Name { schema: previous, last: name, after_schema_word: of_schemas });
            }
            _ => after_dot = text[token.start..token.end] == *b"." && !names.is_empty(),
        }
    }
    names
}
