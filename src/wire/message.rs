//! Messages that we originate, appended to a buffer.

use super::TxStatus;

/// Appends a message: `fill` writes the body, the length is put in afterwards.
fn message(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn cstring(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// A name in a message: bytes, or what writes itself.
pub trait Name {
    /// Appends the name, without a zero.
    fn write(&self, out: &mut Vec<u8>);
}

impl Name for [u8] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> Name for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

fn name(out: &mut Vec<u8>, name: &(impl Name + ?Sized)) {
    name.write(out);
    out.push(0);
}

/// A message with a ready-made body.
pub fn raw(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    message(out, tag, |out| out.extend_from_slice(body));
}

/// Query.
pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    message(out, b'Q', |out| cstring(out, sql));
}

/// Parse. `types` is the body's part after the text: the count and the OIDs, as a client sent them.
pub fn parse(out: &mut Vec<u8>, statement: &(impl Name + ?Sized), sql: &[u8], types: &[u8]) {
    message(out, b'P', |out| {
        name(out, statement);
        cstring(out, sql);
        out.extend_from_slice(types);
    });
}

/// Bind. `rest` is the body's part after the two names.
pub fn bind(out: &mut Vec<u8>, portal: &[u8], statement: &(impl Name + ?Sized), rest: &[u8]) {
    message(out, b'B', |out| {
        cstring(out, portal);
        name(out, statement);
        out.extend_from_slice(rest);
    });
}

/// Bind of the unnamed statement, without values, to the unnamed portal.
pub fn bind_plain(out: &mut Vec<u8>) {
    raw(out, b'B', &[0; 8]);
}

/// Execute of the unnamed portal, to its end.
pub fn execute(out: &mut Vec<u8>) {
    raw(out, b'E', &[0; 5]);
}

/// The messages of a request that begins with a Bind, of another statement than the one whose name stands at `name`.
pub fn bind_other(
    out: &mut Vec<u8>,
    messages: &[u8],
    name: std::ops::Range<usize>,
    statement: &(impl Name + ?Sized),
) {
    let at = out.len();
    out.reserve(messages.len() + OTHER_NAME_BYTES);
    out.extend_from_slice(&messages[..name.start]);
    statement.write(out);
    let bytes = out.len() - at - name.start;
    out.extend_from_slice(&messages[name.end..]);
    if let Some(length) = out.get_mut(at + 1..).and_then(|rest| rest.first_chunk_mut()) {
        *length = (u32::from_be_bytes(*length) - name.len() as u32 + bytes as u32).to_be_bytes();
    }
}

/// Room for the name of a statement on servers.
const OTHER_NAME_BYTES: usize = 32;

/// The start of a Bind whose values follow from elsewhere: `rest_bytes` more bytes will be sent.
pub fn bind_head(
    out: &mut Vec<u8>,
    portal: &[u8],
    statement: &(impl Name + ?Sized),
    rest: &[u8],
    more: usize,
) {
    let at = out.len();
    bind(out, portal, statement, rest);
    let length = (out.len() - at - 1 + more) as u32;
    out[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
}

/// Describe of a prepared statement.
pub fn describe_statement(out: &mut Vec<u8>, statement: &(impl Name + ?Sized)) {
    message(out, b'D', |out| {
        out.push(b'S');
        name(out, statement);
    });
}

/// Describe of a portal.
pub fn describe_portal(out: &mut Vec<u8>, portal: &[u8]) {
    message(out, b'D', |out| {
        out.push(b'P');
        cstring(out, portal);
    });
}

/// Close of a prepared statement.
pub fn close_statement(out: &mut Vec<u8>, statement: &(impl Name + ?Sized)) {
    message(out, b'C', |out| {
        out.push(b'S');
        name(out, statement);
    });
}

/// Sync.
pub fn sync(out: &mut Vec<u8>) {
    message(out, b'S', |_| {});
}

/// SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&8_u32.to_be_bytes());
    out.extend_from_slice(&80_877_103_u32.to_be_bytes());
}

/// Terminate.
pub const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// PasswordMessage, SASLResponse.
pub fn password(out: &mut Vec<u8>, body: &[u8]) {
    raw(out, b'p', body);
}

/// SASLInitialResponse.
pub fn sasl_initial(out: &mut Vec<u8>, mechanism: &str, response: &[u8]) {
    message(out, b'p', |out| {
        cstring(out, mechanism.as_bytes());
        out.extend_from_slice(&(response.len() as u32).to_be_bytes());
        out.extend_from_slice(response);
    });
}

/// StartupMessage of protocol 3.0 to a server.
pub fn startup(out: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&0x3_0000_u32.to_be_bytes());
    for (name, value) in parameters {
        cstring(out, name.as_bytes());
        cstring(out, value.as_bytes());
    }
    out.push(0);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// CancelRequest to a server.
pub fn cancel_request(out: &mut Vec<u8>, process_id: i32, secret: &[u8]) {
    out.extend_from_slice(&(12 + secret.len() as u32).to_be_bytes());
    out.extend_from_slice(&80_877_102_u32.to_be_bytes());
    out.extend_from_slice(&process_id.to_be_bytes());
    out.extend_from_slice(secret);
}

/// Authentication request of a kind, with its data.
pub fn authentication(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |out| {
        cstring(out, name.as_bytes());
        cstring(out, value.as_bytes());
    });
}

