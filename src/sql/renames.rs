//! New names of job objects by which they are none: what has one would be looked for elsewhere from then on.

use pg_raw_parse::{
    Node,
    list::NodeList,
    nodes,
    raw::{self, ObjectType},
};

use super::{
    names::cut,
    parse::{self, qualified},
    rules::{Object, Rules},
};

/// A job object that gets a name which is none of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenamedAway {
    /// The kind of object, as an error calls it.
    pub kind: &'static str,
    /// The name that it has, as far as it was qualified.
    pub from: String,
    /// The name that it would have.
    pub to: String,
    /// The list of the configuration that a name of this kind can be added to.
    pub listed_in: &'static str,
}

/// A name, perhaps qualified.
type Name<'a> = (Option<&'a str>, &'a str);

/// The first job object of which a text makes one that is none.
pub fn renamed_away(rules: &Rules, text: &[u8]) -> Option<RenamedAway> {
    let parsed = parse::parse(text).ok()?;
    parsed.statements().find_map(|statement| match statement.node {
        Node::RenameStmt(rename) if rename.rename_type == ObjectType::OBJECT_SCHEMA => {
            let (from, to) = (cut(rename.subname()?), cut(rename.newname()?));
            (rules.is_for_jobs(from) && !rules.is_for_jobs(to)).then(|| RenamedAway {
                kind: "schema",
                from: from.to_owned(),
                to: to.to_owned(),
                listed_in: "jobs.schemas",
            })
        }
        Node::RenameStmt(rename) => {
            let from @ (schema, _) = named(rename.relation(), rename.object())?;
            away(rules, rename.rename_type, from, (schema, cut(rename.newname()?)))
        }
        Node::AlterObjectSchemaStmt(alter) => {
            let from @ (_, name) = named(alter.relation(), alter.object())?;
            away(rules, alter.object_type, from, (Some(cut(alter.newschema()?)), name))
        }
        _ => None,
    })
}

fn away(rules: &Rules, object: raw::ObjectType::Type, from: Name<'_>, to: Name<'_>) -> Option<RenamedAway> {
    let (kind, what, listed_in) = match object {
        ObjectType::OBJECT_TABLE | ObjectType::OBJECT_FOREIGN_TABLE => {
            ("table", Object::Relation, "jobs.rules.tables")
        }
        ObjectType::OBJECT_VIEW | ObjectType::OBJECT_MATVIEW => {
            ("view", Object::Relation, "jobs.rules.tables")
        }
        ObjectType::OBJECT_SEQUENCE => ("sequence", Object::Relation, "jobs.rules.tables"),
        ObjectType::OBJECT_TYPE | ObjectType::OBJECT_DOMAIN => ("type", Object::Type, "jobs.rules.tables"),
        ObjectType::OBJECT_FUNCTION | ObjectType::OBJECT_PROCEDURE | ObjectType::OBJECT_ROUTINE => {
            ("function", Object::Function, "jobs.rules.functions")
        }
        // What stands on a relation is known by that one.
        _ => return None,
    };
    let is_job = |(schema, name): Name<'_>| rules.object(what, schema, name);
    let full = |(schema, name): Name<'_>| {
        schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"))
    };
    (is_job(from) && !is_job(to)).then(|| RenamedAway { kind, from: full(from), to: full(to), listed_in })
}

/// The name of what a statement is about: of a relation, or of something else.
fn named<'p>(relation: Option<&'p nodes::RangeVar>, object: Node<'p>) -> Option<Name<'p>> {
    let (schema, name) = match (relation, object) {
        (Some(relation), _) => (relation.schemaname(), relation.relname()?),
        (None, Node::NodeList(parts)) => of_parts(parts),
        (None, Node::ObjectWithArgs(function)) => of_parts(function.objname()),
        _ => return None,
    };
    Some((schema.map(cut), cut(name)))
}

fn of_parts(parts: &NodeList) -> Name<'_> {
    qualified(parts.iter())
}
