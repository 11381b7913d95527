//! The boundary around the parser library: PostgreSQL's own grammar, and an iterative walk over its trees.
//!
//! Everything that can go wrong in the library is kept on this side. Its recursive walk overflows the
//! stack at some thousand nested expressions: only one level at a time is asked for. It panics on nodes
//! it has no walk for: only nodes on the list below are walked. Its list accessors panic when a list
//! holds something else than they promise: code that uses this module takes plain node lists, or lists
//! whose grammar rule has one production. Its scanner refuses some comments that PostgreSQL accepts
//! (between NOT and IN, say): comments are blanked first. Its scanner takes quadratic time for comments that do not
//! end, and for long runs of operator characters: such texts are not given to it.

use std::borrow::Cow;

use pg_raw_parse::{
    Node, ParseResult,
    walk::{Recurse, walk_manual},
};

use super::lexer::{Kind, Lexer};

/// Operator characters in a row. The server has no name of an operator with more than 63.
const OPERATOR_BYTES_MAX: usize = 128;

/// The statements of one text.
pub(super) struct Parsed {
    tree: ParseResult,
}

/// One statement with the bytes it takes in its text.
#[derive(Clone, Copy)]
pub(super) struct Statement<'p> {
    pub(super) node: Node<'p>,
    pub(super) start: usize,
    /// Zero: up to the end of the text.
    pub(super) len: usize,
}

/// The grammar refuses the text.
#[derive(Debug)]
pub(super) struct Unparsed;

/// Parses a text. Lengths and offsets are those of the text as given.
pub(super) fn parse(text: &[u8]) -> Result<Parsed, Unparsed> {
    let text = readable(text);
    let tree = pg_raw_parse::parse(&without_comments(&text)?).map_err(|_| Unparsed)?;
    Ok(Parsed { tree })
}

/// A text that is not UTF-8 with a question mark for each byte that is not ASCII. Within literals and comments that changes
/// nothing; no name has a question mark, nor the tag of a dollar quote, so elsewhere the grammar refuses it.
fn readable(text: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(text).map_or_else(
        |_| {
            let masked = text.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' });
            Cow::Owned(masked.collect())
        },
        Cow::Borrowed,
    )
}

impl Parsed {
    pub(super) fn statements(&self) -> impl Iterator<Item = Statement<'_>> {
        self.tree.iter().map(|raw| Statement {
            node: raw.stmt(),
            start: usize::try_from(raw.stmt_location).unwrap_or(0),
            len: usize::try_from(raw.stmt_len).unwrap_or(0),
        })
    }
}

/// The text with blanks in the place of comments, if the grammar's scanner can read it in linear time.
fn without_comments(text: &str) -> Result<Cow<'_, str>, Unparsed> {
    let mut blank: Option<Vec<u8>> = None;
    let mut operator = 0;
    for token in Lexer::new(text.as_bytes()) {
        let is_operator = token.kind == Kind::Symbol && is_operator(text.as_bytes()[token.start]);
        operator = if is_operator { operator + 1 } else { 0 };
        match token.kind {
            Kind::Broken => return Err(Unparsed),
            _ if operator > OPERATOR_BYTES_MAX => return Err(Unparsed),
            Kind::Comment => {
                blank.get_or_insert_with(|| text.as_bytes().to_vec())[token.start..token.end].fill(b' ');
            }
            _ => {}
        }
    }
    Ok(match blank.map(String::from_utf8) {
        // Whole comments become blanks, so the rest is UTF-8 as before.
        Some(Ok(blank)) => Cow::Owned(blank),
        _ => Cow::Borrowed(text),
    })
}

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

/// Hands out the direct children of a node; `false` if the library cannot say what they are.
pub(super) fn children<'p>(node: Node<'p>, mut each: impl FnMut(Node<'p>)) -> bool {
    if !walkable(node) {
        return false;
    }
    walk_manual::<()>(node, |child| {
        each(child);
        Recurse::no()
    });
    true
}

/// The nodes that the library's walk knows. It panics on others.
fn walkable(node: Node<'_>) -> bool {
    is_leaf(node) || is_clause(node) || is_expression(node)
}

