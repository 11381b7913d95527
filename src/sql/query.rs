//! Walks one query (SELECT, INSERT, UPDATE, DELETE, MERGE and what is nested in them) and collects what
//! decides its verdict. Iterative: depth of nesting costs heap, never stack.

mod calls;
mod found;
mod learning;

use found::Found;
use pg_raw_parse::{ConstValue, Node, nodes, raw::OnConflictAction};

use super::{
    catalog::{Catalog, Function},
    parse::{self, qualified},
    reach,
    rules::{Object, Rules},
    seen::{Access, Seen},
    used::Use,
    verdict::{Effects, Reason},
};

/// Names of common table expressions beyond this many in one text are taken for tables, so that looking
/// them up cannot take quadratic time.
const SCOPES_MAX: usize = 2000;

/// Where a node stands: which common table expressions it can see.
#[derive(Clone, Copy)]
struct Scope(Option<usize>);

struct Names<'p> {
    parent: Scope,
    names: Vec<&'p str>,
}

/// Walks queries of one statement into one [`Found`].
pub(super) struct Walk<'p, 'c> {
    pub(super) rules: &'c Rules,
    pub(super) catalog: &'c Catalog,
    /// Whether the key of this text holds its literals; otherwise they must not be looked at.
    pub(super) literals: bool,
    pub(super) found: Found,
    pub(super) seen: Option<&'c mut Seen>,
    /// What the body of a function uses, if one is walked.
    pub(super) used: Option<Vec<(String, Use)>>,
    scopes: Vec<Names<'p>>,
    stack: Vec<(Node<'p>, Scope)>,
}

impl<'p, 'c> Walk<'p, 'c> {
    pub(super) fn new(
        rules: &'c Rules,
        catalog: &'c Catalog,
        literals: bool,
        seen: Option<&'c mut Seen>,
    ) -> Self {
        let (found, scopes, stack) = (Found::default(), Vec::new(), Vec::with_capacity(32));
        Self { rules, catalog, literals, found, seen, used: None, scopes, stack }
    }

    /// Walks everything under a node.
    pub(super) fn walk(&mut self, node: Node<'p>) {
        self.prove_any();
        self.stack.push((node, Scope(None)));
        while let Some((node, scope)) = self.stack.pop() {
            self.visit(node, scope);
        }
    }

    fn visit(&mut self, node: Node<'p>, scope: Scope) {
        match node {
            Node::None | Node::A_Star(_) | Node::Alias(_) => {}
            Node::RangeVar(relation) => self.relation(relation, scope, Access::Read),
            Node::ColumnRef(column) => self.column(column),
            Node::A_Const(constant) => self.constant(constant),
            Node::ParamRef(_) => self.found.parameter = true,
            // Its list holds aliases, which look like relations.
            Node::LockingClause(_) => self.found.writes(Reason::RowLocks),
            Node::SelectStmt(select) => self.select(select, scope),
            Node::InsertStmt(s) => self.modifies(node, s.relation(), s.with_clause(), scope),
            Node::UpdateStmt(s) => self.modifies(node, s.relation(), s.with_clause(), scope),
            Node::DeleteStmt(s) => self.modifies(node, s.relation(), s.with_clause(), scope),
            Node::MergeStmt(s) => self.modifies(node, s.relation(), s.with_clause(), scope),
            _ => {
                self.expression(node);
                self.push_children(node, scope);
            }
        }
    }

    fn expression(&mut self, node: Node<'p>) {
        match node {
            Node::FuncCall(call) => self.call(call),
            Node::TypeCast(cast) => self.cast(cast),
            Node::TypeName(name) => self.type_name(name),
            Node::A_Expr(expression) => self.operator(expression.name().iter()),
            Node::SubLink(link) => self.operator(link.oper_name().iter()),
            // The library's walk leaves its type out.
            Node::RangeTableFuncCol(column) => {
                column.type_name().into_iter().for_each(|name| self.type_name(name));
            }
            Node::RangeTableSample(sample) => self.prove(qualified(sample.method().iter()).1, Use::Call),
            Node::SortBy(sort) => self.operator(sort.use_op().iter()),
            Node::A_Indirection(indirection) => {
                for part in indirection.indirection() {
                    if let Some(name) = part.as_str() {
                        self.attribute(name);
                    }
                }
            }
            _ => {}
        }
    }

