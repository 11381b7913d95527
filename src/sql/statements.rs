//! Questions about single statements, off the hot path: which prepared statement is let go, which settings
//! are set.

use std::ops::Range;

use pg_raw_parse::{
    ConstValue, Node, nodes,
    raw::{DiscardMode, VariableSetKind},
};

use super::{
    names::{NAME_BYTES, cut},
    parse::{self, qualified, source},
    programs,
    targets::targets,
};

/// The statements that DEALLOCATE lets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deallocate {
    /// Every prepared statement.
    All,
    /// The one of this name.
    Name(String),
}

/// A prepared statement that a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementName {
    /// Its name, as the server reads it.
    pub name: String,
    /// The text may let go of it: DEALLOCATE, or PREPARE after that.
    pub is_let_go: bool,
}

/// The prepared statements that a text names: EXECUTE, also within EXPLAIN and CREATE TABLE AS, PREPARE, DEALLOCATE.
pub fn statement_names(text: &[u8]) -> Vec<StatementName> {
    let Ok(parsed) = parse::parse(text) else {
        return Vec::new();
    };
    parsed.statements().filter_map(|statement| named_by(statement.node)).collect()
}

fn named_by(mut node: Node<'_>) -> Option<StatementName> {
    loop {
        let (name, is_let_go) = match node {
            // EXPLAIN CREATE TABLE AS EXECUTE is the longest there is.
            Node::ExplainStmt(explain) => {
                node = explain.query();
                continue;
            }
            Node::CreateTableAsStmt(create) => {
                node = create.query();
                continue;
            }
            Node::ExecuteStmt(execute) => (execute.name(), false),
            Node::PrepareStmt(prepare) => (prepare.name(), true),
            Node::DeallocateStmt(deallocate) => (deallocate.name(), true),
            _ => return None,
        };
        return name.map(|name| StatementName { name: cut(name).to_owned(), is_let_go });
    }
}

/// The cursor that a text is about which is one statement: whether it makes it (DECLARE), or uses or closes it (FETCH, MOVE,
/// CLOSE); and its name, as the server reads it.
pub fn cursor_name(text: &[u8]) -> Option<(bool, String)> {
    let parsed = parse::parse(text).ok()?;
    let mut statements = parsed.statements();
    let (Some(only), None) = (statements.next(), statements.next()) else {
        return None;
    };
    let (makes, name) = match only.node {
        Node::DeclareCursorStmt(declare) => (true, declare.portalname()),
        Node::FetchStmt(fetch) => (false, fetch.portalname()),
        Node::ClosePortalStmt(close) => (false, close.portalname()),
        _ => return None,
    };
    name.map(|name| (makes, cut(name).to_owned()))
}

/// The places of the statements in a text, without the semicolons between them. Empty for a text that cannot be read.
pub fn statement_ranges(text: &[u8]) -> Vec<Range<usize>> {
    let Ok(parsed) = parse::parse(text) else {
        return Vec::new();
    };
    let range = |statement: parse::Statement<'_>| {
        // The last one may go to the end.
        let end = if statement.len == 0 { text.len() } else { statement.start + statement.len };
        statement.start..end
    };
    parsed.statements().map(range).filter(|range| range.end <= text.len()).collect()
}

/// What a text that is one DEALLOCATE lets go; `None` for other texts.
pub fn deallocate_target(text: &[u8]) -> Option<Deallocate> {
    let parsed = parse::parse(text).ok()?;
    let mut statements = parsed.statements();
    let (Some(only), None) = (statements.next(), statements.next()) else {
        return None;
    };
    let Node::DeallocateStmt(statement) = only.node else {
        return None;
    };
    Some(match statement.name() {
        // If it was cut, the server tells so.
        Some(name) if name.len() >= NAME_BYTES => return None,
        Some(name) => Deallocate::Name(name.to_owned()),
        None => Deallocate::All,
    })
}