/// Nodes without children.
pub(super) fn is_leaf(node: Node<'_>) -> bool {
    matches!(
        node,
        Node::JsonFormat(_)
            | Node::SetToDefault(_)
            | Node::CurrentOfExpr(_)
            | Node::SQLValueFunction(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::Boolean(_)
            | Node::String(_)
            | Node::BitString(_)
            | Node::ParamRef(_)
            | Node::A_Const(_)
            | Node::A_Star(_)
            | Node::MergeSupportFunc(_)
            | Node::ReturningOption(_)
            | Node::Alias(_)
            | Node::ColumnRef(_)
    )
}

fn is_clause(node: Node<'_>) -> bool {
    matches!(
        node,
        Node::NodeList(_)
            | Node::RangeVar(_)
            | Node::JoinExpr(_)
            | Node::IntoClause(_)
            | Node::InsertStmt(_)
            | Node::DeleteStmt(_)
            | Node::UpdateStmt(_)
            | Node::MergeStmt(_)
            | Node::MergeWhenClause(_)
            | Node::ReturningClause(_)
            | Node::SelectStmt(_)
            | Node::ResTarget(_)
            | Node::MultiAssignRef(_)
            | Node::SortBy(_)
            | Node::WindowDef(_)
            | Node::RangeSubselect(_)
            | Node::RangeFunction(_)
            | Node::RangeTableSample(_)
            | Node::RangeTableFunc(_)
            | Node::RangeTableFuncCol(_)
            | Node::ColumnDef(_)
            | Node::IndexElem(_)
            | Node::GroupingSet(_)
            | Node::LockingClause(_)
            | Node::WithClause(_)
            | Node::InferClause(_)
            | Node::OnConflictClause(_)
            | Node::CommonTableExpr(_)
    )
}

fn is_expression(node: Node<'_>) -> bool {
    matches!(
        node,
        Node::GroupingFunc(_)
            | Node::SubLink(_)
            | Node::CaseExpr(_)
            | Node::RowExpr(_)
            | Node::CoalesceExpr(_)
            | Node::MinMaxExpr(_)
            | Node::XmlExpr(_)
            | Node::XmlSerialize(_)
            | Node::JsonReturning(_)
            | Node::JsonValueExpr(_)
            | Node::JsonParseExpr(_)
            | Node::JsonScalarExpr(_)
            | Node::JsonSerializeExpr(_)
            | Node::JsonConstructorExpr(_)
            | Node::JsonIsPredicate(_)
            | Node::JsonArgument(_)
            | Node::JsonFuncExpr(_)
            | Node::JsonBehavior(_)
            | Node::JsonTable(_)
            | Node::JsonTableColumn(_)
            | Node::JsonTablePathSpec(_)
            | Node::JsonOutput(_)
            | Node::JsonKeyValue(_)
            | Node::JsonObjectConstructor(_)
            | Node::JsonArrayConstructor(_)
            | Node::JsonAggConstructor(_)
            | Node::JsonObjectAgg(_)
            | Node::JsonArrayAgg(_)
            | Node::JsonArrayQueryConstructor(_)
            | Node::NullTest(_)
            | Node::BooleanTest(_)
            | Node::A_Expr(_)
            | Node::BoolExpr(_)
            | Node::FuncCall(_)
            | Node::NamedArgExpr(_)
            | Node::A_Indices(_)
            | Node::A_Indirection(_)
            | Node::A_ArrayExpr(_)
            | Node::TypeCast(_)
            | Node::CollateClause(_)
            | Node::TypeName(_)
    )
}

/// The last name of a qualified one, and the one before it: `schema.name` or `name`.
pub(super) fn qualified<'p>(names: impl IntoIterator<Item = Node<'p>>) -> (Option<&'p str>, &'p str) {
    let (mut schema, mut name) = (None, "");
    for part in names {
        if let Some(part) = part.as_str() {
            schema = (!name.is_empty()).then_some(name);
            name = part;
        }
    }
    (schema, name)
}

/// The text of a statement.
pub(super) fn span<'t>(text: &'t [u8], statement: Statement<'_>) -> &'t [u8] {
    let rest = text.get(statement.start..).unwrap_or_default();
    match statement.len {
        0 => rest,
        len => rest.get(..len).unwrap_or(rest),
    }
}

/// The text of all literals of a statement, as written.
pub(super) fn source(text: &[u8], statement: Statement<'_>) -> String {
    let text = span(text, statement);
    let mut source = String::new();
    for token in Lexer::new(text).filter(|token| matches!(token.kind, Kind::Text | Kind::Exotic)) {
        source.push_str(&String::from_utf8_lossy(&text[token.start..token.end]));
        source.push('\n');
    }
    source
}
