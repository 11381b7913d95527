//! Tables of statements and what is to be said of them. The statements are our own, in the shapes that
//! drivers, frameworks and job libraries send.

mod adds;
mod depth;
mod jobs;
mod proven;
mod queries;
mod questions;
mod renames;
mod same_key;
mod session;
mod tables;

use super::{Catalog, Custom, Rules, Verdict, judge};

/// A catalog with a few built-in functions and a user's own things.
fn catalog() -> Catalog {
    let stable = [
        "count",
        "sum",
        "max",
        "lower",
        "upper",
        "length",
        "md5",
        "substr",
        "concat",
        "format",
        "unnest",
        "generate_series",
        "json_array_elements_text",
        "json_to_recordset",
        "json_populate_recordset",
        "current_schema",
        "current_schemas",
        "current_database",
        "date_part",
        "date_trunc",
        "round",
        "extract",
        "hashtext",
        "to_regclass",
        "pg_get_serial_sequence",
        "pg_table_is_visible",
        "obj_description",
        "starts_with",
        "jsonb_build_object",
        "array_agg",
        "row_number",
        "to_char",
        "version",
        "quote_ident",
        "format_type",
        "pg_get_expr",
        "array_position",
        "string_agg",
        "coalesce",
        "timezone",
        "my_stable",
        "to_regtype",
        "pg_size_pretty",
        "now",
        "nullif",
        "overlaps",
        "pg_typeof",
    ];
    let volatile = ["nextval", "setval", "currval", "set_config", "random", "pg_notify", "lo_create"];
    let rows = stable
        .map(|name| ("function", name))
        .into_iter()
        .chain(volatile.map(|name| ("function volatile", name)))
        .chain([
            ("function volatile user", "my_volatile"),
            ("function volatile user", "my_setter"),
            ("program", "my_setter BEGIN PERFORM set_config(x, y, false); END"),
            ("function volatile user", "my_named_setter"),
            ("program", "my_named_setter BEGIN SET app.named = 1; END"),
            ("relation", "my_unlogged"),
            ("operator", "<@@>"),
            ("type", "my_domain"),
        ]);
    Catalog::from_rows(1, rows)
}

/// Every preset, with a prefix of Oban's.
fn rules() -> Rules {
    let presets: Vec<String> = Rules::preset_names().map(str::to_owned).collect();
    let custom = Custom {
        schemas: vec!["my_jobs".to_owned()],
        tables: vec!["work_items".to_owned()],
        functions: vec!["enqueue_*".to_owned()],
        channels: vec!["work:*".to_owned()],
    };
    let pools = vec!["primary".to_owned(), "reports".to_owned()];
    Rules::new(&presets, &["private".to_owned()], &custom, pools).expect("the presets are known")
}

fn verdict(text: &str) -> Verdict {
    judge::judge(&rules(), &catalog(), text.as_bytes(), None)
}
