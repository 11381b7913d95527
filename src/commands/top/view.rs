//! What is drawn: a sentence, a row of tabs, a table.

use std::fmt::Write as _;

use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, TableState},
};
use serde_json::Value as Json;

use super::asking::Told;
use crate::startup::telemetry::OneLine;

/// Places of a pool that are drawn one by one.
const BAR: usize = 16;

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

/// A table: widths, titles, rows.
struct Sheet {
    widths: Vec<Constraint>,
    titles: Vec<&'static str>,
    rows: Vec<Row<'static>>,
}

impl Sheet {
    fn table(self) -> Table<'static> {
        let header = Row::new(self.titles).style(dim());
        Table::new(self.rows, self.widths).header(header).column_spacing(1)
    }
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
        frame.render_widget(self.sentence(), sentence);
        frame.render_widget(self.tabs(), tabs);
        self.draw_body(frame, body);
        let keys = " q quit   p s c Q e or Tab another tab   up down scroll";
        frame.render_widget(Paragraph::new(keys).style(dim()), foot);
    }

    fn head(&self) -> Paragraph<'static> {
        let mut head = format!(" Bulkhead {}  {}", text(&self.health["version"]), self.url);
        if let (Some(clients), Some(most)) =
            (self.health["clients"].as_u64(), self.health["max_clients"].as_u64())
        {
            let _ = write!(head, "  {clients} of {most} clients");
        }
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
        Paragraph::new(Line::from(Span::styled(format!(" {words}"), style)))
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

    fn draw_body(&mut self, frame: &mut Frame<'_>, area: ratatui::layout::Rect) {
        let contents = if self.contents.0 == self.tab.path() { &self.contents.1 } else { &Json::Null };
        if contents.is_null() {
            return;
        }
        let (sheet, area) = match self.tab {
            Tab::Pools => {
                let pools = pools(contents);
                let [above, _, below] = Layout::vertical([
                    Constraint::Length(pools.rows.len() as u16 + 1),
                    Constraint::Length(1),
                    Constraint::Min(0),
                ])
                .areas(area);
                frame.render_widget(pools.table(), above);
                (holders(contents), below)
            }
            Tab::Servers => (servers(contents), area),
            Tab::Clients => (clients(contents), area),
            Tab::Queries => (queries(contents), area),
            Tab::Events => (events(contents), area),
        };
        self.top = self.top.min(sheet.rows.len().saturating_sub(1));
        let mut state = TableState::new().with_offset(self.top);
        frame.render_stateful_widget(sheet.table(), area, &mut state);
    }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn red() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

/// A text of somebody else's, in which nothing speaks to the terminal.
fn one_line(text: &str) -> String {
    let mut out = OneLine(String::new());
    let _ = out.write_str(text);
    out.0
}

fn text(json: &Json) -> String {
    match json {
        Json::Null => "-".to_owned(),
        Json::String(text) => one_line(text),
        other => other.to_string(),
    }
}

fn list<'j>(json: &'j Json, name: &str) -> impl Iterator<Item = &'j Json> {
    json[name].as_array().into_iter().flatten()
}

fn duration(json: &Json) -> String {
    match json.as_f64() {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.9995 => format!("{:.1} ms", seconds * 1000.0),
        Some(seconds) if seconds < 120.0 => format!("{seconds:.1} s"),
        Some(seconds) if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        Some(seconds) => format!("{:.0} h", seconds / 3600.0),
    }
}

fn micros(json: &Json) -> String {
    duration(&json.as_f64().map_or(Json::Null, |count| (count / 1e6).into()))
}

/// The places of a pool: in use, idle, and room.
fn bar(pool: &Json) -> Line<'static> {
    let count = |name: &str| pool[name].as_u64().unwrap_or_default() as usize;
    let most = count("max_connections").max(1);
    let scale = |part: usize| if most <= BAR { part } else { (part * BAR).div_ceil(most) };
    let (active, idle, all) = (scale(count("active")), scale(count("idle")), scale(most));
    let color = if count("waiting") > 0 { Color::Red } else { Color::Cyan };
    Line::from(vec![
        Span::styled("█".repeat(active), Style::new().fg(color)),
        Span::styled("▒".repeat(idle.min(all.saturating_sub(active))), Style::new().fg(Color::Cyan)),
        Span::styled("·".repeat(all.saturating_sub(active + idle)), dim()),
    ])
}

fn pools(json: &Json) -> Sheet {
    let row = |pool: &Json| {
        let waits = pool["waiting"].as_u64().unwrap_or_default();
        let style = if waits > 0 { red() } else { Style::new() };
        let use_ = format!("{} of {}", text(&pool["active"]), text(&pool["max_connections"]));
        Row::new(vec![
            Cell::from(text(&pool["name"])),
            Cell::from(text(&pool["state"])).style(style),
            Cell::from(use_),
            Cell::from(bar(pool)),
            Cell::from(waits.to_string()).style(style),
            Cell::from(duration(&pool["longest_wait_seconds"])).style(style),
            Cell::from(duration(&pool["wait_p95_seconds"])),
            Cell::from(text(&pool["pinned"])),
        ])
    };
    Sheet {
        widths: vec![
            Constraint::Min(8),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(BAR as u16),
            Constraint::Length(5),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(6),
        ],
        titles: vec!["pool", "state", "in use", "", "wait", "oldest", "p95", "pinned"],
        rows: list(json, "pools").map(row).collect(),
    }
}

