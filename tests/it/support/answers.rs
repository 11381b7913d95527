//! What an answer says, as text.

use super::Message;

/// The tags of an answer, such as `12DCZ`, with the SQLSTATE of an error between spaces in place of its `E`.
pub(crate) fn told(answer: &[Message]) -> String {
    let word = |message: &Message| match message.tag {
        b'E' => format!(" {} ", message.field(b'C').unwrap_or_default()),
        tag => char::from(tag).to_string(),
    };
    answer.iter().map(word).collect()
}

/// The SQLSTATE of the first error.
pub(crate) fn error_code(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'E').and_then(|error| error.field(b'C'))
}

/// SQLSTATE, message and hint of the first error.
pub(crate) fn error_of(answer: &[Message]) -> Option<[String; 3]> {
    let error = answer.iter().find(|message| message.tag == b'E')?;
    Some([b'C', b'M', b'H'].map(|field| error.field(field).unwrap_or_default()))
}

/// The columns of all rows, one after the other; empty for NULL.
pub(crate) fn values(answer: &[Message]) -> Vec<String> {
    let rows = answer.iter().filter(|message| message.tag == b'D');
    rows.flat_map(Message::columns).map(Option::unwrap_or_default).collect()
}

/// What a statement is to be answered with, short: an error's code, a value, or a command's tag; and the status.
pub(crate) fn short(answer: &[Message]) -> String {
    let status = char::from(answer.last().expect("an answer").body[0]);
    let told = error_code(answer).or_else(|| values(answer).first().cloned()).unwrap_or_else(|| {
        let tag = answer.iter().find(|message| message.tag == b'C').expect("a command's tag");
        String::from_utf8_lossy(&tag.body[..tag.body.len() - 1]).into_owned()
    });
    format!("{told} {status}")
}
