//! From one text to its verdict: what each kind of statement is, and how those of one text add up.

use pg_raw_parse::{
    Node, nodes,
    raw::{DiscardMode, TransactionStmtKind, VariableSetKind},
};

use super::{
    catalog::Catalog,
    definitions, hint, key,
    parse::{self, Statement, source},
    programs, prove,
    query::{self, Walk},
    reach,
    rules::Rules,
    seen::{Access, Seen},
    tables::Tables,
    utility,
    verdict::{AccessMode, Class, Control, Effects, Reason, Verdict},
};

/// Judges a text. `seen` collects names if somebody wants them.
pub(super) fn judge(rules: &Rules, catalog: &Catalog, text: &[u8], mut seen: Option<&mut Seen>) -> Verdict {
    let mut verdict = match parse::parse(text) {
        Err(parse::Unparsed) => Verdict::unknown(Reason::Unparsed),
        Ok(parsed) => {
            let judge = Judge { rules, catalog, text, literals: key::keeps_literals(text) };
            let mut sum = Sum::default();
            for statement in parsed.statements() {
                sum.add(&judge.statement(statement, seen.as_deref_mut()));
            }
            let verdict = sum.verdict();
            // What is not UTF-8 was read with its bytes masked.
            let is_whole = std::str::from_utf8(text).is_ok();
            if is_whole && prove::calls_are_proven(catalog, text) { verdict } else { verdict.unproven() }
        }
    };
    if verdict.class == Class::Read && catalog.may_name_added(text) {
        // A standby may not have it yet.
        (verdict.class, verdict.reason) = (Class::Write, Reason::Relation);
    }
    let wishes = hint::read(text, rules);
    let is_worker = rules.worker_tags.are_in(text);
    Verdict { hint: wishes.route, consistency: wishes.consistency, is_worker, ..verdict }
}

// === adding up ===

/// The statements of one text so far.
#[derive(Default)]
struct Sum {
    count: usize,
    total: Option<Verdict>,
    prologues: usize,
}

impl Sum {
    fn add(&mut self, one: &Verdict) {
        self.count += 1;
        self.prologues += usize::from(one.control == Control::Prologue);
        let Some(total) = &mut self.total else {
            self.total = Some(*one);
            return;
        };
        // What a text shows beside what it changes is not told apart.
        total.tables = total.tables.with(one.tables);
        let beside_jobs = total.beside_jobs(one);
        if one.class > total.class {
            (total.class, total.reason) = (one.class, one.reason);
        }
        // By a default that is not known here, what follows a RESET may be read otherwise (the body of a function, say).
        let is_reset = total.effects.has(Effects::RESETS);
        total.effects = total.effects.with(one.effects).with(beside_jobs);
        if is_reset {
            total.effects |= Effects::UNPROVEN;
        }
        if one.control != Control::None {
            total.control = Control::Other;
        }
    }

    fn verdict(self) -> Verdict {
        let Some(mut total) = self.total else {
            return Verdict::new(Class::Neutral, Reason::Empty);
        };
        if self.count > 1 {
            if self.prologues == self.count {
                total.control = Control::Prologue;
            } else if total.control != Control::None {
                total.control = Control::Other;
            }
            total.effects = total.effects.without(Effects::DEALLOCATES.with(Effects::WITHIN));
        }
        total
    }
}

// === statements ===

struct Judge<'c> {
    rules: &'c Rules,
    catalog: &'c Catalog,
    text: &'c [u8],
    literals: bool,
}

