//! Proving, on the walk through a statement, that it leaves nothing on its backend beyond what the session carries.
//!
//! Nothing is proven by silence: every kind of statement either proves what it names here or says that it does not.

use pg_raw_parse::{Node, nodes};

use super::{
    catalog::Catalog,
    lexer::{Kind, Lexer, Token},
    names::folded,
    query::{Walk, is_system, is_true},
    reach,
    seen::Access,
    setting,
    used::Use,
    verdict::Effects,
};

impl<'p> Walk<'p, '_> {
    /// It is not proven, because of this.
    pub(super) fn unproven(&mut self, what: &str) {
        self.found.effects |= Effects::UNPROVEN;
        if let Some(seen) = self.seen.as_deref_mut() {
            seen.unproven(what);
        }
    }

    /// What goes by this name must be proven, and is told to whoever walks the body of a function.
    pub(super) fn prove(&mut self, name: &str, used: Use) {
        if let Some(uses) = &mut self.used {
            uses.push((name.to_owned(), used));
        }
        self.found.tables |= self.catalog.tables(name, used);
        self.found.asks_definitions |=
            matches!(used, Use::Call | Use::Attribute | Use::Type) && reach::asks_definitions(name);
        if !self.catalog.proves(name, used) {
            self.unproven(name);
        }
    }

    /// Walks what runs later, with statements that do not name it: an expression of a table, the query of a cursor.
    pub(super) fn defer(&mut self, node: Node<'p>) {
        self.used = Some(Vec::new());
        self.walk(node);
        self.used = None;
    }

    /// Operators are everywhere, also where none is written.
    pub(super) fn prove_any(&mut self) {
        self.found.tables |= self.catalog.proof().core_tables();
        if self.catalog.proof().proves_nothing() {
            let is_empty = self.catalog.is_empty();
            self.unproven(if is_empty {
                "no catalog has been read"
            } else {
                "an operator that is everywhere"
            });
        }
    }

    /// It defines something.
    pub(super) fn prove_definition(&mut self) {
        if !self.catalog.proof().proves_definitions() {
            self.unproven("an event trigger, or no catalog has been read");
        }
    }

    /// A relation that is no common table expression.
    pub(super) fn prove_relation(&mut self, schema: Option<&str>, name: &str, access: Access) {
        match access {
            // `pg_settings` has rules, and what is written to catalogs may be anything.
            Access::Insert | Access::Write if is_system(schema, name) => self.unproven(name),
            Access::Insert | Access::Write => self.prove(name, Use::Write),
            Access::Read => self.prove(name, Use::Read),
        }
    }

    /// A call, but for its arguments.
    pub(super) fn prove_call(&mut self, call: &'p nodes::FuncCall, name: &str) {
        if name == "set_config" {
            return self.prove_setting(call);
        }
        // What a function locks is not seen where the function is called.
        if self.used.is_some() && self.catalog.proof().is_visible(name) {
            self.unproven(name);
        }
        self.prove(name, Use::Call);
    }

    /// `set_config(name, value, is_local)`: the name must be one that is carried.
    fn prove_setting(&mut self, call: &'p nodes::FuncCall) {
        let is_own = self.catalog.function("set_config").is_some_and(super::catalog::Function::is_own);
        let is_local = call.args().get(2).is_some_and(is_true);
        // In a function nobody sees what lasts.
        if is_own || call.args().iter().count() != 3 || self.used.is_some() && !is_local {
            return self.unproven("set_config");
        }
        match call.args().get(0) {
            Some(Node::ParamRef(parameter)) if self.used.is_none() && parameter.number > 0 => {
                self.found.effects |= Effects::bound_setting(parameter.number as usize - 1);
            }
            // Not under a cast, which may change it: `'app.tenants'::varchar(10)`.
            Some(name @ Node::A_Const(_))
                if self.literal(name).is_some_and(|name| setting::is_carried_name(name.as_bytes())) => {}
            _ => self.unproven("set_config of a name that is computed or not carried"),
        }
    }

    /// SET and RESET of a name.
    pub(super) fn prove_set(&mut self, set: &'p nodes::VariableSetStmt) {
        use pg_raw_parse::raw::VariableSetKind as Set;
        let name = set.name().unwrap_or_default();
        let is_proven = match set.kind {
            // Of one transaction, or of all, by names that are fixed.
            Set::VAR_SET_MULTI | Set::VAR_RESET_ALL => true,
            Set::VAR_RESET if name == "transaction_isolation" => true,
            Set::VAR_SET_VALUE => {
                setting::is_carried_name(name.as_bytes()) || is_plain_reading(name, set) || name == "seed"
            }
            Set::VAR_SET_DEFAULT | Set::VAR_RESET => setting::is_carried_name(name.as_bytes()),
            _ => false,
        };
        if !is_proven {
            self.unproven(name);
        }
    }
}

/// Whether texts are read afterwards as they are classified.
fn is_plain_reading(name: &str, set: &nodes::VariableSetStmt) -> bool {
    let mut values = set.args().iter();
    let (Some(Node::A_Const(value)), None) = (values.next(), values.next()) else { return false };
    let Some(pg_raw_parse::ConstValue::String(value)) = value.val() else { return false };
    if name.eq_ignore_ascii_case("client_encoding") {
        return setting::is_plain_encoding(value);
    }
    name.eq_ignore_ascii_case("standard_conforming_strings") && value.eq_ignore_ascii_case("on")
}

/// Whether every name before a parenthesis is that of a function that is proven, if it is one: a second look, which does
/// not depend on how the grammar's trees are walked.
pub(super) fn calls_are_proven(catalog: &Catalog, text: &[u8]) -> bool {
    let mut name: Option<Token> = None;
    for token in Lexer::new(text) {
        match token.kind {
            Kind::Space | Kind::Comment => {}
            Kind::Word | Kind::Quoted => name = Some(token),
            _ => {
                let Some(called) = name.take().filter(|_| text[token.start] == b'(') else { continue };
                let called = folded(text, called);
                if called != "set_config" && catalog.proof().is_in_doubt(&called) {
                    return false;
                }
            }
        }
    }
    true
}
