//! The tables of each tab, out of what `/api/v1` tells.

use std::fmt::Write as _;

use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};
use serde_json::Value as Json;

use super::sheet::{
    Sheet,
    Width::{Lines, Name, Whole},
    column, dim, ranked,
};
use crate::startup::telemetry::OneLine;

/// Places of a pool that are drawn one by one.
const BAR: usize = 12;

fn red() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

/// A text of somebody else's, in which nothing speaks to the terminal.
pub(super) fn one_line(text: &str) -> String {
    let mut out = OneLine(String::new());
    let _ = out.write_str(text);
    out.0
}

pub(super) fn text(json: &Json) -> String {
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

/// Pools, at most so many of them: then those for which somebody waits come first.
pub(super) fn pools(json: &Json, rows_max: usize) -> Sheet {
    let waits = |pool: &Json| pool["waiting"].as_u64().unwrap_or_default();
    let mut pools: Vec<&Json> = list(json, "pools").collect();
    let left_out = pools.len().saturating_sub(rows_max);
    if left_out > 0 {
        pools.sort_by_key(|pool| std::cmp::Reverse(waits(pool)));
        // One line is for the number of others.
        pools.truncate(rows_max.saturating_sub(1));
    }
    let row = |pool: &Json| {
        let style = if waits(pool) > 0 { red() } else { Style::new() };
        let use_ = format!("{} of {}", text(&pool["active"]), text(&pool["max_connections"]));
        vec![
            text(&pool["name"]).into(),
            Line::styled(text(&pool["state"]), style),
            use_.into(),
            bar(pool),
            Line::styled(waits(pool).to_string(), style),
            Line::styled(duration(&pool["longest_wait_seconds"]), style),
            duration(&pool["wait_p95_seconds"]).into(),
            text(&pool["pinned"]).into(),
        ]
    };
    let mut sheet = Sheet {
        columns: vec![
            column("pool", Name(10)),
            column("state", Whole(8)),
            column("in use", Whole(8)),
            ranked(3, "", Whole(BAR as u16)),
            column("wait", Whole(4)),
            column("oldest", Whole(8)),
            ranked(1, "p95", Whole(8)),
            ranked(2, "pinned", Whole(6)),
        ],
        rows: pools.iter().map(|pool| row(pool)).collect(),
    };
    if left_out > 0 {
        sheet.note(&format!("{} more", list(json, "pools").count() - pools.len()));
    }
    sheet
}

/// Below the pools: who waits, and who holds what is waited for.
pub(super) fn holders(json: &Json) -> Sheet {
    let mut rows: Vec<(bool, f64, Vec<Line<'static>>)> = Vec::new();
    for pool in list(json, "pools") {
        let mut add = |waits: bool, who: String, count: &Json, longest: &Json| {
            let style = if waits { red() } else { Style::new() };
            let cells = vec![
                text(&pool["name"]).into(),
                Line::styled(if waits { "waits" } else { "holds" }, style),
                text(count).into(),
                duration(longest).into(),
                who.into(),
            ];
            rows.push((waits, longest.as_f64().unwrap_or_default(), cells));
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
        columns: vec![
            column("pool", Name(10)),
            column("", Whole(5)),
            column("count", Whole(5)),
            column("longest", Whole(8)),
            column("who", Lines(10, 1)),
        ],
        rows: rows.into_iter().map(|(.., row)| row).collect(),
    }
}

pub(super) fn servers(json: &Json) -> Sheet {
    let row = |server: &Json| {
        let style = match server["state"].as_str() {
            Some("up") => Style::new().fg(Color::Green),
            _ => red(),
        };
        let trouble = [&server["last_error"], &server["replica"]["why_not"]];
        vec![
            text(&server["name"]).into(),
            text(&server["role"]).into(),
            Line::styled(text(&server["state"]), style),
            duration(&server["state_seconds"]).into(),
            duration(&server["replica"]["lag_seconds"]).into(),
            text(&server["open_connections"]).into(),
            trouble.into_iter().find_map(Json::as_str).map(one_line).unwrap_or_default().into(),
        ]
    };
    Sheet {
        columns: vec![
            column("server", Name(8)),
            ranked(1, "role", Whole(7)),
            column("state", Whole(9)),
            column("since", Whole(8)),
            column("lag", Whole(8)),
            ranked(2, "open", Whole(4)),
            column("trouble", Lines(20, 3)),
        ],
        rows: list(json, "servers").map(row).collect(),
    }
}

pub(super) fn clients(json: &Json) -> Sheet {
    let row = |client: &Json| {
        let style = if client["state"] == "waiting" { red() } else { Style::new() };
        let part = |name: &str| client[name].as_f64().unwrap_or_default();
        let wait = Json::from(part("wait") + part("wait_us") / 1e6);
        let waits = if client["state"] == "waiting" { duration(&wait) } else { String::new() };
        vec![
            text(&client["id"]).into(),
            Line::styled(text(&client["state"]), style),
            waits.into(),
            text(&client["user"]).into(),
            text(&client["database"]).into(),
            text(&client["application_name"]).into(),
            text(&client["addr"]).into(),
        ]
    };
    let mut sheet = Sheet {
        columns: vec![
            ranked(1, "id", Whole(10)),
            column("state", Whole(7)),
            column("waits", Whole(8)),
            column("user", Name(6)),
            column("database", Name(8)),
            column("application", Name(11)),
            ranked(2, "address", Whole(9)),
        ],
        rows: list(json, "clients").map(row).collect(),
    };
    let all = json["total"].as_u64().unwrap_or_default() as usize;
    if all > sheet.rows.len() {
        sheet.note(&format!("{} more", all - sheet.rows.len()));
    }
    sheet
}

pub(super) fn queries(json: &Json) -> Sheet {
    let row = |query: &Json| {
        vec![
            text(&query["pool"]).into(),
            text(&query["calls"]).into(),
            micros(&query["total_time_us"]).into(),
            micros(&query["p95_time_us"]).into(),
            text(&query["query"]).into(),
        ]
    };
    Sheet {
        columns: vec![
            column("pool", Name(7)),
            column("calls", Whole(6)),
            column("total", Whole(8)),
            column("p95", Whole(8)),
            column("statement", Lines(20, 2)),
        ],
        rows: list(json, "queries").map(row).collect(),
    }
}

pub(super) fn events(json: &Json) -> Sheet {
    let row = |event: &Json| {
        let style = match event["level"].as_str() {
            Some("error") => red(),
            Some("warn") => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        let of_day = event["at_seconds"].as_f64().unwrap_or_default() as u64 % 86_400;
        let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let mut words = text(&event["message"]);
        for (name, value) in event["fields"].as_object().into_iter().flatten() {
            let value = text(value);
            if !value.is_empty() {
                let _ = write!(words, " {}={value}", one_line(name));
            }
        }
        vec![
            format!("{hours:02}:{minutes:02}:{seconds:02}").into(),
            Line::styled(text(&event["level"]), style),
            Line::styled(words, style),
        ]
    };
    Sheet {
        columns: vec![column("UTC", Whole(8)), column("", Whole(5)), column("event", Lines(20, 3))],
        rows: list(json, "events").map(row).collect(),
    }
}