impl Judge<'_> {
    fn statement(&self, statement: Statement<'_>, seen: Option<&mut Seen>) -> Verdict {
        let mut walk = Walk::new(self.rules, self.catalog, self.literals, seen);
        let control = if let Some(control) = session_statement(&mut walk, statement.node) {
            control
        } else {
            self.other(&mut walk, statement);
            Control::None
        };
        walk.found.conclude();
        let found = &mut walk.found;
        if found.effects.has(Effects::DDL)
            && !found.effects.has(Effects::UNPROVEN)
            && definitions::only_adds(statement.node)
        {
            found.effects = found.effects.without(Effects::DDL).with(Effects::ADDS);
        }
        let (class, reason) = match (found.job, found.write) {
            (Some(reason), _) => (Class::Job, reason),
            (None, Some(reason)) => (Class::Write, reason),
            (None, None) if found.neutral_call && found.relation => (Class::Write, Reason::Function),
            (None, None) if found.neutral_call => (Class::Neutral, Reason::NoObject),
            (None, None) => (Class::Read, Reason::ReadOnly),
        };
        let named = if found.application { Effects::APP_OBJECTS } else { Effects::NONE };
        let effects = found.effects.with(named);
        // Who writes is no slower by what it asks.
        let asked = class == Class::Read && found.asks_definitions;
        let tables = if asked { found.tables.with(reach::definitions()) } else { found.tables };
        Verdict { control, effects, tables, ..Verdict::new(class, reason) }
    }

    /// Statements that do not only concern the session.
    fn other<'p>(&self, walk: &mut Walk<'p, '_>, statement: Statement<'p>) {
        match statement.node {
            Node::SelectStmt(_)
            | Node::InsertStmt(_)
            | Node::UpdateStmt(_)
            | Node::DeleteStmt(_)
            | Node::MergeStmt(_) => walk.walk(statement.node),
            Node::ExplainStmt(explain) => explained(walk, explain.query()),
            Node::DeclareCursorStmt(cursor) => declare(walk, cursor),
            Node::PrepareStmt(prepare) => {
                walk.found.effects |= Effects::PREPARES.with(Effects::NAMES_STATEMENT);
                walk.found.writes(Reason::Utility);
                for argument in prepare.argtypes() {
                    walk.walk(Node::TypeName(argument));
                }
                deferred(walk, prepare.query());
            }
            Node::CopyStmt(copy) => Self::copy(walk, copy),
            Node::DoStmt(_) => self.program(walk, statement),
            Node::CallStmt(call) => {
                walk.found.effects |= Effects::OPAQUE;
                walk.found.writes(Reason::Function);
                if let Some(call) = call.funccall() {
                    walk.walk(Node::FuncCall(call));
                    walk.procedure(call);
                }
            }
            _ => utility::statement(walk, self.text, statement),
        }
    }

    fn copy<'p>(walk: &mut Walk<'p, '_>, copy: &'p nodes::CopyStmt) {
        if let Some(relation) = copy.relation() {
            let access = if copy.is_from { Access::Insert } else { Access::Read };
            if let Some(name) = relation.relname() {
                walk.prove_any();
                walk.prove_relation(relation.schemaname(), name, access);
                walk.named_relation(relation.schemaname(), name, access);
            }
        }
        explained(walk, copy.query());
        walk.walk(copy.where_clause());
        if copy.is_from {
            walk.modifies_rows();
        }
        match copy.filename() {
            // A file or program of the server.
            Some(_) => {
                walk.unproven("a file or program of the server");
                walk.found.writes(Reason::Utility);
            }
            None if copy.is_from => walk.found.effects |= Effects::COPY_IN,
            None => {}
        }
    }

    /// DO: the program is a literal.
    fn program(&self, walk: &mut Walk<'_, '_>, statement: Statement<'_>) {
        walk.found.effects |= Effects::OPAQUE;
        walk.unproven("DO");
        walk.found.writes(Reason::Utility);
        let source = source(self.text, statement);
        if self.rules.words_name_job(&source) {
            walk.found.is_job(Reason::JobLiteral);
            walk.found.belongs_to_jobs = true;
            walk.found.defines = only_defines(&source);
        }
        let sets = programs::parameters(&source);
        if !sets.names.is_empty() {
            walk.found.effects |= Effects::SETS_UNLISTED;
        }
        if sets.hidden {
            walk.found.effects |= Effects::OPAQUE_SETTINGS;
        }
    }
}

/// Whether the words of a program are those of definitions, and none changes rows.
fn only_defines(source: &str) -> bool {
    let is_any = |word: &str, all: &[&str]| all.iter().any(|one| word.eq_ignore_ascii_case(one));
    let words = || source.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let changes_rows = |word: &str| {
        is_any(word, &["insert", "update", "delete", "merge", "copy", "truncate", "call", "perform"])
    };
    words().any(|word| is_any(word, &["create", "alter", "drop", "comment"])) && !words().any(changes_rows)
}