    fn push_children(&mut self, node: Node<'p>, scope: Scope) {
        let stack = &mut self.stack;
        if !parse::children(node, |child| stack.push((child, scope))) {
            self.unproven("a clause that is not read");
            self.found.writes(Reason::Utility);
        }
    }

    // === statements ===

    fn select(&mut self, select: &'p nodes::SelectStmt, scope: Scope) {
        if let Some(into) = select.into_clause() {
            self.found.writes(Reason::Utility);
            if let Some(relation) = into.rel() {
                self.creates(relation);
            }
        }
        let scope = self.with(select.with_clause(), scope);
        let stack = &mut self.stack;
        parse::children(Node::SelectStmt(select), |child| match child {
            Node::WithClause(_) | Node::IntoClause(_) => {}
            child => stack.push((child, scope)),
        });
    }

    fn modifies(
        &mut self,
        node: Node<'p>,
        target: Option<&'p nodes::RangeVar>,
        with: Option<&'p nodes::WithClause>,
        scope: Scope,
    ) {
        self.modifies_rows();
        // What is written to is never a common table expression, whatever their names are.
        if let Some(target) = target {
            let access = match node {
                Node::InsertStmt(insert) if !self.updates(insert, target) => Access::Insert,
                _ => Access::Write,
            };
            self.relation(target, Scope(None), access);
            if matches!(node, Node::DeleteStmt(_) | Node::MergeStmt(_)) {
                self.prove(target.relname().unwrap_or_default(), Use::Delete);
            }
        }
        let scope = self.with(with, scope);
        let stack = &mut self.stack;
        parse::children(node, |child| match child {
            Node::WithClause(_) => {}
            Node::RangeVar(relation) if target.is_some_and(|target| std::ptr::eq(target, relation)) => {}
            child => stack.push((child, scope)),
        });
    }

    /// Whether an INSERT changes rows that are in its way, in another way than its library does, which changes nothing.
    fn updates(&self, insert: &nodes::InsertStmt, target: &nodes::RangeVar) -> bool {
        let name = target.relname().unwrap_or_default();
        let updates = insert
            .on_conflict_clause()
            .is_some_and(|clause| clause.action == OnConflictAction::ONCONFLICT_UPDATE);
        updates && !self.rules.touches_on_conflict(target.schemaname(), name)
    }

    /// It changes rows, and may run triggers.
    pub(super) fn modifies_rows(&mut self) {
        self.found.writes(Reason::Modifies);
        self.found.effects |= self.catalog.triggers();
    }

    /// A relation that the statement creates.
    pub(super) fn creates(&mut self, relation: &'p nodes::RangeVar) {
        self.found.effects |= if is_temporary(relation) { Effects::TEMP } else { Effects::DDL };
        self.prove_definition();
        if let Some(name) = relation.relname() {
            self.found.tables |= self.catalog.tables(name, Use::Write).with(reach::definitions());
            self.named_relation(relation.schemaname(), name, Access::Write);
        }
    }

    /// Opens the scopes of a WITH clause, walks its queries and gives the scope of the statement itself.
    fn with(&mut self, with: Option<&'p nodes::WithClause>, outer: Scope) -> Scope {
        let Some(with) = with else { return outer };
        let mut scope = outer;
        if with.recursive {
            let names = with.ctes().iter().filter_map(nodes::CommonTableExpr::ctename).collect();
            scope = self.open(names, scope);
        }
        for cte in with.ctes() {
            if cte.cycle_clause().is_some() {
                self.unproven("a CYCLE clause");
            }
            self.stack.push((cte.ctequery(), scope));
            if !with.recursive {
                scope = self.open(cte.ctename().into_iter().collect(), scope);
            }
        }
        scope
    }

