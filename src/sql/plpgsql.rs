//! Whether a program in PL/pgSQL leaves nothing on its backend: by its tokens, against a list of what it may consist of.
//!
//! Statements begin with a word on a list or are assignments; words that begin anything else may stand nowhere, nor
//! does EXECUTE. Whatever is followed by a parenthesis is a function, relation or type that is known, or a keyword. All
//! names and operators of the program are told, for the graph of who reaches what.

use super::{
    lexer::{Kind, Lexer},
    proof::Proof,
    setting,
    used::Use,
};

/// Something of a program, without white space and comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    /// Folded by whoever looks at it.
    Word(&'t str),
    /// `"..."`, as written.
    Quoted(&'t str),
    /// A string, as written.
    Text(&'t str),
    Number,
    Parameter,
    Symbol(u8),
    /// So many bytes of an operator, where its first one stands.
    Operator(&'t str),
}

/// What a program uses; `None` if it is not proven, whatever that may be.
pub(super) fn uses(source: &str, proof: &Proof) -> Option<Vec<(String, Use)>> {
    let tokens = tokens(source)?;
    let mut reader = Reader { tokens: &tokens, proof, at: 0, uses: Vec::new() };
    reader.read()?;
    reader.uses.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    reader.uses.dedup();
    Some(reader.uses)
}

fn tokens(source: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut end_of_operator = None;
    for token in Lexer::new(source.as_bytes()) {
        let raw = source.get(token.start..token.end)?;
        tokens.push(match token.kind {
            Kind::Space | Kind::Comment => continue,
            Kind::Word if !raw.is_ascii() => return None,
            Kind::Word => Token::Word(raw),
            Kind::Quoted => Token::Quoted(raw),
            Kind::Text => Token::Text(raw),
            // A name by code points.
            Kind::Exotic if raw.contains('"') => return None,
            Kind::Exotic if raw.contains('\'') => Token::Text(raw),
            // A number that runs into a word.
            Kind::Exotic if raw.bytes().any(|byte| byte.is_ascii_alphabetic()) => return None,
            Kind::Exotic | Kind::Integer | Kind::Decimal => Token::Number,
            Kind::Broken => return None,
            Kind::Symbol if raw.len() > 1 => Token::Parameter,
            Kind::Symbol if is_operator(raw.as_bytes()[0]) => {
                let begins = end_of_operator != Some(token.start);
                end_of_operator = Some(token.end);
                if begins {
                    let rest = &source[token.start..];
                    let len = rest.bytes().position(|byte| !is_operator(byte)).unwrap_or(rest.len());
                    Token::Operator(&rest[..len])
                } else {
                    continue;
                }
            }
            Kind::Symbol => Token::Symbol(raw.as_bytes()[0]),
        });
    }
    Some(tokens)
}

fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?".contains(&byte)
}

struct Reader<'t, 'p> {
    tokens: &'t [Token<'t>],
    proof: &'p Proof,
    at: usize,
    uses: Vec<(String, Use)>,
}

impl<'t> Reader<'t, '_> {
    fn token(&self, ahead: usize) -> Option<Token<'t>> {
        self.tokens.get(self.at + ahead).copied()
    }

    /// Where statements begin, and whether each may.
    fn read(&mut self) -> Option<()> {
        self.options();
        let (mut begins, mut declares, mut updates, mut cases) = (true, false, false, 0_usize);
        while let Some(token) = self.token(0) {
            let word = self.name(token)?;
            let plain = matches!(token, Token::Word(_)) && !self.is_after_dot();
            let word = if plain { word } else { None };
            match word.as_deref() {
                Some("do") if matches!(self.word_at(1).as_deref(), Some("nothing" | "update")) => {}
                Some("set") if updates => updates = false,
                Some("declare") if begins => declares = true,
                Some("update") => updates = true,
                Some("then" | "else" | "loop" | "begin") => updates = false,
                Some(word) if NEVER.contains(&word) => return None,
                _ => {}
            }
            match (token, word.as_deref()) {
                (Token::Symbol(b';'), _) => {
                    (begins, updates) = (true, false);
                    if cases > 0 {
                        return None;
                    }
                }
                (_, Some("begin")) if begins => declares = false,
                (_, Some("declare" | "else" | "exception" | "loop")) if begins => {}
                (Token::Operator("<<"), _) if begins => self.at += 2,
                _ if begins && declares => begins = false,
                _ if begins => {
                    if !self.may_begin(word.as_deref()) {
                        return None;
                    }
                    begins = false;
                    // END CASE begins no other.
                    let ends_case =
                        word.as_deref() == Some("end") && self.word_at(1).as_deref() == Some("case");
                    self.at += usize::from(ends_case);
                }
                (_, Some("case")) => cases += 1,
                (_, Some("end")) if cases > 0 => cases -= 1,
                (_, Some("then" | "else" | "loop")) if cases == 0 => begins = true,
                _ => {}
            }
            self.at += 1;
        }
        Some(())
    }

    /// `#variable_conflict use_column`.
    fn options(&mut self) {
        while self.token(0) == Some(Token::Operator("#"))
            && self.word_at(1).as_deref() == Some("variable_conflict")
        {
            self.at += 3;
        }
    }

    fn may_begin(&self, word: Option<&str>) -> bool {
        if word.is_some_and(|word| BEGINS.contains(&word)) {
            return true;
        }
        let named = matches!(self.token(0), Some(Token::Word(_) | Token::Quoted(_) | Token::Parameter));
        match (self.token(1), self.token(2)) {
            (Some(Token::Symbol(b':')), Some(Token::Operator(operator))) => {
                named && operator.starts_with('=')
            }
            (Some(Token::Operator(operator)), _) => named && operator.starts_with('='),
            (Some(Token::Symbol(b'.' | b'[')), _) => named,
            _ => false,
        }
    }

    fn is_after_dot(&self) -> bool {
        self.at > 0 && self.tokens[self.at - 1] == Token::Symbol(b'.')
    }

    fn word_at(&self, ahead: usize) -> Option<String> {
        match self.token(ahead)? {
            Token::Word(word) => Some(word.to_ascii_lowercase()),
            _ => None,
        }
    }

    /// Tells what the token names. `None` if that is not proven.
    #[expect(clippy::option_option, reason = "no name, or no proof")]
    fn name(&mut self, token: Token<'_>) -> Option<Option<String>> {
        let name = match token {
            Token::Word(word) => word.to_ascii_lowercase(),
            Token::Quoted(name) => name[1..name.len() - 1].replace("\"\"", "\""),
            // No operator is longer: its name would be cut.
            Token::Operator(operator) if operator.len() > 63 => return None,
            Token::Operator(operator) => {
                let parts = (0..operator.len())
                    .flat_map(|start| (start + 1..=operator.len()).map(move |end| &operator[start..end]));
                for part in parts {
                    self.uses.push((part.to_owned(), Use::Operator));
                }
                return Some(None);
            }
            _ => return Some(None),
        };
        if name.len() > 63 || name.starts_with("pg_temp") || self.proof.is_visible(&name) {
            return None;
        }
        let is_called = self.token(1) == Some(Token::Symbol(b'('));
        if name == "set_config" {
            // Of whichever schema, if there is another one.
            let is_built_in = !self.proof.has_own_set_config();
            return (is_built_in && is_called && self.sets_locally()).then_some(Some(name));
        }
        if is_called && !self.proof.knows(&name) {
            let is_keyword = matches!(token, Token::Word(_)) && KEYWORDS.contains(&name.as_str());
            let is_alias = self.at > 0
                && matches!(self.tokens[self.at - 1], Token::Word(word) if word.eq_ignore_ascii_case("as"));
            if !is_keyword && !is_alias {
                return None;
            }
        }
        self.uses.push((name.clone(), Use::Mention));
        Some(Some(name))
    }

    /// `set_config('name', .., true)`, from the name on.
    fn sets_locally(&self) -> bool {
        let Some(Token::Text(name)) = self.token(2) else { return false };
        let Some(name) = name.strip_prefix('\'').and_then(|name| name.strip_suffix('\'')) else {
            return false;
        };
        if !setting::is_carried_name(name.as_bytes()) || self.token(3) != Some(Token::Symbol(b',')) {
            return false;
        }
        let mut depth = 0_usize;
        for ahead in 1.. {
            match self.token(ahead) {
                None => return false,
                Some(Token::Symbol(b'(' | b'[')) => depth += 1,
                Some(Token::Symbol(b')' | b']')) => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        let comma = self.token(ahead - 2) == Some(Token::Symbol(b','));
                        return comma && self.word_at(ahead - 1).as_deref() == Some("true");
                    }
                }
                _ => {}
            }
        }
        false
    }
}