/// Below the pools: who waits, and who holds what is waited for.
fn holders(json: &Json) -> Sheet {
    let mut rows: Vec<(bool, f64, Row<'static>)> = Vec::new();
    for pool in list(json, "pools") {
        let mut add = |waits: bool, who: String, count: &Json, longest: &Json| {
            let style = if waits { red() } else { Style::new() };
            let cells = vec![
                Cell::from(text(&pool["name"])),
                Cell::from(if waits { "waits" } else { "holds" }).style(style),
                Cell::from(text(count)),
                Cell::from(duration(longest)),
                Cell::from(who),
            ];
            rows.push((waits, longest.as_f64().unwrap_or_default(), Row::new(cells)));
        };
        for group in list(pool, "waiting_for_it") {
            let who = format!("{}@{}", text(&group["user"]), text(&group["database"]));
            add(true, who, &group["waiting"], &group["longest_wait_seconds"]);
        }
        for group in list(pool, "held_by") {
            let name = text(&group["application_name"]);
            let who = if name.is_empty() { text(&group["user"]) } else { name };
            add(false, who, &group["connections"], &group["longest_seconds"]);
        }
    }
    rows.sort_by(|(waits, longest, _), (others_waits, other, _)| {
        others_waits.cmp(waits).then(other.total_cmp(longest))
    });
    Sheet {
        widths: vec![
            Constraint::Length(14),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Min(10),
        ],
        titles: vec!["pool", "", "count", "longest", "who"],
        rows: rows.into_iter().map(|(.., row)| row).collect(),
    }
}

fn servers(json: &Json) -> Sheet {
    let row = |server: &Json| {
        let style = match server["state"].as_str() {
            Some("up") => Style::new().fg(Color::Green),
            _ => red(),
        };
        let trouble = [&server["last_error"], &server["replica"]["why_not"]];
        Row::new(vec![
            Cell::from(text(&server["name"])),
            Cell::from(text(&server["role"])),
            Cell::from(text(&server["state"])).style(style),
            Cell::from(duration(&server["state_seconds"])),
            Cell::from(duration(&server["replica"]["lag_seconds"])),
            Cell::from(text(&server["open_connections"])),
            Cell::from(trouble.into_iter().find_map(Json::as_str).map(one_line).unwrap_or_default()),
        ])
    };
    Sheet {
        widths: vec![
            Constraint::Length(14),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(5),
            Constraint::Min(10),
        ],
        titles: vec!["server", "role", "state", "since", "lag", "open", "trouble"],
        rows: list(json, "servers").map(row).collect(),
    }
}

fn clients(json: &Json) -> Sheet {
    let row = |client: &Json| {
        let style = if client["state"] == "waiting" { red() } else { Style::new() };
        let part = |name: &str| client[name].as_f64().unwrap_or_default();
        let wait = Json::from(part("wait") + part("wait_us") / 1e6);
        Row::new(vec![
            Cell::from(text(&client["id"])),
            Cell::from(text(&client["state"])).style(style),
            Cell::from(if client["state"] == "waiting" { duration(&wait) } else { String::new() }),
            Cell::from(text(&client["user"])),
            Cell::from(text(&client["database"])),
            Cell::from(text(&client["application_name"])),
            Cell::from(text(&client["addr"])),
        ])
    };
    Sheet {
        widths: vec![
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(12),
            Constraint::Length(14),
            Constraint::Min(10),
            Constraint::Length(15),
        ],
        titles: vec!["id", "state", "waits", "user", "database", "application", "address"],
        rows: list(json, "clients").map(row).collect(),
    }
}

fn queries(json: &Json) -> Sheet {
    let row = |query: &Json| {
        Row::new(vec![
            Cell::from(text(&query["pool"])),
            Cell::from(text(&query["calls"])),
            Cell::from(micros(&query["total_time_us"])),
            Cell::from(micros(&query["p95_time_us"])),
            Cell::from(text(&query["query"])),
        ])
    };
    Sheet {
        widths: vec![
            Constraint::Length(10),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Min(20),
        ],
        titles: vec!["pool", "calls", "total", "p95", "statement"],
        rows: list(json, "queries").map(row).collect(),
    }
}

fn events(json: &Json) -> Sheet {
    let row = |event: &Json| {
        let style = match event["level"].as_str() {
            Some("error") => red(),
            Some("warn") => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        let of_day = event["at_seconds"].as_f64().unwrap_or_default() as u64 % 86_400;
        let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let fields = event["fields"].as_object().into_iter().flatten();
        let fields: Vec<String> =
            fields.map(|(name, value)| format!("{}={}", one_line(name), text(value))).collect();
        Row::new(vec![
            Cell::from(format!("{hours:02}:{minutes:02}:{seconds:02}")),
            Cell::from(text(&event["level"])).style(style),
            Cell::from(format!("{} {}", text(&event["message"]), fields.join(" "))).style(style),
        ])
    };
    Sheet {
        widths: vec![Constraint::Length(8), Constraint::Length(5), Constraint::Min(20)],
        titles: vec!["UTC", "", "event"],
        rows: list(json, "events").map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;

    fn drawn(view: &mut View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("in memory");
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
