//! A table that fits into its terminal: numbers are never cut, for then they would lie; names are, and what matters least
//! gives way altogether.

use ratatui::{
    layout::Constraint,
    style::{Modifier, Style},
    text::{Line, Text},
    widgets::{Row, Table},
};

/// The mark at the end of what is cut.
const CUT: &str = "..";

/// The space that a column takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    /// Always so much, or as much as the longest value needs.
    Whole(u16),
    /// At least so much, at most what the longest value needs; values are cut.
    Name(u16),
    /// All that is left, at least so much; values go on in further lines, of which there are so many.
    Lines(u16, usize),
}

/// A column. One of rank zero stays; of the others that of the highest rank gives way first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: Width,
    pub(super) rank: u8,
}

/// A table: columns, and rows with a value for each of them.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Line<'static>>>,
}

/// A column that stays.
pub(super) const fn column(title: &'static str, width: Width) -> Column {
    ranked(0, title, width)
}

/// A column that gives way.
pub(super) const fn ranked(rank: u8, title: &'static str, width: Width) -> Column {
    Column { title, width, rank }
}

pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

impl Sheet {
    /// Puts a row below the others, with words in the first column that stays.
    pub(super) fn note(&mut self, words: &str) {
        let stays = self.columns.iter().position(|column| column.rank == 0);
        let cell =
            |at| if Some(at) == stays { Line::styled(words.to_owned(), dim()) } else { Line::default() };
        self.rows.push((0..self.columns.len()).map(cell).collect());
    }

    /// The table, in so much space.
    pub(super) fn table(self, space: u16) -> Table<'static> {
        let kept = self.widths(space);
        let titles: Vec<&str> = kept.iter().map(|(at, _)| self.columns[*at].title).collect();
        let row = |cells: Vec<Line<'static>>| {
            let cell = |&(at, width): &(usize, u16)| fit(&cells[at], self.columns[at].width, width);
            let cells: Vec<Text<'static>> = kept.iter().map(cell).collect();
            let height = cells.iter().map(Text::height).max().unwrap_or(1);
            Row::new(cells).height(height as u16)
        };
        let rows: Vec<Row<'static>> = self.rows.into_iter().map(row).collect();
        let header = Row::new(titles).style(dim());
        let widths = kept.iter().map(|(_, width)| Constraint::Length(*width));
        Table::new(rows, widths).header(header).column_spacing(1)
    }

    /// The columns for which there is space, by position, and the width of each.
    fn widths(&self, space: u16) -> Vec<(usize, u16)> {
        let wanted: Vec<u16> = (0..self.columns.len()).map(|at| self.longest(at)).collect();
        let least = |at: usize| match self.columns[at].width {
            Width::Whole(width) => width.max(wanted[at]),
            Width::Name(width) | Width::Lines(width, _) => width,
        };
        let mut kept: Vec<(usize, u16)> = (0..self.columns.len()).map(|at| (at, least(at))).collect();
        let taken = |kept: &[(usize, u16)]| {
            kept.iter().map(|(_, width)| width + 1).fold(0, u16::saturating_add).saturating_sub(1)
        };
        while taken(&kept) > space {
            let rank = |(at, _): &(usize, u16)| self.columns[*at].rank;
            let Some(worst) = kept.iter().map(rank).max().filter(|worst| *worst > 0) else { break };
            kept.retain(|column| rank(column) != worst);
        }
        let left = space.saturating_sub(taken(&kept));
        let is_lines = |(at, _): &&mut (usize, u16)| matches!(self.columns[*at].width, Width::Lines(..));
        // What goes on in further lines is as good as all names together.
        let has_lines = kept.iter_mut().any(|column| is_lines(&column));
        let for_names = if has_lines { left / 2 } else { left };
        let mut names: Vec<(u16, &mut u16)> = Vec::new();
        for (at, width) in &mut kept {
            if matches!(self.columns[*at].width, Width::Name(_)) {
                names.push((wanted[*at], width));
            }
        }
        let given = share(&mut names, for_names);
        if let Some((_, width)) = kept.iter_mut().find(is_lines) {
            *width += left - given;
        }
        kept
    }

    /// The width of the longest value of a column, or of its title.
    fn longest(&self, at: usize) -> u16 {
        let values = self.rows.iter().map(|row| row[at].width());
        values.chain([self.columns[at].title.len()]).max().unwrap_or_default().min(1_000) as u16
    }
}