/// The settings that a text sets or resets by SET, RESET or `set_config` with a literal name, folded, each
/// once; of a DO block those with a dot in their name. `SET ROLE` is `role`, `RESET ALL` and computed names are not among them.
pub fn setting_names(text: &[u8]) -> Vec<String> {
    let Ok(parsed) = parse::parse(text) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for statement in parsed.statements().filter(|statement| matches!(statement.node, Node::DoStmt(_))) {
        names.extend(programs::parameters(&source(text, statement)).names);
    }
    let mut stack: Vec<Node<'_>> = parsed.statements().map(|statement| statement.node).collect();
    while let Some(node) = stack.pop() {
        match node {
            Node::VariableSetStmt(set) if set.kind == VariableSetKind::VAR_SET_MULTI => {
                names.extend(characteristics(set.name(), set.args()));
            }
            Node::VariableSetStmt(set) => names.extend(set.name().map(str::to_ascii_lowercase)),
            Node::FuncCall(call) if qualified(call.funcname().iter()).1 == "set_config" => {
                names.extend(call.args().get(0).and_then(literal));
            }
            _ => {}
        }
        parse::children(node, |child| stack.push(child));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The settings that a text returns to their defaults, folded. `all` for RESET ALL, which leaves the session's user and
/// role as they are, and for DISCARD ALL, which also returns to the session's user.
pub fn reset_names(text: &[u8]) -> Vec<String> {
    let Ok(parsed) = parse::parse(text) else {
        return Vec::new();
    };
    let resets = parsed.statements().map(|statement| match statement.node {
        Node::VariableSetStmt(set) => match set.kind {
            VariableSetKind::VAR_RESET_ALL => vec!["all".to_owned()],
            VariableSetKind::VAR_RESET | VariableSetKind::VAR_SET_DEFAULT => {
                set.name().map(str::to_ascii_lowercase).into_iter().collect()
            }
            _ => Vec::new(),
        },
        Node::DiscardStmt(discard) if discard.target == DiscardMode::DISCARD_ALL => {
            vec!["all".to_owned(), "session_authorization".to_owned()]
        }
        _ => Vec::new(),
    });
    resets.flatten().collect()
}

/// The names of the tables and sequences that a text creates, cut to the length of a name as the server does.
pub fn added_names(text: &[u8]) -> Vec<String> {
    let Ok(parsed) = parse::parse(text) else {
        return Vec::new();
    };
    let names = parsed.statements().filter_map(|statement| match statement.node {
        Node::SelectStmt(select) => made_by(select),
        Node::CreateStmt(_) | Node::CreateTableAsStmt(_) | Node::CreateSeqStmt(_) => {
            targets(statement.node).first()?.relname()
        }
        _ => None,
    });
    names.map(|name| cut(name).to_owned()).collect()
}

/// SELECT INTO: it stands in the first one of several that make a set.
fn made_by(mut select: &nodes::SelectStmt) -> Option<&str> {
    loop {
        if let Some(into) = select.into_clause() {
            return into.rel()?.relname();
        }
        select = select.larg()?;
    }
}

/// The channels that a text's LISTEN statements name, folded and cut to the length of a name as the server does.
pub fn listened_channels(text: &[u8]) -> Vec<String> {
    let Ok(parsed) = parse::parse(text) else {
        return Vec::new();
    };
    let channels = parsed.statements().filter_map(|statement| match statement.node {
        Node::ListenStmt(listen) => listen.conditionname(),
        _ => None,
    });
    channels.map(|channel| cut(channel).to_owned()).collect()
}

/// `SET SESSION CHARACTERISTICS AS TRANSACTION ..` sets the defaults of transactions.
fn characteristics(name: Option<&str>, options: &pg_raw_parse::list::NodeList) -> Vec<String> {
    if name != Some("SESSION CHARACTERISTICS") {
        return Vec::new();
    }
    let options = options.iter().filter_map(|option| match option {
        Node::DefElem(option) => option.defname(),
        _ => None,
    });
    options.map(|option| format!("default_{option}")).collect()
}

fn literal(node: Node<'_>) -> Option<String> {
    let constant = match node {
        Node::A_Const(constant) => constant,
        Node::TypeCast(cast) => match cast.arg() {
            Node::A_Const(constant) => constant,
            _ => return None,
        },
        _ => return None,
    };
    match constant.val() {
        Some(ConstValue::String(name)) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deallocate() {
        let name = |text: &str| deallocate_target(text.as_bytes());
        assert_eq!(name("DEALLOCATE ALL"), Some(Deallocate::All));
        assert_eq!(name("deallocate PREPARE \"A b\";"), Some(Deallocate::Name("A b".to_owned())));
        assert_eq!(name("DEALLOCATE Plan1"), Some(Deallocate::Name("plan1".to_owned())));
        assert_eq!(name("DEALLOCATE a; DEALLOCATE b"), None);
        assert_eq!(name(&format!("DEALLOCATE {}", "x".repeat(64))), None);
        assert_eq!(name("SELECT 1"), None);
    }

    #[test]
    fn ranges_are_those_of_the_statements() {
        for (text, expected) in [
            ("BEGIN; SELECT ';' -- ;\n; COMMIT", &["BEGIN", "SELECT ';'", "COMMIT"][..]),
            (" ;; SELECT 1 ;", &["SELECT 1"]),
            ("SELECT 'é'; SELECT 2 -- é", &["SELECT 'é'", "SELECT 2"]),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 2",
                &["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", "SELECT 2"],
            ),
            ("SELEC 1; SELECT 2", &[]),
            ("", &[]),
        ] {
            let code = |part: &str| part.split("--").next().unwrap_or_default().trim().to_owned();
            let found: Vec<String> =
                statement_ranges(text.as_bytes()).into_iter().map(|range| code(&text[range])).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn names_of_statements() {
        let names = |text: &str| -> Vec<(String, bool)> {
            statement_names(text.as_bytes()).into_iter().map(|named| (named.name, named.is_let_go)).collect()
        };
        let one = |name: &str, is_let_go| vec![(name.to_owned(), is_let_go)];
        assert_eq!(names("EXECUTE a(1, 'b')"), one("a", false));
        assert_eq!(names("EXPLAIN (ANALYZE) EXECUTE \"A b\""), one("A b", false));
        assert_eq!(names("CREATE TEMP TABLE t AS EXECUTE Plan(2)"), one("plan", false));
        assert_eq!(names("EXPLAIN CREATE TABLE t AS EXECUTE a"), one("a", false));
        assert_eq!(names("PREPARE a AS SELECT 1"), one("a", true));
        assert_eq!(names("BEGIN; DEALLOCATE a; DEALLOCATE ALL; COMMIT"), one("a", true));
        assert_eq!(names("SELECT 'EXECUTE a'"), []);
    }

    #[test]
    fn additions() {
        let names = |text: &str| added_names(text.as_bytes()).join(" ");
        assert_eq!(names("CREATE TABLE a.B (c int); CREATE SEQUENCE \"S\"; SELECT 1"), "b S");
        assert_eq!(names("CREATE TABLE t AS SELECT 1; SELECT 1 INTO u UNION SELECT 2 ORDER BY 1"), "t u");
        assert_eq!(names("CREATE INDEX i ON t (a); CREATE SCHEMA s; DROP TABLE t"), "");
        assert_eq!(names(&format!("CREATE TABLE {} ()", "x".repeat(70))), "x".repeat(63));
    }

    #[test]
    fn channels() {
        let channels = |text: &str| listened_channels(text.as_bytes()).join(" ");
        assert_eq!(channels("LISTEN News; NOTIFY a; UNLISTEN b; listen \"A b\""), "news A b");
        assert_eq!(channels("SELECT 'LISTEN a'"), "");
        assert_eq!(channels(&format!("LISTEN {}", "x".repeat(70))), "x".repeat(63));
        assert_eq!(channels(&format!("LISTEN \"{}\"", "é".repeat(40))), "é".repeat(31));
    }

    #[test]
    fn settings() {
        let names = |text: &str| setting_names(text.as_bytes()).join(" ");
        assert_eq!(names("SET Search_Path TO a, b; SET TIME ZONE 'UTC'"), "search_path timezone");
        assert_eq!(
            names("SELECT set_config('Jit', 'off', false), pg_catalog.set_config($1, 'a', false)"),
            "jit"
        );
        assert_eq!(names("SET ROLE x; SET SESSION AUTHORIZATION y"), "role session_authorization");
        assert_eq!(names("RESET ALL"), "");
        assert_eq!(names("DO $$ BEGIN SET work_mem = 1; SET app.x = 1; END $$"), "app.x");
        assert_eq!(
            names("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE"),
            "default_transaction_isolation default_transaction_read_only"
        );
        assert_eq!(names("WITH a AS (SELECT set_config('x.y', '1', false)) SELECT * FROM a"), "x.y");
    }
}
