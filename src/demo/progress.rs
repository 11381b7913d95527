//! What the demonstration says while it works: lines, and on a terminal one more that is written over.

use std::io::{self, Write};

/// Without a terminal, one of so many moments is a line.
const PLAIN_EVERY: u32 = 5;

/// Where it is said.
pub(super) struct Progress<'a> {
    out: &'a mut dyn Write,
    is_terminal: bool,
    /// A moment is on the terminal's last line.
    is_open: bool,
    moments: u32,
}

impl<'a> Progress<'a> {
    pub(super) fn new(out: &'a mut dyn Write, is_terminal: bool) -> Self {
        Self { out, is_terminal, is_open: false, moments: 0 }
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        if std::mem::take(&mut self.is_open) {
            write!(self.out, "\r\x1b[K")?;
        }
        self.moments = 0;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Says how it stands at the moment.
    pub(super) fn moment(&mut self, text: &str) -> io::Result<()> {
        self.moments += 1;
        if self.is_terminal {
            self.is_open = true;
            write!(self.out, "\r\x1b[K    {text}")?;
        } else if self.moments.is_multiple_of(PLAIN_EVERY) {
            writeln!(self.out, "    {text}")?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(is_terminal: bool) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, is_terminal);
        for moment in 1..=6 {
            progress.moment(&format!("{moment} s")).expect("memory takes it");
        }
        progress.say("done").expect("memory takes it");
        progress.say("bye").expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_terminal_sees_each_moment_and_a_file_some() {
        assert_eq!(said(false), "    5 s\ndone\nbye\n");
        let text = said(true);
        assert!(text.starts_with("\r\x1b[K    1 s\r\x1b[K    2 s"), "{text:?}");
        assert!(text.ends_with("    6 s\r\x1b[Kdone\nbye\n"), "{text:?}");
    }
}
