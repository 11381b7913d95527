//! The startup parameter `options`: a command line of the server, which means settings.
//!
//! Source: `pg_split_opts`, `process_postgres_switches`, `set_debug_options`, `set_plan_disabling_options` and
//! `get_stats_option_name` of `postgres.c` and `postinit.c`. Who may set what is for the server to say.

/// The fault of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadOption {
    /// A word that is no option, or an option that is unknown or lacks its argument.
    Argument(String),
    /// `-c name` or `--name` without a value.
    NoValue(String),
}

/// What `getopt` calls the program itself.
const PROGRAM: &str = "postgres";

/// Options that take an argument.
const WITH_ARGUMENT: &[u8] = b"BcCDdfhkNprStvW-";

/// Options of the postmaster, which the server takes from clients too, and which then mean nothing.
const IGNORED: &str = "bCDEjnrTv";

/// The settings that a command line means, in its order.
pub fn parse(options: &str) -> Result<Vec<(String, String)>, BadOption> {
    let mut words = vec![PROGRAM.to_owned()];
    words.extend(split_words(options));
    let mut settings = Vec::new();
    let mut stray = None;
    let mut next = 1;
    while let Some(word) = words.get(next) {
        let here = next;
        next += 1;
        let flags = match word.strip_prefix('-') {
            // The end of the options.
            Some("-") => {
                stray = stray.or_else(|| words.get(next));
                break;
            }
            Some(flags) if !flags.is_empty() => flags,
            // Looked at last.
            _ => {
                stray = stray.or(Some(word));
                continue;
            }
        };
        for (at, flag) in flags.char_indices() {
            let rest = &flags[at + flag.len_utf8()..];
            let takes = flag.is_ascii() && WITH_ARGUMENT.contains(&(flag as u8));
            let argument = match (takes, rest) {
                (false, _) => "",
                (true, "") => {
                    next += 1;
                    words.get(next - 1).ok_or_else(|| BadOption::Argument(word.clone()))?
                }
                (true, attached) => attached,
            };
            let before = if takes || rest.is_empty() { next - 1 } else { here - 1 };
            let meant = switch(flag, argument)?;
            settings.extend(meant.ok_or_else(|| BadOption::Argument(words[before].clone()))?);
            if takes {
                break;
            }
        }
    }
    stray.map_or(Ok(settings), |word| Err(BadOption::Argument(word.clone())))
}

/// What one option means; `None` if there is no such one.
fn switch(flag: char, argument: &str) -> Result<Option<Vec<(String, String)>>, BadOption> {
    let one = |name: &str, value: &str| Some(vec![(name.to_owned(), value.to_owned())]);
    Ok(match flag {
        'c' | '-' => {
            let (name, value) = argument.split_once('=').ok_or_else(|| {
                BadOption::NoValue(if flag == 'c' {
                    format!("-c {argument}")
                } else {
                    format!("--{argument}")
                })
            })?;
            one(&name.replace('-', "_"), value)
        }
        'B' => one("shared_buffers", argument),
        'd' => Some(debug(argument)),
        'e' => one("datestyle", "euro"),
        'F' => one("fsync", "false"),
        'f' => planner(argument).and_then(|name| one(name, "false")),
        'h' => one("listen_addresses", argument),
        'i' => one("listen_addresses", "*"),
        'k' => one("unix_socket_directories", argument),
        'l' => one("ssl", "true"),
        'N' => one("max_connections", argument),
        'O' => one("allow_system_table_mods", "true"),
        'P' => one("ignore_system_indexes", "true"),
        'p' => one("port", argument),
        'S' => one("work_mem", argument),
        's' => one("log_statement_stats", "true"),
        't' => statistics(argument).and_then(|name| one(name, "true")),
        'W' => one("post_auth_delay", argument),
        ignored if IGNORED.contains(ignored) => Some(Vec::new()),
        _ => None,
    })
}

