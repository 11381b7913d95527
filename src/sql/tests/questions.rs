//! Our own questions mean the same under any `search_path`: no operator, cast, function or relation of theirs is looked
//! up by it.

use pg_raw_parse::Node;

use crate::sql::{
    Catalog,
    parse::{self, qualified},
};

/// What of a text is looked up by the search path.
fn looked_up(text: &str) -> Vec<String> {
    let parsed = parse::parse(text.as_bytes()).unwrap_or_else(|_| panic!("the grammar refuses {text}"));
    let statements: Vec<Node<'_>> = parsed.statements().map(|statement| statement.node).collect();
    // Names of common table expressions stand for no relation.
    let (mut own, mut stack) = (Vec::new(), statements.clone());
    while let Some(node) = stack.pop() {
        if let Node::CommonTableExpr(cte) = node {
            own.extend(cte.ctename());
        }
        parse::children(node, |child| stack.push(child));
    }
    let (mut found, mut stack) = (Vec::new(), statements);
    while let Some(node) = stack.pop() {
        found.extend(looked_up_by(node, &own));
        assert!(parse::children(node, |child| stack.push(child)), "a node that is not walked");
    }
    found
}

fn looked_up_by(node: Node<'_>, own: &[&str]) -> Option<String> {
    let bare = |(schema, name): (Option<&str>, &str)| (schema != Some("pg_catalog")).then(|| name.to_owned());
    let when = |holds: bool, what: &str| holds.then(|| what.to_owned());
    match node {
        Node::FuncCall(call) => bare(qualified(call.funcname().iter())),
        Node::TypeName(name) => bare(qualified(name.names().iter().map(Node::String))),
        Node::A_Expr(expression) => bare(qualified(expression.name().iter())),
        Node::SubLink(link) => when(!matches!(link.testexpr(), Node::None), "IN (SELECT ..)"),
        Node::CaseExpr(case) => when(!matches!(case.arg(), Node::None), "CASE x WHEN"),
        Node::JoinExpr(join) => when(join.is_natural || join.using_clause().iter().next().is_some(), "USING"),
        Node::RangeVar(relation) => {
            let name = relation.relname().unwrap_or_default();
            let is_own = relation.schemaname().is_none() && own.contains(&name);
            when(!is_own && relation.schemaname() != Some("pg_catalog"), name)
        }
        _ => None,
    }
}

#[test]
fn nothing_of_the_catalogs_questions_is_looked_up() {
    for question in [Catalog::QUERY, Catalog::PROGRAMS, crate::types::QUERY, crate::why::QUESTION] {
        assert_eq!(looked_up(question), Vec::<String>::new());
    }
}

#[test]
fn what_is_looked_up_is_found() {
    for (text, expected) in [
        ("SELECT lower('a')", "lower"),
        ("SELECT 'a'::mine", "mine"),
        ("SELECT 1 = 1", "="),
        ("SELECT 1 IN (1, 2)", "="),
        ("SELECT 1 BETWEEN 1 AND 2", "BETWEEN"),
        ("SELECT NULLIF(1, 2)", "="),
        ("SELECT 'a' LIKE 'b'", "~~"),
        ("SELECT 1 IS DISTINCT FROM 2", "="),
        ("SELECT CASE 1 WHEN 2 THEN 3 END", "CASE x WHEN"),
        ("SELECT 1 IN (SELECT 1)", "IN (SELECT ..)"),
        ("SELECT * FROM pg_catalog.pg_class a JOIN pg_catalog.pg_class b USING (oid)", "USING"),
        ("SELECT * FROM pg_class", "pg_class"),
    ] {
        assert_eq!(looked_up(text), [expected], "{text}");
    }
    let qualified =
        "WITH a AS (SELECT 1) SELECT 1 OPERATOR(pg_catalog.=) 1::pg_catalog.int4 FROM a, pg_catalog.pg_class";
    assert_eq!(looked_up(qualified), Vec::<String>::new());
}
