//! Errors of the server that name a statement as it is called there: the client is told its own name for it.

use crate::backend::statements::{NAME_PREFIX, StatementId};

/// SQLSTATEs of errors that name a prepared statement: it does not exist, it exists already, it has other parameters.
const NAMING: [&[u8]; 3] = [b"26000", b"42P05", b"08P01"];

/// Whether an ErrorResponse may name a statement of ours.
pub(super) fn may_name(body: &[u8]) -> bool {
    memchr::memmem::find(body, NAME_PREFIX).is_some()
}

/// An ErrorResponse with the client's own names for statements; `None` if there is nothing to change.
pub fn rename<'a>(message: &[u8], own: impl Fn(StatementId) -> Option<&'a [u8]>) -> Option<Vec<u8>> {
    let body = message.get(5..)?;
    let fields = || body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let code = fields().find_map(|field| field.strip_prefix(b"C"))?;
    if !NAMING.contains(&code) {
        return None;
    }
    let mut renamed = message[..5].to_vec();
    for field in fields() {
        match field {
            [b'M', text @ ..] => {
                renamed.push(b'M');
                renamed.extend_from_slice(&rename_text(text, &own));
            }
            other => renamed.extend_from_slice(other),
        }
        renamed.push(0);
    }
    renamed.push(0);
    let length = u32::try_from(renamed.len() - 1).ok()?;
    renamed[1..5].copy_from_slice(&length.to_be_bytes());
    (renamed != message).then_some(renamed)
}

fn rename_text<'a>(mut text: &[u8], own: &impl Fn(StatementId) -> Option<&'a [u8]>) -> Vec<u8> {
    let mut renamed = Vec::with_capacity(text.len());
    while let Some(at) = memchr::memmem::find(text, NAME_PREFIX) {
        let digits = &text[at + NAME_PREFIX.len()..];
        let count = digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let number =
            std::str::from_utf8(&digits[..count]).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let end = at + NAME_PREFIX.len() + count;
        renamed.extend_from_slice(&text[..at]);
        renamed.extend_from_slice(number.and_then(|id| own(StatementId(id))).unwrap_or(&text[at..end]));
        text = &text[end..];
    }
    renamed.extend_from_slice(text);
    renamed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{frame::split_message, message, read::ErrorFields};

    fn error(code: &str, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let report = message::Report { severity: "ERROR", code, message: text, detail: "d", hint: "h" };
        message::error(&mut out, report);
        out
    }

    fn own(id: StatementId) -> Option<&'static [u8]> {
        [(1, &b"mine"[..]), (0x26, b"a longer name")]
            .into_iter()
            .find(|(known, _)| *known == id.0)
            .map(|(_, name)| name)
    }

    fn told(message: &[u8]) -> ErrorFields {
        let (tag, body, rest) = split_message(message).expect("valid").expect("whole");
        assert!(tag == b'E' && rest.is_empty());
        ErrorFields::parse(body)
    }

    #[test]
    fn the_clients_own_names_are_told() {
        let renamed = |code, text| rename(&error(code, text), own).map(|message| told(&message).message);
        let text = "bind message supplies 1 parameters, but prepared statement \"bulkhead_1\" requires 2";
        let wanted = "bind message supplies 1 parameters, but prepared statement \"mine\" requires 2";
        assert_eq!(renamed("08P01", text).as_deref(), Some(wanted));
        assert_eq!(renamed("26000", "\u{ab}bulkhead_26\u{bb}").as_deref(), Some("\u{ab}a longer name\u{bb}"));
        // Nobody's, and what the client has written itself.
        assert_eq!(renamed("26000", "\"bulkhead_2\""), None);
        assert_eq!(renamed("22P02", "\"bulkhead_1\""), None);
    }

    proptest! {
        #[test]
        fn an_error_stays_one_whatever_it_says(
            texts in prop::collection::vec(prop_oneof!["[^\0]{0,9}", Just("bulkhead_1".to_owned()), Just("bulkhead_26\"".to_owned())], 0..6),
        ) {
            let text = texts.concat();
            if let Some(renamed) = rename(&error("26000", &text), own) {
                let fields = told(&renamed);
                prop_assert_eq!((&*fields.detail, &*fields.hint), ("d", "h"));
            }
        }

        #[test]
        fn nonsense_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = rename(&bytes, own);
            let _ = rename(&[&b"E\0\0\0\x09C26000\0Mbulkhead_"[..], &bytes].concat(), own);
        }
    }
}
