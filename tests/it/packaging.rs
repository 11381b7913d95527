//! Files beside the program: they are well formed, and name only what the program has.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Files below `config` with this extension.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join("config")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} below config");
    found
}

/// Words of the text that begin with `prefix`.
fn words(text: &str, prefix: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with(prefix)).map(ToOwned::to_owned).collect()
}

#[test]
fn dashboards_and_alerts_name_metrics_that_exist() {
    // What is on this page is what there is: `metrics::list` holds that.
    let page = read("docs/metrics.md");
    let listed = words(&page, "");
    for file in ["config/grafana/bulkhead.json", "config/prometheus/alerts.yml", "README.md"] {
        // A schema on the primary, and no metric.
        let mut used = words(&read(file), "bulkhead_");
        used.remove("bulkhead_move");
        assert!(used.len() > 5, "{file} uses {used:?}");
        let is_listed = |name: &&String| {
            listed.contains(*name)
                || name.strip_suffix("_bucket").is_some_and(|name| listed.contains(name))
                || listed.contains(&format!("{name}_total"))
        };
        let unknown: Vec<_> = used.iter().filter(|name| !is_listed(name)).collect();
        assert!(unknown.is_empty(), "{file} names metrics that there are not: {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_json_with_panels_that_ask_something() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("config/grafana/bulkhead.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    for panel in panels {
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{panel}");
    }
}

#[test]
fn toml_files_are_toml_and_configurations_are_valid() {
    for path in files("toml") {
        let text = fs::read_to_string(&path).expect("the file is text");
        text.parse::<toml::Table>().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    check_configuration(&root().join("config/compose/bulkhead.toml"), &[("APP_PASSWORD", "app")]);
    // The one in the ConfigMap, without its indentation.
    let map = read("config/kubernetes/configmap.yaml");
    let text = map.split_once("bulkhead.toml: |\n").expect("the file is in it").1;
    let text: Vec<&str> = text.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bulkhead.toml");
    fs::write(&path, text.join("\n")).expect("writable");
    let url = "postgres://app:secret@127.0.0.1/app";
    check_configuration(&path, &[("DATABASE_URL", url), ("REPLICA_URL", url), ("JOBS_DATABASE_URL", url)]);
}

fn check_configuration(path: &Path, environment: &[(&str, &str)]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.arg("--config").arg(path).arg("check").envs(environment.iter().copied()).output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{}: {output:?}", path.display());
}

/// Every YAML file, by Python's parser; where the machine has none, nothing is claimed.
#[test]
fn yaml_files_are_yaml() {
    let script = "import sys, yaml\nfor name in sys.argv[1:]:\n    assert all(list(yaml.safe_load_all(open(name)))), name";
    let has_yaml = Command::new("python3").args(["-c", "import yaml"]).output();
    if !has_yaml.is_ok_and(|output| output.status.success()) {
        return;
    }
    let files = files("yml").into_iter().chain(files("yaml")).chain([root().join("docker-compose.yml")]);
    let output = Command::new("python3").args(["-c", script]).args(files).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What the image is built from gets to Docker and is copied into the stage that builds: the manifest, every source that
/// it names or that cargo finds by itself, and every file that a source includes.
#[test]
fn the_image_is_built_from_all_that_the_crate_needs() {
    let dockerfile = read("Dockerfile");
    let build = dockerfile
        .split("\nFROM ")
        .find(|stage| stage.contains("AS build\n"))
        .expect("it has a stage that builds");
    let mut copied: Vec<&str> = Vec::new();
    for line in build.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let mut words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        let to = words.pop().expect("a target");
        assert!(to == "./" || words == [to], "COPY {line}: not to where it is in the tree");
        copied.extend(words);
    }
    let mut needed: BTreeSet<PathBuf> = copied.iter().map(PathBuf::from).collect();
    for file in ["Cargo.toml", "Cargo.lock", "build.rs"] {
        needed.insert(file.into());
    }
    let manifest: toml::Table = read("Cargo.toml").parse().expect("it is TOML");
    for target in manifest["bin"].as_array().expect("a program").iter().chain([&manifest["lib"]]) {
        needed.insert(target["path"].as_str().expect("each names its path").into());
    }
    let mut sources = vec![PathBuf::from("build.rs")];
    sources_below(Path::new("src"), &mut sources);
    for source in sources {
        let text = fs::read_to_string(root().join(&source)).unwrap_or_default();
        needed.extend(included(&source, &text));
        needed.insert(source);
    }
    assert!(needed.contains(Path::new("src/sql/programs.sql")), "{needed:?}");
    // Cargo wants those that the manifest names to be there, and the build makes empty ones.
    for (kind, folder) in [("bench", "benches"), ("test", "tests")] {
        for target in manifest[kind].as_array().expect("some") {
            let name = target["name"].as_str().expect("a name");
            let path = target.get("path").and_then(|path| path.as_str());
            let path = path.map_or_else(|| format!("{folder}/{name}.rs"), ToOwned::to_owned);
            assert!(build.contains(&path), "Dockerfile makes no {path}");
        }
    }
    let patterns = read(".dockerignore");
    for path in &needed {
        assert!(root().join(path).exists(), "{} is not there", path.display());
        assert!(!is_ignored(&patterns, path), ".dockerignore leaves out {}", path.display());
        assert!(copied.iter().any(|from| path.starts_with(from)), "no COPY brings {}", path.display());
    }
    // What would make the context large, or a secret part of it.
    for path in ["target/release/bulkhead", ".git/config", "tests/it/main.rs", "bulkhead.toml"] {
        assert!(is_ignored(&patterns, Path::new(path)), ".dockerignore lets {path} in");
    }
}

/// Every file below a folder of the tree, relative to the tree.
fn sources_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).expect("the folder is there").flatten() {
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            sources_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The files that `include!` and its like name in a source, relative to the tree.
fn included(source: &Path, text: &str) -> Vec<PathBuf> {
    let folder = source.parent().expect("a file is in a folder");
    let calls =
        ["include!(", "include_str!(", "include_bytes!("].iter().flat_map(|call| text.split(call).skip(1));
    let names = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    names.map(|name| root_relative(&folder.join(name))).collect()
}

/// The path without `..`.
fn root_relative(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            assert!(parts.pop(), "{} is outside of the tree", path.display());
        } else {
            parts.push(part);
        }
    }
    parts
}

/// Docker's rule, for the patterns that are used here: the last line counts that names the path or a folder that it is
/// in, and `*` alone is everything.
fn is_ignored(patterns: &str, path: &Path) -> bool {
    let mut ignored = false;
    for line in patterns.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (pattern, leaves_out) = line.strip_prefix('!').map_or((line, true), |rest| (rest, false));
        assert!(
            pattern == "*" || !pattern.contains(['*', '?', '[', '\\']),
            "{line}: teach this test the pattern"
        );
        if pattern == "*" || path.starts_with(pattern) {
            ignored = leaves_out;
        }
    }
    ignored
}

