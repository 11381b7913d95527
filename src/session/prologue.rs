//! Statements between BEGIN and the first one that says where a transaction goes. Such a statement is answered before
//! there is a server, so only one that no server would refuse: SAVEPOINT, SET TRANSACTION, SET CONSTRAINTS ALL, and SET LOCAL
//! of a few parameters to values that are surely valid. Any other one opens the transaction.

/// The longest time that a parameter takes (`INT_MAX` milliseconds).
const TIME_MAX: u64 = i32::MAX as u64;

/// The least and the most of `work_mem`, in kB (`MAX_KILOBYTES` of a 64-bit server).
const WORK_MEM: std::ops::RangeInclusive<u64> = 64..=i32::MAX as u64;

/// The command tag of a statement that no server refuses; `None` for others, and for several in one text.
pub(super) fn tag(text: &[u8]) -> Option<&'static str> {
    let text = without_comments(std::str::from_utf8(text).ok()?)?;
    let text = text.trim();
    let one = text.strip_suffix(';').unwrap_or(text).trim_end();
    if one.contains([';', '/', '-', '$']) {
        return None;
    }
    let spaced = one.replace('=', " = ");
    let written: Vec<&str> = spaced.split_ascii_whitespace().collect();
    let words: Vec<String> = written.iter().map(|word| word.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["savepoint", _] => Some("SAVEPOINT"),
        ["set", "constraints", "all", _] => Some("SET CONSTRAINTS"),
        ["set", "transaction", "snapshot", ..] => None,
        ["set", "transaction", ..] => Some("SET"),
        ["set", "local", "search_path", "=" | "to", ..] => {
            written[4..].concat().split(',').all(is_plain_name).then_some("SET")
        }
        // Units are read as they are written.
        ["set", "local", name, "=" | "to", ..] => is_valid(name, &written[4..].concat()).then_some("SET"),
        _ => None,
    }
}

/// Whether a SET concerns the transaction itself.
pub(super) fn sets_transaction(text: &[u8]) -> bool {
    let lowered = text.to_ascii_lowercase();
    let mut words = lowered.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.next() == Some(b"set") && words.next() == Some(b"transaction")
}

fn is_plain_name(name: &str) -> bool {
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The text with a blank for each comment; `None` if one is nested or not closed.
fn without_comments(text: &str) -> Option<String> {
    let mut rest = text;
    let mut plain = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        let (inside, after) = comment.split_once("*/")?;
        if inside.contains("/*") {
            return None;
        }
        plain.push_str(before);
        plain.push(' ');
        rest = after;
    }
    plain.push_str(rest);
    Some(plain)
}

fn is_valid(name: &str, value: &str) -> bool {
    let value = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value);
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let Ok(number) = value[..digits].parse::<u64>() else { return false };
    let unit = &value[digits..];
    match name {
        "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => {
            let milliseconds = match unit {
                "" | "ms" => Some(number),
                "s" => number.checked_mul(1000),
                "min" => number.checked_mul(60_000),
                _ => None,
            };
            milliseconds.is_some_and(|milliseconds| milliseconds <= TIME_MAX)
        }
        "work_mem" => {
            let kilobytes = match unit {
                "" => Some(number),
                "MB" => number.checked_mul(1024),
                _ => None,
            };
            kilobytes.is_some_and(|kilobytes| WORK_MEM.contains(&kilobytes))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_server_refuses_is_answered_here() {
        for (text, expected) in [
            ("SAVEPOINT a", Some("SAVEPOINT")),
            ("set local statement_timeout = '5s';", Some("SET")),
            ("SET LOCAL lock_timeout TO 100", Some("SET")),
            ("SET LOCAL search_path = a, \"B\"", Some("SET")),
            ("SET LOCAL search_path = 'a,,b'", None),
            ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", Some("SET")),
            ("SET CONSTRAINTS ALL DEFERRED", Some("SET CONSTRAINTS")),
            ("SET LOCAL work_mem='7MB'", Some("SET")),
            ("SET LOCAL work_mem = '7mb'", None),
            ("SET LOCAL lock_timeout = '7S'", None),
            ("SET LOCAL work_mem = '1'", None),
            ("SET LOCAL work_mem = 'nonsense'", None),
            ("SET LOCAL statement_timeout = '5 days'", None),
            ("SET LOCAL statement_timeout = -1", None),
            ("SET LOCAL statement_timeout = 99999999999", None),
            ("SET LOCAL no_such = 1", None),
            ("SET LOCAL plpgsql.nothing = 1", None),
            ("SET LOCAL ROLE nobody", None),
            ("SET CONSTRAINTS nothing DEFERRED", None),
            ("SET TRANSACTION SNAPSHOT 'x'", None),
            ("SET LOCAL lock_timeout = 1; SELECT 1", None),
            ("SET LOCAL lock_timeout = DEFAULT", None),
            ("SAVEPOINT /* a */ b /* c */", Some("SAVEPOINT")),
            ("SAVEPOINT /* a /* b */ c */ d", None),
            ("SAVEPOINT a -- b", None),
            ("SAVEPOINT \u{e9}", Some("SAVEPOINT")),
        ] {
            assert_eq!(tag(text.as_bytes()), expected, "{text}");
        }
    }
}