    fn open(&mut self, names: Vec<&'p str>, parent: Scope) -> Scope {
        if self.scopes.len() >= SCOPES_MAX {
            return parent;
        }
        self.scopes.push(Names { parent, names });
        Scope(Some(self.scopes.len() - 1))
    }

    fn sees(&self, mut scope: Scope, name: &str) -> bool {
        while let Some(names) = scope.0.and_then(|at| self.scopes.get(at)) {
            if names.names.contains(&name) {
                return true;
            }
            scope = names.parent;
        }
        false
    }

    // === names ===

    fn relation(&mut self, relation: &'p nodes::RangeVar, scope: Scope, access: Access) {
        let (schema, Some(name)) = (relation.schemaname(), relation.relname()) else {
            return;
        };
        if schema.is_none() && self.sees(scope, name) {
            return;
        }
        self.prove_relation(schema, name, access);
        self.named_relation(schema, name, access);
    }

    /// A relation by name.
    pub(super) fn named_relation(&mut self, schema: Option<&str>, name: &str, access: Access) {
        self.found.relation = true;
        self.found.other_relation |= name != "pg_settings" || !matches!(schema, None | Some("pg_catalog"));
        let job = self.rules.object(Object::Relation, schema, name);
        if let Some(seen) = self.seen.as_deref_mut() {
            seen.relation(schema, name, access, job);
        }
        if job {
            self.found.is_job(Reason::JobObject);
            self.found.writes(Reason::JobObject);
            // A view may call anything.
            self.found.is_no_read |= self.catalog.is_unsafe_relation(name);
            self.found.adds |= access == Access::Insert && self.rules.is_relayed(schema, name);
            let enqueues = match access {
                Access::Insert => self.rules.is_relayed(schema, name),
                Access::Read => self.rules.is_mirrored(schema, name),
                Access::Write => false,
            };
            self.found.belongs_to_jobs |= !enqueues;
        } else if is_system(schema, name) {
            self.found.reads_catalog(name);
        } else {
            self.found.application = true;
            if self.catalog.is_empty() {
                self.found.writes(Reason::CatalogMissing);
            } else if self.catalog.is_unsafe_relation(name) {
                self.found.writes(Reason::Relation);
            }
        }
    }

    /// `t.f` calls a function `f` if `t` has no such column.
    fn column(&mut self, column: &'p nodes::ColumnRef) {
        if column.fields().len() < 2 {
            return;
        }
        if let (Some(_), name) = qualified(column.fields().iter()) {
            self.attribute(name);
        }
    }

    fn attribute(&mut self, name: &str) {
        self.prove(name, Use::Attribute);
        if self.catalog.function(name).is_some_and(Function::is_opaque) {
            self.found.writes(Reason::Function);
            self.found.effects |= Effects::OPAQUE;
        }
    }

    fn operator(&mut self, names: impl Iterator<Item = Node<'p>>) {
        let (_, name) = qualified(names);
        // Those in words are among the operators that are everywhere.
        if !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            self.prove(name, Use::Operator);
        }
        if self.catalog.is_empty() && !PLAIN_OPERATORS.contains(&name) {
            self.found.writes(Reason::CatalogMissing);
        } else if self.catalog.is_unsafe_operator(name) {
            self.found.writes(Reason::Operator);
        }
    }

    /// A type by name, as in casts and column definitions.
    pub(super) fn type_name(&mut self, type_name: &'p nodes::TypeName) {
        let (schema, name) = qualified(type_name.names().iter().map(Node::String));
        if type_name.pct_type {
            self.unproven("a type by reference");
        }
        self.prove(name, Use::Type);
        if schema == Some("pg_catalog") {
            return;
        }
        if self.rules.object(Object::Type, schema, name) {
            self.found.is_job(Reason::JobObject);
        } else if self.catalog.is_empty() && schema.is_none() && !PLAIN_TYPES.contains(&name) {
            self.found.writes(Reason::CatalogMissing);
        } else if self.catalog.is_unsafe_type(name) {
            self.found.writes(Reason::Operator);
        }
    }