/// A statement inside another: a query is walked, anything else is a write.
fn explained<'p>(walk: &mut Walk<'p, '_>, query: Node<'p>) {
    match query {
        Node::None => {}
        Node::SelectStmt(_)
        | Node::InsertStmt(_)
        | Node::UpdateStmt(_)
        | Node::DeleteStmt(_)
        | Node::MergeStmt(_) => walk.walk(query),
        Node::CreateTableAsStmt(create) => {
            walk.found.writes(Reason::Utility);
            if let Some(relation) = create.into().and_then(nodes::IntoClause::rel) {
                walk.creates(relation);
            }
            explained(walk, create.query());
        }
        // It runs, too, if ANALYZE is asked for.
        Node::ExecuteStmt(_) => {
            walk.unproven("EXECUTE");
            walk.found.writes(Reason::Utility);
            walk.found.effects |= Effects::OPAQUE.with(Effects::NAMES_STATEMENT);
        }
        _ => {
            walk.unproven("a statement that is not read");
            walk.found.writes(Reason::Utility);
        }
    }
}

fn declare<'p>(walk: &mut Walk<'p, '_>, cursor: &'p nodes::DeclareCursorStmt) {
    /// `CURSOR_OPT_HOLD` of PostgreSQL's parsenodes.h.
    const HOLD: i32 = 0x20;
    if cursor.options & HOLD != 0 {
        walk.found.effects |= Effects::HOLDS_CURSOR;
        walk.found.writes(Reason::Utility);
    }
    deferred(walk, cursor.query());
}

/// A statement that runs later: what it does is not seen then.
fn deferred<'p>(walk: &mut Walk<'p, '_>, query: Node<'p>) {
    walk.used = Some(Vec::new());
    explained(walk, query);
    walk.used = None;
}

// === statements about the session ===

/// Statements about the session or transaction; `None` for others.
fn session_statement<'p>(walk: &mut Walk<'p, '_>, node: Node<'p>) -> Option<Control> {
    let neutral = &mut walk.found.neutral_call;
    match node {
        Node::TransactionStmt(statement) => {
            *neutral = true;
            return Some(transaction(walk, statement));
        }
        Node::VariableSetStmt(statement) => {
            *neutral = true;
            return Some(set(walk, statement));
        }
        Node::ConstraintsSetStmt(_) => {
            *neutral = true;
            return Some(Control::Prologue);
        }
        Node::VariableShowStmt(_) | Node::FetchStmt(_) => *neutral = true,
        Node::ClosePortalStmt(_) => (*neutral, walk.found.effects) = (true, Effects::ENDS_STATE),
        Node::DiscardStmt(statement) => {
            *neutral = true;
            walk.found.effects |= discard(statement.target);
        }
        Node::DeallocateStmt(statement) => {
            *neutral = true;
            let which = if statement.isall { Effects::DISCARDS } else { Effects::NAMES_STATEMENT };
            walk.found.effects |= Effects::ENDS_STATE.with(Effects::DEALLOCATES).with(which);
        }
        Node::ListenStmt(statement) => channel(walk, statement.conditionname(), Effects::LISTENS),
        Node::UnlistenStmt(statement) => {
            channel(walk, statement.conditionname(), Effects::ENDS_STATE.with(Effects::UNLISTENS));
        }
        Node::NotifyStmt(statement) => {
            walk.found.writes(Reason::Utility);
            channel(walk, statement.conditionname(), Effects::NOTIFIES);
        }
        Node::LoadStmt(_) => {
            walk.found.effects |= Effects::LOADS;
            walk.unproven("LOAD");
            walk.found.writes(Reason::Utility);
        }
        _ => return None,
    }
    Some(Control::None)
}

fn channel(walk: &mut Walk<'_, '_>, name: Option<&str>, effects: Effects) {
    walk.found.neutral_call = true;
    walk.found.effects |= effects;
    if name.is_some_and(|name| walk.rules.channel(name)) {
        walk.found.is_job(Reason::JobChannel);
        let wakes = effects.has(Effects::NOTIFIES) && name.is_some_and(|name| walk.rules.wakes(name));
        walk.found.belongs_to_jobs |= !wakes;
    }
}