/// BackendKeyData.
pub fn backend_key(out: &mut Vec<u8>, process_id: i32, secret: &[u8]) {
    message(out, b'K', |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// NegotiateProtocolVersion: the newest minor version we speak, and the options we do not know.
pub fn negotiate_version(out: &mut Vec<u8>, minor: u16, unknown: &[String]) {
    message(out, b'v', |out| {
        out.extend_from_slice(&(0x3_0000 | u32::from(minor)).to_be_bytes());
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        for name in unknown {
            cstring(out, name.as_bytes());
        }
    });
}

/// ReadyForQuery.
pub fn ready(out: &mut Vec<u8>, status: TxStatus) {
    message(out, b'Z', |out| out.push(status.byte()));
}

/// CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| cstring(out, tag.as_bytes()));
}

/// The type of a result's column, and the format of its values.
#[derive(Clone, Copy, Debug)]
pub struct ColumnType {
    /// The type.
    pub oid: u32,
    /// The length of its values; -1 if that varies.
    pub len: i16,
    /// 0 for text, 1 for binary.
    pub format: i16,
}

/// RowDescription of columns that are of no table.
pub fn row_description<'a>(out: &mut Vec<u8>, columns: impl ExactSizeIterator<Item = (&'a str, ColumnType)>) {
    message(out, b'T', |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (name, column) in columns {
            cstring(out, name.as_bytes());
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&column.oid.to_be_bytes());
            out.extend_from_slice(&column.len.to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&column.format.to_be_bytes());
        }
    });
}

/// DataRow of so many values, which `fill` writes, each with its length in front.
pub fn data_row(out: &mut Vec<u8>, count: usize, fill: impl FnOnce(&mut Vec<u8>)) {
    message(out, b'D', |out| {
        out.extend_from_slice(&(count as u16).to_be_bytes());
        fill(out);
    });
}

/// EmptyQueryResponse.
pub fn empty_query(out: &mut Vec<u8>) {
    message(out, b'I', |_| {});
}

/// PortalSuspended.
pub fn portal_suspended(out: &mut Vec<u8>) {
    message(out, b's', |_| {});
}

/// ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    message(out, b'1', |_| {});
}

/// BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    message(out, b'2', |_| {});
}

/// CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    message(out, b'3', |_| {});
}

/// NotificationResponse.
pub fn notification(out: &mut Vec<u8>, process_id: i32, channel: &[u8], payload: &[u8]) {
    message(out, b'A', |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        cstring(out, channel);
        cstring(out, payload);
    });
}

/// NoData.
pub fn no_data(out: &mut Vec<u8>) {
    message(out, b'n', |_| {});
}

/// ParameterDescription of a statement without parameters.
pub fn no_parameters(out: &mut Vec<u8>) {
    message(out, b't', |out| out.extend_from_slice(&[0, 0]));
}

/// The fields of an ErrorResponse or NoticeResponse that we originate.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// `ERROR`, `FATAL`, `WARNING`, `NOTICE`.
    pub severity: &'a str,
    /// SQLSTATE.
    pub code: &'a str,
    /// The message.
    pub message: &'a str,
    /// More about the cause; empty for none.
    pub detail: &'a str,
    /// The hint; empty for none.
    pub hint: &'a str,
}

/// ErrorResponse.
pub fn error(out: &mut Vec<u8>, report: Report<'_>) {
    report_fields(out, b'E', report);
}

/// NoticeResponse.
pub fn notice(out: &mut Vec<u8>, report: Report<'_>) {
    report_fields(out, b'N', report);
}

fn report_fields(out: &mut Vec<u8>, tag: u8, report: Report<'_>) {
    message(out, tag, |out| {
        let mut field = |kind: u8, value: &str| {
            if !value.is_empty() {
                out.push(kind);
                cstring(out, value.as_bytes());
            }
        };
        field(b'S', report.severity);
        field(b'V', report.severity);
        field(b'C', report.code);
        field(b'M', report.message);
        field(b'D', report.detail);
        field(b'H', report.hint);
        out.push(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{frame::split_message, read::ErrorFields};

    #[test]
    fn lengths_count_themselves_and_the_body() {
        let mut out = Vec::new();
        ready(&mut out, TxStatus::Open);
        assert_eq!(out, b"Z\0\0\0\x05T");
        out.clear();
        bind_head(&mut out, b"", b"s", b"\0\0", 100);
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len() - 1 + 100);
    }

    #[test]
    fn a_report_reads_back() {
        let mut out = Vec::new();
        let report = Report { severity: "ERROR", code: "53300", message: "full", detail: "", hint: "wait" };
        error(&mut out, report);
        let (tag, body, rest) = split_message(&out).expect("valid").expect("whole");
        let fields = ErrorFields::parse(body);
        assert_eq!((tag, rest.len()), (b'E', 0));
        assert_eq!((fields.code.as_str(), &*fields.hint), ("53300", "wait"));
    }
}
