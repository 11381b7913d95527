//! Deep and long statements, on the stack of a runtime's thread.

use super::{catalog, rules};
use crate::sql::{Class, Reason, judge};

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

#[test]
fn many_scopes_take_no_quadratic_time() {
    /// Of this thread's own time, so that a busy machine changes nothing.
    fn now() -> std::time::Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
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
