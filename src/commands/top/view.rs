//! What is drawn: a sentence, a row of tabs, a table.

use std::fmt::Write as _;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, TableState, Wrap},
};
use serde_json::Value as Json;

use super::{
    asking::Told,
    contents::{self, one_line, text},
    sheet::dim,
};

/// A tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Pools,
    Servers,
    Clients,
    Queries,
    Events,
}

const TABS: [(Tab, char, &str, &str); 5] = [
    (Tab::Pools, 'p', "pools", "pools"),
    (Tab::Servers, 's', "servers", "servers"),
    (Tab::Clients, 'c', "clients", "clients?limit=200"),
    (Tab::Queries, 'Q', "Queries", "queries"),
    (Tab::Events, 'e', "events", "events"),
];

impl Tab {
    /// The tab of a key.
    pub(super) fn of(key: char) -> Option<Self> {
        TABS.iter().find(|(_, letter, ..)| *letter == key).map(|(tab, ..)| *tab)
    }

    /// Where its contents are asked for, below `/api/v1/`.
    pub(super) fn path(self) -> &'static str {
        TABS.iter().find(|(tab, ..)| *tab == self).map_or("pools", |(.., path)| path)
    }
}

/// What is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) tab: Tab,
    url: String,
    health: Json,
    /// The contents of a tab, and which one's.
    contents: (&'static str, Json),
    trouble: Option<String>,
    top: usize,
}

impl View {
    pub(super) fn new(url: &str) -> Self {
        let (health, contents) = (Json::Null, ("", Json::Null));
        Self { tab: Tab::Pools, url: one_line(url), health, contents, trouble: None, top: 0 }
    }

    /// Takes an answer.
    pub(super) fn tell(&mut self, told: Told) {
        match told.answer {
            Ok((health, contents)) => {
                self.health = health;
                self.contents = (told.path, contents);
                self.trouble = None;
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    /// Goes down by so many rows.
    pub(super) fn scroll(&mut self, rows: isize) {
        self.top = self.top.saturating_add_signed(rows);
    }

    /// Goes to the next tab, or the one before.
    pub(super) fn turn(&mut self, by: isize) {
        let at = TABS.iter().position(|(tab, ..)| *tab == self.tab).unwrap_or_default();
        let next = (at as isize + by).rem_euclid(TABS.len() as isize) as usize;
        self.tab = TABS[next].0;
        self.top = 0;
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Length(2),
            Constraint::Min(1),
            Constraint::Length(1),
        ]);
        let [head, sentence, tabs, body, foot] = areas.areas(frame.area());
        frame.render_widget(self.head(), head);
        let [_, sentence] = Layout::horizontal([Constraint::Length(1), Constraint::Min(0)]).areas(sentence);
        frame.render_widget(self.sentence(), sentence);
        frame.render_widget(self.tabs(), tabs);
        self.draw_body(frame, body);
        let keys = " q quit   p s c Q e or Tab another tab   up down scroll";
        frame.render_widget(Paragraph::new(keys).style(dim()), foot);
    }

    fn head(&self) -> Paragraph<'static> {
        let mut head = format!(" Bulkhead {}", text(&self.health["version"]));
        if let (Some(clients), Some(most)) =
            (self.health["clients"].as_u64(), self.health["max_clients"].as_u64())
        {
            let _ = write!(head, "  {clients} of {most} clients");
        }
        let _ = write!(head, "  {}", self.url);
        Paragraph::new(head).style(dim())
    }