/// `-d LEVEL`; as `atoi` does, what is no number is zero.
fn debug(level: &str) -> Vec<(String, String)> {
    let text = level.trim_start();
    let sign = usize::from(text.starts_with(['-', '+']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let level: i64 = text[..sign + digits].parse().unwrap_or(0);
    let mut settings = Vec::new();
    let mut set = |name: &str, value: &str| settings.push((name.to_owned(), value.to_owned()));
    if level > 0 {
        set("log_min_messages", &format!("debug{level}"));
    } else {
        set("log_min_messages", "notice");
    }
    for (least, name, value) in [
        (2, "log_statement", "all"),
        (3, "debug_print_parse", "true"),
        (4, "debug_print_plan", "true"),
        (5, "debug_print_rewritten", "true"),
    ] {
        if level >= least {
            set(name, value);
        }
    }
    settings
}

/// `-f LETTER`: the kind of plan that is switched off.
fn planner(letter: &str) -> Option<&'static str> {
    Some(match letter.bytes().next()? {
        b's' => "enable_seqscan",
        b'i' => "enable_indexscan",
        b'o' => "enable_indexonlyscan",
        b'b' => "enable_bitmapscan",
        b't' => "enable_tidscan",
        b'n' => "enable_nestloop",
        b'm' => "enable_mergejoin",
        b'h' => "enable_hashjoin",
        _ => return None,
    })
}

/// `-t LETTERS`: whose statistics are logged.
fn statistics(letters: &str) -> Option<&'static str> {
    Some(match letters.as_bytes() {
        [b'p', b'a', ..] => "log_parser_stats",
        [b'p', b'l', ..] => "log_planner_stats",
        [b'e', ..] => "log_executor_stats",
        _ => return None,
    })
}

/// Words between spaces; a backslash takes the next character as it is.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        if next.is_ascii_whitespace() || next == '\u{b}' {
            words.extend(word.take());
        } else {
            let word = word.get_or_insert_with(String::new);
            match next {
                '\\' => word.extend(chars.next()),
                other => word.push(other),
            }
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(options: &str) -> String {
        match parse(options) {
            Ok(settings) => {
                settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            }
            Err(BadOption::Argument(word)) => format!("bad {word}"),
            Err(BadOption::NoValue(option)) => format!("{option} requires a value"),
        }
    }

    #[test]
    fn a_command_line_means_settings() {
        for (options, expected) in [
            (r"-c search_path=a\ b --work-mem=1MB -cjit=off", "search_path=a b work_mem=1MB jit=off"),
            ("-S 64MB -e", "work_mem=64MB datestyle=euro"),
            ("-eS64MB -fh", "datestyle=euro work_mem=64MB enable_hashjoin=false"),
            ("-f seq -te -tpl", "enable_seqscan=false log_executor_stats=true log_planner_stats=true"),
            (
                "-d 0 -d3",
                "log_min_messages=notice log_min_messages=debug3 log_statement=all debug_print_parse=true",
            ),
            ("-d x", "log_min_messages=notice"),
            ("-s -W 3", "log_statement_stats=true post_auth_delay=3"),
            ("-D /x -bEjnT -r f", ""),
            ("  ", ""),
            ("-c a=", "a="),
            ("-c a", "-c a requires a value"),
            ("--a", "--a requires a value"),
            ("nonsense", "bad nonsense"),
            ("nonsense -S 1MB", "bad nonsense"),
            ("-", "bad -"),
            ("-x", "bad -x"),
            ("-S", "bad -S"),
            ("-e -xe", "bad -e"),
            ("-f z", "bad z"),
            ("-fz -e", "bad -fz"),
            ("-- rest", "bad rest"),
            ("-e --", "datestyle=euro"),
        ] {
            assert_eq!(told(options), expected, "{options}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[-a-zA-Z0-9=\\\\ ä]{0,40}") {
            let _ = parse(&text);
        }
    }
}
