//! Deep and long statements, on the stack of a runtime's thread.

use super::{catalog, rules};
use crate::sql::{Class, Reason, judge, statements::setting_names};

#[test]
fn deep_and_long_statements_need_no_stack() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        format!("SELECT {}{inner}{}", open.repeat(n), close.repeat(n))
    };
    let list = ",123456".repeat(150_000);
    let texts = [
        (nested("NOT ", "true", "", 3000), Class::Read),
        (nested("NOT ", "true", "", 9000), Class::Read),
        (nested("(", "1", ")", 4000), Class::Read),
        (nested("(SELECT ", "1", ")", 3000), Class::Read),
        (nested("lower(", "'x'", ")", 3000), Class::Read),
        (nested("", "1", "+1", 200_000), Class::Read),
        (nested("", "a", "::int", 100_000), Class::Read),
        (nested("", "a", "[1]", 100_000), Class::Read),
        (nested("CASE WHEN true THEN ", "1", " END", 1000), Class::Read),
        (nested("", "1", " UNION SELECT 1", 20_000), Class::Read),
        (nested("", "* FROM a", " JOIN a ON true", 30_000), Class::Read),
        (format!("SELECT * FROM t WHERE id IN (0{list})"), Class::Read),
        (format!("INSERT INTO oban_jobs VALUES (0{list})"), Class::Job),
    ];
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        for (text, class) in &texts {
            let verdict = judge::judge(&rules(), &catalog(), text.as_bytes(), None);
            assert_eq!(verdict.class, *class, "{}..", &text[..40]);
        }
        // The grammar's own stack is bounded: the server refuses this as well.
        let parentheses = nested("(", "1", ")", 10_000);
        let verdict = judge::judge(&rules(), &catalog(), parentheses.as_bytes(), None);
        assert_eq!((verdict.class, verdict.reason), (Class::Write, Reason::Unparsed));
    });
    thread.expect("a thread starts").join().expect("no stack overflows, nothing panics");
}

/// Of this thread's own time, so that a busy machine changes nothing.
fn now() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn many_scopes_take_no_quadratic_time() {
    let cost = |count: usize| {
        let ctes: Vec<String> = (0..count).map(|n| format!("a{n} AS (SELECT * FROM a{})", n / 2)).collect();
        let text = format!("WITH {} SELECT 1", ctes.join(", "));
        let before = now();
        judge::judge(&rules(), &catalog(), text.as_bytes(), None);
        now().saturating_sub(before)
    };
    let (few, many) = (cost(2_000), cost(20_000));
    // Ten times as many: linear is 10, quadratic 100.
    assert!(many < few * 40, "{few:?}, {many:?}");
}

/// A text of about this many bytes.
type Shape = fn(usize) -> String;

fn filled(head: &str, unit: &str, tail: &str, bytes: usize) -> String {
    format!("{head}{}{tail}", unit.repeat(bytes / unit.len()))
}

fn nested(open: &str, inner: &str, close: &str, bytes: usize) -> String {
    let count = bytes / (open.len() + close.len());
    format!("SELECT {}{inner}{}", open.repeat(count), close.repeat(count))
}

/// What somebody may send who wants others to wait.
const SHAPES: &[Shape] = &[
    |n| filled("", "/*", "", n),
    |n| filled("", "/*/", "", n),
    |n| filled("SELECT 1 ", "/*/", "", n),
    |n| filled("/*bulkhead:", "/*", "", n),
    |n| format!("{}{}", "/*".repeat(n / 4), "*/".repeat(n / 4)),
    |n| filled("SELECT 1", "/**/", "", n),
    |n| filled("SELECT 1", ",'a'/*x*/", "", n),
    |n| filled("SELECT 'a'", "\n'b'", "", n),
    |n| filled("SELECT 'a'", " -- c\n'b'", "", n),
    |n| filled("SELECT '", "''", "", n),
    |n| filled("SELECT ", "$a ", "", n),
    |n| filled("SELECT $x$", "$x", "", n),
    |n| filled("SELECT 1 ", "+", " 1", n),
    |n| filled("SELECT 1 ", "-+", " 1", n),
    |n| filled("SELECT 1 ", "<>@+-", "@ 1", n),
    |n| filled("SELECT ", "- ", "1", n),
    |n| nested("(", "1", ")", n),
    |n| nested("ARRAY[", "1", "]", n),
    |n| nested("f(", "1", ")", n),
    |n| nested("CASE WHEN a THEN ", "1", " END", n),
    |n| filled("SELECT ", "(", "", n),
    |n| filled("SELECT 1", "+1", "", n),
    |n| filled("SELECT a", " OR b AND c", "", n),
    |n| filled("SELECT a IN (1", ",1", ")", n),
    |n| filled("VALUES (1)", ",(1)", "", n),
    |n| filled("", "SELECT 1;", "", n),
    |n| filled("", "SET a.b=1;", "", n),
    |n| filled("SELECT a", ".a", "", n),
    |n| filled("SELECT a", "::int", "", n),
    |n| filled("SELECT U&'", "\\0041", "'", n),
    |n| filled("SELECT 1", ",U&'!0041' UESCAPE '!'", "", n),
    |n| filled("SELECT E'", "\\x41", "'", n),
    |n| filled("SELECT 1", " UNION SELECT 1", "", n),
    |n| filled("SELECT * FROM a", " JOIN a ON a", "", n),
    |n| filled("SELECT * FROM a", ",a", "", n),
    |n| filled("SELECT ", "a", "", n),
    |n| filled("SELECT ", "1", "", n),
    |n| filled("DO $$ BEGIN ", "SET a = 1; ", "END $$", n),
    |n| filled("DO $$ BEGIN ", "set_config(", "END $$", n),
    |n| filled("DO $$ SET a", " ", ". $$", n),
    |n| filled("DO $$ ", "set \"", " $$", n),
    |n| filled("DO $$ ", " \n", "set $$", n),
    |n| format!("DO $$ {} $$", (0..n / 15).map(|i| format!("SET a.b{i} = 1;")).collect::<Vec<_>>().concat()),
    |n| filled("SELECT ", "a ", ", ,", n),
];

#[test]
fn no_text_takes_more_time_than_its_length_allows() {
    const BYTES: usize = 64_000;
    let cost = |text: &str| {
        let before = now();
        judge::judge(&rules(), &catalog(), text.as_bytes(), None);
        setting_names(text.as_bytes());
        now().saturating_sub(before)
    };
    let plain = cost(&filled("SELECT a IN (1", ",1", ")", BYTES));
    for shape in SHAPES {
        // Linear ones take up to 3 times as long, those with a quadratic part 100 times and more.
        let (text, took) = (shape(64), cost(&shape(BYTES)));
        assert!(took < plain * 25, "{took:?} where a plain one takes {plain:?}: {text}");
    }
}
