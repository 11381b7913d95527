//! What an answer through Bulkhead may be, beside that of one server: what README says, and no more.

use super::super::acts::{Act, Piece};

/// How statements begin that control transactions.
const CONTROLS: &[&str] = &["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"];

/// What a session's transaction has been asked to do so far, also what has failed in it.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(super) struct Standing {
    uses_app: bool,
    /// It has said something that belongs to the primary, or to no server.
    uses_primary: bool,
    uses_jobs: bool,
    /// It began with something that names no table, and so on the primary.
    opens_primary: bool,
    adds_jobs: bool,
    has_keys: bool,
    /// It has begun by AND CHAIN, or begun, ended or returned to a savepoint in one request with other statements.
    controls_amid: bool,
    /// It has settings of its own, which are not said at another server.
    sets: bool,
    /// The session has names of its own for statements by SQL, which one server knows: it uses that one only.
    is_tied: bool,
    /// The session may be pinned to either server, where its transactions begin then.
    is_pinned: bool,
    /// Something of it was refused.
    pub(super) was_refused: bool,
    /// How the names begin of the workers whose jobs it has added.
    added: Vec<String>,
}

impl Standing {
    /// Notes what a request is about to do.
    pub(super) fn note<'a>(&mut self, act: &'a Act) {
        let texts: Vec<&str> = match act {
            Act::Login(_) => {
                (self.is_tied, self.is_pinned) = (false, false);
                Vec::new()
            }
            Act::Query(sql) => sql.split("; ").collect(),
            Act::Messages(pieces) => {
                let text = |piece: &'a Piece| match piece {
                    Piece::Parse(_, sql) => Some(sql.as_str()),
                    _ => None,
                };
                pieces.iter().filter_map(text).collect()
            }
        };
        let controls = |text: &&str| CONTROLS.iter().any(|word| text.starts_with(word));
        self.controls_amid |= texts.len() > 1 && texts.iter().any(controls);
        for text in texts {
            self.note_text(text);
        }
    }

    fn note_text(&mut self, text: &str) {
        let app = [" own", "writes_own", " shared", "enqueues", " t1", " t2", " t3"];
        self.uses_app |= app.iter().any(|name| text.contains(name));
        let on_primary = !text.contains("oban_") && !CONTROLS.iter().any(|word| text.starts_with(word));
        self.uses_primary |= on_primary;
        self.opens_primary |= on_primary && !self.uses_jobs;
        self.sets |=
            ["SET", "RESET", "SELECT set_config", "LISTEN"].iter().any(|word| text.starts_with(word));
        self.is_tied |= text.starts_with("PREPARE");
        self.is_pinned |= ["advisory_lock", "WITH HOLD", "TEMP TABLE"].iter().any(|part| text.contains(part));
        self.uses_jobs |= text.contains("oban_") || text.contains("enqueues");
        let adds = ["INTO oban_jobs", "INTO \"public\".\"oban_jobs", "COPY oban_jobs", "enqueues"];
        self.adds_jobs |= adds.iter().any(|part| text.contains(part));
        if text.contains("COPY oban_jobs") {
            self.added.extend(["copied".to_owned(), "as well".to_owned()]);
        }
        self.has_keys |= text.contains("DO NOTHING");
        for part in text.split("'w").skip(1) {
            let end = part.rfind('_').filter(|end| *end < part.find('\'').unwrap_or(0));
            if let Some(name) = part.find('\'').and_then(|quote| part[..quote].rfind('_')).or(end) {
                self.added.push(format!("w{}", &part[..=name]));
            }
        }
    }

    /// Another transaction begins: by AND CHAIN it stays where the one before it was.
    pub(super) fn end(&mut self, chains: bool) {
        *self = Self {
            controls_amid: chains,
            is_tied: self.is_tied,
            is_pinned: self.is_pinned,
            ..Self::default()
        };
    }

    /// Whether something of it may be refused: it uses both servers, or it is not known how it began or where it stands.
    pub(super) fn may_be_refused(&self) -> bool {
        let uses_primary = self.uses_app || self.sets || self.opens_primary;
        uses_primary && (self.uses_jobs || self.is_pinned)
            || self.is_pinned && self.uses_jobs
            || self.controls_amid
            || self.is_tied
    }

    /// Whether two answers are the same, as far as they have to be.
    pub(super) fn agree(&self, direct: &[String], proxied: &[String]) -> bool {
        let (direct, mut proxied) = (&comparable(direct), &comparable(proxied)[..]);
        // A transaction that failed before it was opened ends here: what is sent with its ROLLBACK finds none.
        if self.was_refused
            && proxied.first().is_some_and(|line| line.starts_with("N ") && line.contains(" C=25P01 "))
        {
            proxied = &proxied[1..];
        }
        if direct == proxied {
            return true;
        }
        // Jobs that a transaction adds once it is open on the primary are not in the job database yet, so it does not see
        // them.
        if !(self.uses_primary && self.adds_jobs) {
            return false;
        }
        let seen = |lines: &[String]| -> Vec<String> {
            lines.iter().filter_map(|line| self.without_own(line)).collect()
        };
        seen(direct) == seen(proxied)
    }

    fn without_own(&self, line: &str) -> Option<String> {
        let is_row = |line: &str| line.starts_with("D ") || line.starts_with("d ");
        let is_own = |line: &str| is_row(line) && self.added.iter().any(|name| line.contains(name.as_str()));
        let counts = ["C SELECT ", "C FETCH ", "C MOVE ", "C COPY ", "s "];
        match line {
            line if is_own(line) => None,
            // A portal with a row less is not suspended, but done.
            line if counts.iter().any(|count| line.starts_with(count)) => Some("C SELECT".to_owned()),
            // Nor does it know that the job database has a unique job already.
            line if self.has_keys && line.starts_with("C INSERT 0 ") => Some("C INSERT".to_owned()),
            line => Some(line.to_owned()),
        }
    }
}

/// An answer without what two servers differ in: numbers and times of rows that fail, and the order of rows.
pub(super) fn comparable(lines: &[String]) -> Vec<String> {
    let mut out: Vec<String> =
        lines.iter().map(|line| line.split(" D=Failing row").next().unwrap_or(line).to_owned()).collect();
    for rows in out.chunk_by_mut(|one, other| one.starts_with("D ") && other.starts_with("D ")) {
        rows.sort();
    }
    out
}

/// Whether a request begins with a transaction's end: in one that failed before it was opened that has come to pass, also
/// if the rest is refused.
pub(super) fn begins_with_end(act: &Act) -> bool {
    let Act::Query(text) = act else { return false };
    let first = text.split(';').next().unwrap_or_default();
    ["COMMIT", "END", "ROLLBACK", "ABORT"].contains(&first)
}

/// Whether an answer says that a transaction has ended, and nothing else was done.
pub(super) fn only_ends(lines: &[String]) -> bool {
    let mut done = lines.iter().filter(|line| line.starts_with("C "));
    done.next().is_some_and(|line| line.starts_with("C ROLLBACK")) && done.next().is_none()
}

/// Whether nothing was done, as the transaction had failed.
pub(super) fn is_skipped(lines: &[String]) -> bool {
    !lines.iter().any(|line| line.starts_with("C "))
        && lines.iter().any(|line| line.starts_with("E ") && line.contains(" C=25P02 "))
}

/// Whether Bulkhead has refused something that it cannot keep whole.
pub(super) fn is_refused(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with("E ") && line.contains(" C=0A000 "))
}