    fn sentence(&self) -> Paragraph<'static> {
        let (words, color) = match (&self.trouble, self.health["level"].as_str()) {
            (Some(trouble), _) => (format!("No news: {}", one_line(trouble)), Color::Red),
            (None, Some("ok")) => (text(&self.health["summary"]), Color::Green),
            (None, Some("warning")) => (text(&self.health["summary"]), Color::Yellow),
            (None, Some(_)) => (text(&self.health["summary"]), Color::Red),
            (None, None) => ("asking".to_owned(), Color::Reset),
        };
        let style = Style::new().fg(color).add_modifier(Modifier::BOLD);
        Paragraph::new(Line::from(Span::styled(words, style))).wrap(Wrap { trim: true })
    }

    fn tabs(&self) -> Paragraph<'static> {
        let spans = TABS.iter().map(|(tab, _, name, _)| {
            let style = if *tab == self.tab {
                Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
            } else {
                dim()
            };
            [Span::raw(" "), Span::styled(format!(" {name} "), style)]
        });
        Paragraph::new(Line::from(spans.flatten().collect::<Vec<_>>()))
    }

    fn draw_body(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let contents = if self.contents.0 == self.tab.path() { &self.contents.1 } else { &Json::Null };
        if contents.is_null() {
            return;
        }
        let (sheet, area) = match self.tab {
            Tab::Pools => {
                let holders = contents::holders(contents);
                // Those who wait and hold have half of the space, if they are so many.
                let for_holders = (holders.rows.len() + 1).min(usize::from(area.height / 2));
                let rows_max = usize::from(area.height).saturating_sub(for_holders + 2);
                let pools = contents::pools(contents, rows_max);
                let [above, _, below] = Layout::vertical([
                    Constraint::Length(pools.rows.len() as u16 + 1),
                    Constraint::Length(1),
                    Constraint::Min(0),
                ])
                .areas(area);
                frame.render_widget(pools.table(above.width), above);
                (holders, below)
            }
            Tab::Servers => (contents::servers(contents), area),
            Tab::Clients => (contents::clients(contents), area),
            Tab::Queries => (contents::queries(contents), area),
            Tab::Events => (contents::events(contents), area),
        };
        self.top = self.top.min(sheet.rows.len().saturating_sub(1));
        let mut state = TableState::new().with_offset(self.top);
        frame.render_stateful_widget(sheet.table(area.width), area, &mut state);
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;

    fn drawn(view: &mut View) -> String {
        drawn_in(view, 80, 24)
    }

    fn drawn_in(view: &mut View, columns: u16, lines: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("in memory");
        terminal.draw(|frame| view.draw(frame)).expect("in memory");
        terminal.backend().to_string()
    }

    #[test]
    fn who_waits_is_told_in_a_small_terminal() {
        let mut view = View::new("http://127.0.0.1:9930");
        assert!(drawn(&mut view).contains("asking"));
        let health =
            json!({ "level": "critical", "summary": "Pool jobs is full: 5 of 5 in use", "version": "1" });
        let pool = json!({
            "name": "jobs", "state": "waiting", "active": 5, "max_connections": 5, "idle": 0, "waiting": 37,
            "longest_wait_seconds": 4.2, "wait_p95_seconds": null,
            "held_by": [{ "application_name": "\u{1b}[31mx", "user": "app", "connections": 5, "longest_seconds": 2.0 }],
        });
        let answer = Ok((health, json!({ "pools": [pool] })));
        view.tell(Told { path: "pools", answer });
        let shown = drawn(&mut view);
        for part in ["Pool jobs is full: 5 of 5 in use", "█████", "37", "4.2 s", "waiting", "holds", "q quit"]
        {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'), "nothing speaks to the terminal");
        // Another tab waits for its own contents; trouble is said over what was.
        view.turn(1);
        view.tell(Told { path: "servers", answer: Err("connection refused".to_owned()) });
        assert!(drawn(&mut view).contains("No news: connection refused"));
        assert_eq!(Tab::of('Q').map(Tab::path), Some("queries"));
    }

    /// The minutes of a time that has lost its unit would be milliseconds.
    #[test]
    fn no_number_is_cut_in_a_narrow_terminal() {
        let pool = |name: &str, waiting: u32| {
            json!({
                "name": name, "state": "waiting", "active": 20, "max_connections": 20, "idle": 0, "pinned": 3,
                "waiting": waiting, "longest_wait_seconds": 0.2694, "wait_p95_seconds": 0.4676,
            })
        };
        let mut view = View::new("http://127.0.0.1:9930");
        let summary = "Pool a_pool_with_a_long_name is full: 20 of 20 in use, 10 wait, oldest 0.3 s";
        let health = json!({ "level": "critical", "summary": summary, "version": "1", "clients": 9, "max_clients": 99 });
        let mut pools = vec![pool("idle_pool", 0); 12];
        pools.push(pool("a_pool_with_a_long_name", 17));
        view.tell(Told { path: "pools", answer: Ok((health.clone(), json!({ "pools": pools }))) });
        let shown = drawn_in(&mut view, 60, 20);
        for part in [
            "269.4 ms",
            "467.6 ms",
            "20 of 20",
            "17",
            "pinned",
            "a_pool_wit..",
            "oldest 0.3 s",
            "9 of 99",
            "3 more",
        ] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        view.tab = Tab::Clients;
        let client = json!({
            "id": 1_711_878_744, "state": "waiting", "wait": 0, "wait_us": 79_200, "user": "app",
            "database": "app@a_pool_with_a_long_name", "application_name": "nightly-reports", "addr": "127.0.0.1",
        });
        let clients = json!({ "total": 250, "clients": [client] });
        view.tell(Told { path: Tab::Clients.path(), answer: Ok((health, clients)) });
        let shown = drawn_in(&mut view, 60, 20);
        for part in ["1711878744", "79.2 ms", "app@a_pool..", "nightly-r..", "249 more"] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        assert!(!shown.contains("address"), "the least gives way:\n{shown}");
        assert!(drawn(&mut view).contains("address"), "there is space for all in 80 columns");
    }

    #[test]
    fn tabs_turn_around_and_rows_end() {
        let mut view = View::new("x");
        view.turn(-1);
        assert_eq!(view.tab, Tab::Events);
        view.turn(1);
        assert_eq!(view.tab, Tab::Pools);
        view.tell(Told {
            path: "pools",
            answer: Ok((json!({}), json!({ "pools": [{ "held_by": [{}, {}] }] }))),
        });
        view.scroll(100);
        drawn(&mut view);
        assert_eq!(view.top, 1);
    }
}
