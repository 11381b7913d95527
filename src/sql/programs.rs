//! Which parameters a program sets: the text of a DO block, the body of a function or procedure, in whatever
//! language. Parameters that the server lists it can be asked for; those with a dot in their name it does not list,
//! so their names are looked for in the program.
//!
//! A name that is put together when the program runs (`set_config('app.' || x, ..)`, `EXECUTE 'SET ' || x`) stands
//! nowhere: the program may set anything. Statements that reach a program from outside, in an argument or out of a
//! table, are not seen. What is set for the transaction only is gone when the server is asked.

/// So many bytes before and behind the word SET are looked at: what stands in more of them cannot be told. Whoever
/// writes programs must not decide how long it takes to read them.
const WINDOW_BYTES: usize = 512;

/// Names that are told of one program; one that sets more may set anything.
const NAMES_MAX: usize = 200;

/// Longer than each word that is looked for behind SET, with what ends it.
const LONGEST_WORD_BYTES: usize = 16;

/// The parameters that a program sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    /// Parameters with a dot in their name, folded.
    pub(super) names: Vec<String>,
    /// Whether it may set parameters whose names do not stand in it.
    pub(super) hidden: bool,
    /// It sets parameters for longer than its transaction, listed ones included.
    pub(super) lasting: bool,
}

/// Looks for `set_config` and SET wherever they stand, also in literals and comments: a name too many costs next to
/// nothing.
pub(super) fn parameters(program: &str) -> Sets {
    let program = program.to_ascii_lowercase();
    let mut sets = Sets::default();
    for (at, word) in program.match_indices("set") {
        let (before, after) = (last_bytes(&program[..at]), first_bytes(&program[at + word.len()..]));
        if before.ends_with(is_name) {
            continue;
        }
        let found = if let Some(arguments) = after.strip_prefix("_config") {
            literal_argument(arguments)
        } else if after.starts_with(is_name) {
            continue;
        } else {
            target(after, before)
        };
        sets.lasting |= !matches!(found, Target::None);
        match found {
            Target::Named(name) if name.contains('.') && !sets.names.contains(&name) => {
                sets.hidden |= sets.names.len() >= NAMES_MAX;
                if sets.names.len() < NAMES_MAX {
                    sets.names.push(name);
                }
            }
            Target::Named(_) | Target::None => {}
            Target::Computed => sets.hidden = true,
        }
    }
    sets
}

fn first_bytes(text: &str) -> &str {
    let mut end = text.len().min(WINDOW_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn last_bytes(text: &str) -> &str {
    let mut start = text.len().saturating_sub(WINDOW_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Whether a text may go on where the window ends. Every byte that is left out of a window would have fitted but for a
/// character that its edge would have cut.
fn fills_window(text: &str) -> bool {
    text.len() + 4 > WINDOW_BYTES
}

/// What is set in one place.
enum Target {
    /// The parameter of this name.
    Named(String),
    /// It cannot be told.
    Computed,
    /// It is no SET of a parameter, or ends with the transaction.
    None,
}

/// The first argument of `set_config`, if it is a plain literal.
fn literal_argument(after: &str) -> Target {
    if is_local(after) {
        return Target::None;
    }
    let name = || {
        let (name, rest) =
            after.trim_start().strip_prefix('(')?.trim_start().strip_prefix('\'')?.split_once('\'')?;
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("::text").unwrap_or(rest).trim_start();
        let plain = !name.is_empty() && name.chars().all(|c| is_name(c) || c == '.');
        (plain && rest.starts_with(',')).then(|| name.to_owned())
    };
    name().map_or(Target::Computed, Target::Named)
}

/// Whether the last argument of `set_config` is TRUE.
fn is_local(after: &str) -> bool {
    let Some(arguments) = after.trim_start().strip_prefix('(') else { return false };
    let (mut depth, mut quoted, mut last) = (0_usize, false, 0);
    for (at, c) in arguments.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' => depth += 1,
            ')' if depth == 0 => {
                let value = arguments[last..at].trim_start();
                let value = value.strip_prefix("is_local").unwrap_or(value);
                return value.trim_start_matches([' ', ':', '=', '>']).trim_end() == "true";
            }
            ')' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => last = at + 1,
            _ => {}
        }
    }
    false
}

/// What stands between SET and `=` or TO.
fn target(after: &str, before: &str) -> Target {
    let mut rest = after.trim_start();
    let is_apart = rest.len() < after.len();
    let scoped = |scope: &str| rest.strip_prefix(scope).filter(|rest| rest.starts_with(char::is_whitespace));
    if is_apart && scoped("local").is_some() {
        return Target::None;
    }
    rest = scoped("session").map_or(rest, str::trim_start);
    let (mut name, mut quoted, mut end) = (String::new(), false, rest.len());
    for (at, c) in rest.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if is_name(c) || c == '.' || quoted => name.push(c),
            // Blanks may stand around the dot.
            c if c.is_whitespace() && (name.ends_with('.') || rest[at..].trim_start().starts_with('.')) => {}
            _ => {
                end = at;
                break;
            }
        }
    }
    let rest = rest[end..].trim_start();
    if fills_window(after) && rest.len() < LONGEST_WORD_BYTES {
        return Target::Computed;
    }
    let is_assigned = ["=", "to", "from"].iter().any(|word| rest.starts_with(word));
    let is_whole = is_apart && !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && !quoted;
    if is_whole && is_assigned {
        return Target::Named(name);
    }
    // SET ROLE x, SET TIME ZONE 'x' and the like have no sign of assignment; SET (..) and UPDATE .. SET (..) set none.
    let is_special =
        is_whole && (rest.starts_with(is_name) || matches!(name.as_str(), "schema" | "names" | "role"));
    if is_special || rest.starts_with('(') || !(is_apart || rest.is_empty()) || !opens(before) {
        return Target::None;
    }
    Target::Computed
}

