//! Keys that are to have another value than the file gives them, until it is read again.
//!
//! They are put into the text that is read, so that bounds and wording are those of files.

use toml::{Table, Value};

use super::{
    Problem, Problems,
    keys::{Key, Unit, find},
};

/// A key and the value that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The whole key, such as `pools.jobs.max_connections`.
    pub key: String,
    /// The value, as it would be written in the file; quotes may be left out.
    pub value: String,
}

/// The text of a configuration with these values in it. Comments are lost, and so are places; a text that is not TOML
/// is left as it is.
pub(super) fn overridden(text: String, overrides: &[Override]) -> Result<String, Problems> {
    if overrides.is_empty() {
        return Ok(text);
    }
    let Ok(mut table) = text.parse::<Table>() else { return Ok(text) };
    for Override { key, value } in overrides {
        let problem = |message: &str, hint: String| Problems {
            file: "SET".to_owned(),
            problems: vec![Problem {
                line: 0,
                column: 0,
                key: key.clone(),
                message: message.to_owned(),
                hint,
            }],
        };
        let Some(known) = find(key) else {
            let hint = "SHOW CONFIG lists the keys, such as pools.primary.max_connections.".to_owned();
            return Err(problem("unknown key", hint));
        };
        let value = toml_value(known, value)
            .ok_or_else(|| problem("is a list", "write it as [\"..\", \"..\"].".to_owned()))?;
        if !put(&mut table, key, value) {
            return Err(problem("is no key of this configuration", "Its section must be there.".to_owned()));
        }
    }
    Ok(table.to_string())
}

/// The value as the file would hold it; `None` of a list that is none.
fn toml_value(key: &Key, text: &str) -> Option<Value> {
    match key.unit {
        Unit::Count => {
            Some(text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer))
        }
        Unit::Texts => {
            let table: Table = format!("list = {text}").parse().ok()?;
            table.get("list").filter(|list| list.is_array()).cloned()
        }
        _ => Some(Value::String(text.to_owned())),
    }
}

/// Puts a value in its place. A server or pool that is not there is not made.
fn put(table: &mut Table, whole: &str, value: Value) -> bool {
    let mut path: Vec<&str> = whole.split('.').collect();
    let name = path.pop().unwrap_or_default();
    let is_named = path.first().is_some_and(|family| ["servers", "pools"].contains(family));
    let mut at = table;
    for (depth, part) in path.iter().enumerate() {
        // `primary` need not be in the file to be there.
        if is_named && depth == 1 && !at.contains_key(*part) && path[..] != ["pools", "primary"] {
            return false;
        }
        let entry = at.entry((*part).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = entry else { return false };
        at = next;
    }
    at.insert(name.to_owned(), value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Result<String, String> {
        let text = "[servers.primary]\nurl = \"postgres://u@h/d\"\n[pools.jobs]\nservers = [\"primary\"]\n"
            .to_owned();
        let one = Override { key: key.to_owned(), value: value.to_owned() };
        overridden(text, &[one]).map_err(|problems| problems.problems[0].message.clone())
    }

    #[test]
    fn values_get_the_shape_of_their_key() {
        for (key, value, expected) in [
            ("pools.jobs.max_connections", "7", "max_connections = 7"),
            ("pools.jobs.max_connections", "many", "max_connections = \"many\""),
            ("pools.jobs.wait_timeout", "3s", "wait_timeout = \"3s\""),
            ("pools.primary.max_waiting", "9", "[pools.primary]\nmax_waiting = 9"),
            ("workers.users", "[\"a\"]", "[workers]\nusers = [\"a\"]"),
            ("databases", "[\"app\"]", "databases = [\"app\"]"),
            ("listen.tls.mode", "require", "[listen.tls]\nmode = \"require\""),
        ] {
            let text = set(key, value).expect("it can be set");
            assert!(text.contains(expected), "{key}: {text}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        assert_eq!(
            set("pools.other.max_connections", "7"),
            Err("is no key of this configuration".to_owned())
        );
        assert_eq!(set("servers.x.weight", "7"), Err("is no key of this configuration".to_owned()));
        assert_eq!(set("pools.jobs", "7"), Err("unknown key".to_owned()));
        assert_eq!(set("max_client_conn", "7"), Err("unknown key".to_owned()));
        assert_eq!(set("workers.users", "a"), Err("is a list".to_owned()));
    }
}