    // === literals ===

    /// A string whose value may decide.
    pub(super) fn literal(&self, node: Node<'p>) -> Option<&'p str> {
        match node {
            Node::A_Const(constant) if self.literals => match constant.val() {
                Some(ConstValue::String(value)) => Some(value),
                _ => None,
            },
            Node::TypeCast(cast) => self.literal_of_cast(cast),
            _ => None,
        }
    }

    fn literal_of_cast(&self, cast: &'p nodes::TypeCast) -> Option<&'p str> {
        // One level: `'oban_jobs'::text`. A cast of a cast is for the judge of nothing.
        match cast.arg() {
            Node::A_Const(_) => self.literal(cast.arg()),
            _ => None,
        }
    }

    fn constant(&mut self, constant: &'p nodes::A_Const) {
        if let Some(value) = self.literal(Node::A_Const(constant))
            && self.rules.value_names_job(value.as_bytes())
        {
            self.found.literal_names_job = true;
        }
    }

    fn cast(&mut self, cast: &'p nodes::TypeCast) {
        let Some(type_name) = cast.type_name() else {
            return;
        };
        let (_, name) = qualified(type_name.names().iter().map(Node::String));
        if super::key::REG_TYPES.contains(&name.as_bytes()) {
            self.names_object(cast.arg());
        }
    }

    /// An argument that is read as the name of an object.
    fn names_object(&mut self, argument: Node<'p>) {
        if let Some(value) = self.literal(argument) {
            if self.rules.value_names_job(value.as_bytes()) {
                self.found.is_job(Reason::JobLiteral);
                self.found.belongs_to_jobs |= !self.rules.is_relayed_sequence(value);
            }
        } else {
            // A parameter, or computed, perhaps from one.
            self.found.parameter_decides = true;
        }
    }
}

/// Types that the grammar does not qualify and that need no catalog to be known harmless.
const PLAIN_TYPES: [&str; 12] =
    ["bytea", "cidr", "date", "float8", "inet", "int4", "int8", "json", "jsonb", "name", "text", "uuid"];

/// Operators as the parser names them that need no catalog to be known harmless.
const PLAIN_OPERATORS: [&str; 23] = [
    "",
    "=",
    "<>",
    "<",
    ">",
    "<=",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "||",
    "~~",
    "~~*",
    "!~~",
    "!~~*",
    "IN",
    "NOT IN",
    "BETWEEN",
    "NOT BETWEEN",
    "BETWEEN SYMMETRIC",
    "NOT BETWEEN SYMMETRIC",
];

/// Whether a setting of this name shows in the server's list and is not a role.
pub(super) fn is_listed(name: &str) -> bool {
    let role = ["role", "session_authorization"].iter().any(|role| name.eq_ignore_ascii_case(role));
    !role && !name.contains('.')
}

pub(super) fn is_temporary(relation: &nodes::RangeVar) -> bool {
    relation.relpersistence == b't'.cast_signed()
        || relation.schemaname().is_some_and(|schema| schema.starts_with("pg_temp"))
}

/// Catalogs, statistics views, and the schemas that hold them. Names of schemas are reserved; a relation's without its schema
/// may be a user's as well.
pub(super) fn is_system(schema: Option<&str>, name: &str) -> bool {
    match schema {
        Some(schema) => matches!(schema, "pg_catalog" | "information_schema" | "pg_toast"),
        None => name.starts_with("pg_"),
    }
}

pub(super) fn is_true(node: Node<'_>) -> bool {
    matches!(node, Node::A_Const(constant) if matches!(constant.val(), Some(ConstValue::Boolean(true))))
}