/// Whether a statement may begin after this text: not behind a name, as in UPDATE .. SET.
fn opens(before: &str) -> bool {
    let text = before.trim_end();
    let may_be_one = |line: &str| line.contains("--") || line.len() == text.len() && fills_window(before);
    let in_comment = text.len() < before.len()
        && before[text.len()..].contains('\n')
        && text.rsplit('\n').next().is_some_and(may_be_one);
    let after_word = ["begin", "then", "else", "loop"]
        .iter()
        .any(|word| text.strip_suffix(word).is_some_and(|rest| !rest.ends_with(is_name)));
    in_comment || after_word || text.is_empty() || text.ends_with([';', '\'', '"', '$', '/', '>', '('])
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(program: &str) -> String {
        let sets = parameters(program);
        assert!(!sets.hidden, "{program}");
        sets.names.join(" ")
    }

    #[test]
    fn names_that_stand_in_a_program_are_found() {
        for (program, expected) in [
            ("BEGIN PERFORM set_config('App.User', x::text, false); END", "app.user"),
            ("select pg_catalog.set_config( 'a.b'::text , 'c', false)", "a.b"),
            ("BEGIN SET app.x = 1; SET SESSION app.y TO 'a'; SET \"app\" . z = 2; END", "app.x app.y app.z"),
            ("EXECUTE 'SET app.x = ' || quote_literal(v); EXECUTE 'set APP.X to 1'", "app.x"),
            ("-- remark\n SET app.x = 1;", "app.x"),
            ("plpy.execute(\"SET app.x TO 1\")", "app.x"),
            ("SET work_mem = '1MB'; SET ROLE low; SET TIME ZONE 'UTC'; SET SCHEMA 'x'", ""),
            ("UPDATE t SET a = 1, b = 2; UPDATE t SET (a, b) = (1, 2)", ""),
            ("EXECUTE format('UPDATE %I SET %I = $1', t, c)", ""),
            ("EXECUTE format('ALTER TABLE %I SET (fillfactor = %s)', t, n)", ""),
            ("offset := 1; setting := 2; PERFORM reset_config('x')", ""),
        ] {
            assert_eq!(names(program), expected, "{program}");
        }
    }

    #[test]
    fn what_ends_with_the_transaction_is_left_out() {
        for program in [
            "BEGIN SET LOCAL app.x = 1; PERFORM set_config('app.y', f(a, ','), true); END",
            "EXECUTE format('SET LOCAL %I = %L', a, b)",
            "PERFORM set_config('app.' || x, coalesce(y, ''), is_local => true)",
            "EXECUTE 'SELECT set_config(''a.b'', ''c'', true)'",
            "UPDATE t SET local = 1",
            "NEW.changed := now(); RETURN NEW;",
        ] {
            assert_eq!(parameters(program), Sets::default(), "{program}");
        }
        for program in [
            "SET work_mem = '1MB'",
            "PERFORM set_config('a', 'b', x)",
            "PERFORM set_config('a', f(true), false)",
        ] {
            assert!(parameters(program).lasting, "{program}");
        }
    }

    #[test]
    fn names_that_are_computed_are_not() {
        for program in [
            "PERFORM set_config('app.' || x, 'y', false)",
            "PERFORM set_config(name, 'y', false)",
            "PERFORM set_config(name => 'a.b', value => 'y', is_local => false)",
            "EXECUTE 'SELECT set_config(''a.b'', ''c'', false)'",
            "EXECUTE 'SET ' || x || ' = 1'",
            "EXECUTE 'SET app.' || x || ' = 1'",
            "EXECUTE 'SET app.x' || n || ' = 1'",
            "EXECUTE format('SET %I = %L', a, b)",
            "EXECUTE format('SET app.%I = %L', a, b)",
            "EXECUTE $q$ SET $q$ || x",
        ] {
            assert!(parameters(program).hidden, "{program}");
        }
    }
}