/// Words that may begin a statement.
const BEGINS: [&str; 25] = [
    "assert", "case", "continue", "delete", "elsif", "elseif", "end", "exit", "for", "foreach", "get", "if",
    "insert", "merge", "null", "perform", "raise", "return", "select", "update", "values", "when", "while",
    "with", "begin",
];

/// Words that may stand nowhere but behind a dot. Some have an exception: see [`Reader::read`].
const NEVER: [&str; 25] = [
    "alter",
    "call",
    "close",
    "cluster",
    "commit",
    "copy",
    "create",
    "cursor",
    "deallocate",
    "declare",
    "discard",
    "do",
    "drop",
    "execute",
    "import",
    "listen",
    "load",
    "open",
    "prepare",
    "refresh",
    "reindex",
    "reset",
    "rollback",
    "set",
    "truncate",
];

/// What a parenthesis may follow without being called.
const KEYWORDS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "conflict",
    "cross",
    "cube",
    "current_time",
    "current_timestamp",
    "dec",
    "decimal",
    "default",
    "diagnostics",
    "distinct",
    "else",
    "elseif",
    "elsif",
    "except",
    "exists",
    "extract",
    "filter",
    "first",
    "float",
    "for",
    "from",
    "greatest",
    "group",
    "grouping",
    "having",
    "if",
    "ilike",
    "in",
    "inner",
    "insert",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "key",
    "lateral",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "loop",
    "materialized",
    "merge",
    "natural",
    "next",
    "normalize",
    "not",
    "nullif",
    "numeric",
    "of",
    "offset",
    "on",
    "or",
    "order",
    "ordinality",
    "outer",
    "over",
    "overlay",
    "partition",
    "perform",
    "position",
    "precision",
    "query",
    "return",
    "returning",
    "rollup",
    "row",
    "rows",
    "select",
    "set",
    "sets",
    "setof",
    "similar",
    "some",
    "substring",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "treat",
    "trim",
    "union",
    "unique",
    "using",
    "values",
    "varchar",
    "varying",
    "when",
    "where",
    "while",
    "window",
    "with",
    "within",
];
