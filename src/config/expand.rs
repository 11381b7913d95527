//! `${NAME}` and `${NAME:-default}` inside a value. `$${` stands for `${` itself; any other `$` for itself.

use super::problem::Wrong;

/// Where variables come from; tests give a map.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process. One that is not UTF-8 counts as unset.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `text` with its variables replaced; their values are not looked through again.
pub(super) fn expand(text: &str, environment: Environment<'_>) -> Result<String, Wrong> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        let (inside, after) =
            after.split_once('}').ok_or_else(|| Wrong::new("${ without }", "write $${ for ${ itself"))?;
        out.push_str(before);
        out.push_str(&variable(inside, environment)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(inside: &str, environment: Environment<'_>) -> Result<String, Wrong> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(word) {
        return Err(Wrong::new(
            "${} does not hold the name of a variable",
            "write ${NAME} or ${NAME:-default}, and $${ for ${ itself",
        ));
    }
    match (environment(name), default) {
        // As in a shell, an empty variable takes the default too.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Wrong::new(
            format!("the environment variable {name} is not set"),
            format!("set {name}, or write ${{{name}:-default}}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_variables() {
        let environment = |name: &str| match name {
            "A" => Some("1${B}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let cases = [
            ("x", Some("x")),
            ("-${A}-", Some("-1${B}-")),
            ("${B:-2}${EMPTY:-3}${EMPTY}", Some("23")),
            ("$${A} $$ $A", Some("${A} $$ $A")),
            ("${B}", None),
            ("${A", None),
            ("${}", None),
            ("${A B}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &environment).ok().as_deref(), expected, "{text}");
        }
    }
}