/// A target that compiles has the compiler and libclang set up before, not only what it runs.
#[test]
fn make_sets_up_what_it_compiles_with() {
    let makefile = read("Makefile");
    let mut target = "";
    let mut is_set_up = false;
    let mut compile = 0;
    for line in makefile.lines() {
        if let Some((name, _)) = line.split_once(": ##") {
            (target, is_set_up) = (name, false);
        }
        let Some(command) = line.strip_prefix('\t') else { continue };
        if let Some(parts) = command.strip_prefix("@scripts/setup.sh ") {
            is_set_up |= parts.split_whitespace().any(|part| part == "build");
        }
        let compiles =
            ["cargo build", "cargo clippy", "cargo doc", "cargo bench", "cargo test", "scripts/test.sh"];
        if compiles.iter().any(|it| command.contains(it)) {
            assert!(is_set_up, "make {target} does not set up `build` before `{command}`");
            compile += 1;
        }
    }
    assert!(compile >= 6, "{compile} commands are known as compiling");
}

/// Ports, paths and times that several files must agree on.
#[test]
fn files_agree_with_each_other() {
    let grace_seconds = 30;
    assert!(read("config/bulkhead.toml").contains(&format!("shutdown_grace = \"{grace_seconds}s\"")));
    let numbers_after = |file: &str, key: &str| -> Vec<u32> {
        let text = read(file);
        let values = text.lines().filter_map(|line| line.trim().strip_prefix(key).map(ToOwned::to_owned));
        let digits = |value: String| value.chars().filter(char::is_ascii_digit).collect::<String>();
        values.map(|value| digits(value).parse().expect("a number")).collect()
    };
    for (file, key) in [
        ("config/systemd/bulkhead.service", "TimeoutStopSec="),
        ("config/kubernetes/deployment.yaml", "terminationGracePeriodSeconds:"),
        ("config/kubernetes/sidecar.yaml", "terminationGracePeriodSeconds:"),
        ("config/fly.toml", "kill_timeout ="),
        ("docker-compose.yml", "stop_grace_period:"),
    ] {
        let seconds = numbers_after(file, key);
        assert!(matches!(seconds[..], [one] if one > grace_seconds), "{file}: {key} {seconds:?}");
    }
    let compose = read("docker-compose.yml");
    let mounted = compose.lines().filter_map(|line| line.trim().strip_prefix("- ./")?.split(':').next());
    for path in mounted {
        assert!(root().join(path).exists(), "docker-compose.yml mounts {path}, which is not there");
    }
}