fn transaction<'p>(walk: &mut Walk<'p, '_>, statement: &'p nodes::TransactionStmt) -> Control {
    match statement.kind {
        TransactionStmtKind::TRANS_STMT_BEGIN | TransactionStmtKind::TRANS_STMT_START => {
            begin(statement).unwrap_or(Control::Other)
        }
        TransactionStmtKind::TRANS_STMT_COMMIT if !statement.chain => Control::Commit,
        TransactionStmtKind::TRANS_STMT_ROLLBACK if !statement.chain => Control::Rollback,
        TransactionStmtKind::TRANS_STMT_SAVEPOINT => {
            walk.found.effects |= Effects::SAVEPOINT;
            Control::Prologue
        }
        TransactionStmtKind::TRANS_STMT_RELEASE | TransactionStmtKind::TRANS_STMT_ROLLBACK_TO => {
            walk.found.effects |= Effects::WITHIN;
            Control::Other
        }
        TransactionStmtKind::TRANS_STMT_COMMIT | TransactionStmtKind::TRANS_STMT_ROLLBACK => Control::Other,
        // Two-phase commit belongs to one server.
        _ => {
            walk.found.writes(Reason::Utility);
            // Whatever the prepared transaction has changed.
            walk.found.tables = Tables::ALL;
            Control::Other
        }
    }
}

/// `None` if an option is not understood.
fn begin(statement: &nodes::TransactionStmt) -> Option<Control> {
    let (mut access, mut serializable) = (AccessMode::Default, false);
    for option in statement.options() {
        let Node::DefElem(option) = option else {
            return None;
        };
        let Node::A_Const(value) = option.arg() else {
            return None;
        };
        let value = value.val()?;
        match option.defname()? {
            "transaction_isolation" => {
                serializable = match value.string_value()? {
                    "serializable" => true,
                    "repeatable read" | "read committed" | "read uncommitted" => false,
                    _ => return None,
                }
            }
            "transaction_read_only" => {
                access = if truth(value)? { AccessMode::ReadOnly } else { AccessMode::ReadWrite }
            }
            "transaction_deferrable" => _ = truth(value)?,
            _ => return None,
        }
    }
    Some(Control::Begin { access, serializable })
}

fn truth(value: pg_raw_parse::ConstValue<'_>) -> Option<bool> {
    value.bool_value().or_else(|| value.numeric_value::<i32>().map(|number| number != 0))
}

fn set<'p>(walk: &mut Walk<'p, '_>, statement: &'p nodes::VariableSetStmt) -> Control {
    walk.prove_set(statement);
    let name = statement.name().unwrap_or_default();
    if name == "seed" {
        // Nothing undoes it, not even the end of the transaction.
        walk.found.effects |= Effects::SEEDS;
    }
    let unlisted = if query::is_listed(name) { Effects::NONE } else { Effects::SETS_UNLISTED };
    let effects = match statement.kind {
        VariableSetKind::VAR_SET_MULTI if name == "SESSION CHARACTERISTICS" => Effects::SETS,
        VariableSetKind::VAR_SET_MULTI => return Control::Prologue,
        VariableSetKind::VAR_RESET if name == "transaction_isolation" => return Control::Prologue,
        _ if statement.is_local => {
            walk.found.effects |= Effects::LOCAL;
            return Control::Prologue;
        }
        VariableSetKind::VAR_RESET | VariableSetKind::VAR_SET_DEFAULT => Effects::RESETS.with(unlisted),
        VariableSetKind::VAR_RESET_ALL => Effects::RESETS.with(Effects::SETS_UNLISTED),
        _ => Effects::SETS.with(unlisted),
    };
    walk.found.effects |= effects;
    Control::None
}

fn discard(target: DiscardMode::Type) -> Effects {
    let ends = Effects::ENDS_STATE;
    match target {
        DiscardMode::DISCARD_ALL => {
            let settings = Effects::RESETS.with(Effects::SETS_UNLISTED);
            let gone = Effects::DISCARDS.with(Effects::DISCARDS_SEQUENCES).with(Effects::UNLISTENS);
            ends.with(gone).with(settings)
        }
        DiscardMode::DISCARD_SEQUENCES => ends.with(Effects::DISCARDS_SEQUENCES),
        _ => ends,
    }
}
