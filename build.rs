//! Tells `src/version.rs` what is built. Needs neither git nor a checkout, and adds no library.
//!
//! The commit is looked up in release builds only: a debug build that knew it would have to be built again after
//! every commit.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BULKHEAD_COMMIT");
    let given = env::var("BULKHEAD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| release.then(commit).flatten()).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BULKHEAD_COMMIT={commit}");
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = output(&rustc, &["--version"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BULKHEAD_RUSTC={version}");
    let target = env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=BULKHEAD_TARGET={target}");
}

/// The commit of the checkout that this package is the root of. A tarball that was unpacked inside somebody else's
/// checkout is not one.
fn commit() -> Option<String> {
    let root = output("git", &["rev-parse", "--show-toplevel"])?;
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&root).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // What moves with a commit or a checkout; a file that does not exist would make every build a new one.
    let branch = output("git", &["symbolic-ref", "-q", "HEAD"]).unwrap_or_default();
    for file in ["HEAD", branch.as_str(), "packed-refs"].into_iter().filter(|file| !file.is_empty()) {
        let path = output("git", &["rev-parse", "--git-path", file]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