/// Gives each of these widths as much as it wants, one by one as long as there is any; how much was given.
fn share(widths: &mut [(u16, &mut u16)], most: u16) -> u16 {
    let mut given = 0;
    while let Some((_, width)) =
        widths.iter_mut().filter(|(wanted, width)| **width < *wanted).min_by_key(|(_, width)| **width)
    {
        if given == most {
            break;
        }
        **width += 1;
        given += 1;
    }
    given
}

/// A value in its space.
fn fit(value: &Line<'static>, how: Width, width: u16) -> Text<'static> {
    let lines = match how {
        _ if value.width() <= usize::from(width) => return Text::from(value.clone()),
        Width::Whole(_) => return Text::from(value.clone()),
        Width::Name(_) => 1,
        Width::Lines(_, lines) => lines,
    };
    let text: String = value.spans.iter().map(|span| span.content.as_ref()).collect();
    let lines = wrap(&text, usize::from(width), lines);
    Text::from(lines.into_iter().map(|line| Line::styled(line, value.style)).collect::<Vec<_>>())
}

/// At most so many lines of at most so many characters, broken between words if these are short enough.
fn wrap(text: &str, width: usize, lines_max: usize) -> Vec<String> {
    let mut rest: Vec<char> = text.chars().collect();
    let mut lines = Vec::new();
    while rest.len() > width && lines.len() + 1 < lines_max {
        let space = rest[..=width].iter().rposition(|char| *char == ' ').filter(|at| *at > width / 2);
        let after = rest.split_off(space.unwrap_or(width));
        lines.push(rest.into_iter().collect());
        rest = after.into_iter().skip(usize::from(space.is_some())).collect();
    }
    if rest.len() > width {
        rest.truncate(width.saturating_sub(CUT.len()));
        rest.extend(CUT.chars());
    }
    lines.push(rest.into_iter().collect());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_end_in_a_mark() {
        assert_eq!(wrap("one two three", 20, 1), ["one two three"]);
        assert_eq!(wrap("one two three", 7, 2), ["one two", "three"]);
        assert_eq!(wrap("one two three", 7, 1), ["one t.."]);
        assert_eq!(wrap("onetwothreefour", 6, 2), ["onetwo", "thre.."]);
        assert_eq!(wrap("a bcdefgh", 6, 2), ["a bcde", "fgh"], "a short line is none");
    }

    #[test]
    fn numbers_are_whole_and_the_least_gives_way() {
        let sheet = Sheet {
            columns: vec![
                column("name", Width::Name(6)),
                ranked(2, "bar", Width::Whole(8)),
                ranked(1, "p95", Width::Whole(5)),
                column("oldest", Width::Whole(8)),
            ],
            rows: vec![["a_long_name", "########", "1.0 s", "12345.6 ms"].map(Line::from).to_vec()],
        };
        assert_eq!(sheet.widths(50), [(0, 11), (1, 8), (2, 5), (3, 10)]);
        assert_eq!(sheet.widths(32), [(0, 6), (1, 8), (2, 5), (3, 10)]);
        assert_eq!(sheet.widths(31), [(0, 11), (2, 5), (3, 10)]);
        assert_eq!(sheet.widths(20), [(0, 9), (3, 10)]);
        let names = Sheet {
            columns: vec![
                column("one", Width::Name(4)),
                column("other", Width::Name(6)),
                column("text", Width::Lines(10, 2)),
            ],
            rows: vec![["n".repeat(30), "m".repeat(9), "t".repeat(99)].map(Line::from).to_vec()],
        };
        assert_eq!(names.widths(22), [(0, 4), (1, 6), (2, 10)]);
        assert_eq!(names.widths(32), [(0, 8), (1, 7), (2, 15)], "half for names, the shorter ones first");
        assert_eq!(names.widths(100), [(0, 30), (1, 9), (2, 59)]);
    }
}
