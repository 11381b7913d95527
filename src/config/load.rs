//! Finds the configuration: the file that is named, else the usual one, else the environment.
//!
//! Owns the reading of the file and its bound. Refuses to print: the caller shows a [`LoadError`] and exits.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    Config, DEFAULT_PATH, Environment, Problems, env,
    overrides::{Override, overridden},
    validate,
};

/// A longer file is not a configuration.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The file is longer than [`FILE_BYTES_MAX`].
    #[error("{} is longer than 1 MiB: not a configuration", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file is no text.
    #[error("{} is not UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// The content is wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
}

/// The configuration: of the file at `path`; without a path of [`DEFAULT_PATH`], if it exists; else of the
/// environment alone. `known_presets` are the job presets that the sql layer has.
pub fn load(
    path: Option<&Path>,
    environment: Environment<'_>,
    known_presets: &[&str],
) -> Result<Config, LoadError> {
    load_with(path, environment, known_presets, &[])
}

/// The same as [`load`], with other values of these keys, as if the file said so.
pub fn load_with(
    path: Option<&Path>,
    environment: Environment<'_>,
    known_presets: &[&str],
    overrides: &[Override],
) -> Result<Config, LoadError> {
    load_from(Path::new(""), path, environment, known_presets, overrides)
}

/// As [`load`], looking for [`DEFAULT_PATH`] in `folder` rather than where the process runs.
pub fn load_in(
    folder: &Path,
    path: Option<&Path>,
    environment: Environment<'_>,
    known_presets: &[&str],
) -> Result<Config, LoadError> {
    load_from(folder, path, environment, known_presets, &[])
}

fn load_from(
    folder: &Path,
    path: Option<&Path>,
    environment: Environment<'_>,
    known_presets: &[&str],
    overrides: &[Override],
) -> Result<Config, LoadError> {
    let usual = folder.join(DEFAULT_PATH);
    let path = path.or_else(|| usual.exists().then_some(&usual));
    let Some(path) = path else {
        return Ok(env::from_environment(environment, known_presets, overrides)?);
    };
    let text = overridden(read(path)?, overrides)?;
    Ok(validate::parse(&text, &path.display().to_string(), environment, known_presets)?)
}

fn read(path: &Path) -> Result<String, LoadError> {
    let unreadable = |error| LoadError::Unreadable { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLong { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| LoadError::NotUtf8 { path: path.to_owned() })
}
