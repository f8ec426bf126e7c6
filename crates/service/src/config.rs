//! Configuration: defaults < file < `FREEHOLD_*` environment < `--set` flags.
//!
//! An unknown key is an error that names it, and so is a field with a bad value. The process's
//! environment is read in [`load`] alone; tests pass their own to [`load_from`].

mod overlay;
mod sections;

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser};
use figment::{
    Figment,
    error::Kind,
    providers::{Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};

use overlay::{Overlay, overlay_flags, overlay_variables};
pub use sections::{LifecycleConfig, ListenConfig, LogFormat, Sections, TelemetryConfig};

/// Checks of values that their types cannot express.
pub trait Validate {
    /// Names the first bad field.
    fn validate(&self) -> Result<(), Invalid>;
}

/// A field whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct Invalid {
    /// The field's key, `listen.address`.
    pub field: String,
    /// What is wrong, to be read after the field's name: "must be at least 1".
    pub reason: String,
}

impl Invalid {
    /// A bad field; the reason is read after its name.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The same field, seen from the section around it.
    pub fn within(self, section: &str) -> Self {
        Self { field: format!("{section}.{}", self.field), reason: self.reason }
    }
}

/// Why there is no configuration; its text is for the person who starts the process.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line was not understood, or asked for help or the version.
    #[error("{0}")]
    CommandLine(#[from] clap::Error),
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    File {
        /// The file that was named.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A `--set` flag that is not `section.key=value`.
    #[error("`--set {0}` is not understood; write --set section.key=value")]
    Flag(String),
    /// A key that nothing reads.
    #[error("unknown configuration key `{key}` in {origin}{}", expected_one_of(expected))]
    UnknownKey {
        /// The whole key, `listen.adress`.
        key: String,
        /// Where it was set.
        origin: String,
        /// The keys that would be understood there.
        expected: Vec<String>,
    },
    /// A value of another type or form than the field's.
    #[error("configuration key `{key}` in {origin}: {reason}")]
    Value {
        /// The whole key.
        key: String,
        /// Where it was set.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A value that [`Validate`] refused.
    #[error("configuration key {0}")]
    Invalid(#[from] Invalid),
}

fn expected_one_of(expected: &[String]) -> String {
    if expected.is_empty() {
        return String::new();
    }
    format!("; known there: {}", expected.join(", "))
}

/// A flag of a program's own, for one start. It is no part of the configuration, so that no file leaves it on.
#[derive(Debug, Clone, Copy)]
pub struct Switch {
    /// What is typed after `--`.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
}

#[derive(Debug, Parser)]
struct Flags {
    /// Configuration file in TOML [env: FREEHOLD_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one configuration key, over file and environment; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Loads the configuration of the program `name` from the command line's `args` (the program's own
/// name first, as [`std::env::args_os`] gives them), the file that it names and the environment;
/// answers with it which of the program's `switches` were given.
pub fn load<C>(
    name: &'static str,
    switches: &[Switch],
    args: impl IntoIterator<Item = OsString>,
) -> Result<(C, BTreeSet<&'static str>), ConfigError>
where
    C: Default + Serialize + DeserializeOwned + Validate,
{
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    read(name, switches, args, environment)
}

/// As [`load`], with an environment of its own.
///
/// `FREEHOLD_CONFIG` names the file unless `--config` does, and `FREEHOLD_SECTION__KEY` sets
/// `section.key`; other variables are not read. Fields without a serialised default (secrets, with
/// `#[serde(skip_serializing)]`) need a `#[serde(default)]` or are asked for by name.
pub fn load_from<C>(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<C, ConfigError>
where
    C: Default + Serialize + DeserializeOwned + Validate,
{
    Ok(read(name, &[], args, environment)?.0)
}

fn read<C>(
    name: &'static str,
    switches: &[Switch],
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(C, BTreeSet<&'static str>), ConfigError>
where
    C: Default + Serialize + DeserializeOwned + Validate,
{
    let own = switches.iter().map(|it| Arg::new(it.name).long(it.name).help(it.help).action(ArgAction::SetTrue));
    let matches = Flags::command().name(name).args(own).try_get_matches_from(args)?;
    let flags = Flags::from_arg_matches(&matches)?;
    let given = switches.iter().map(|it| it.name).filter(|name| matches.get_flag(name)).collect();
    let environment: Vec<(String, String)> = environment.into_iter().collect();

    let mut figment = Figment::from(Serialized::defaults(C::default()));
    if let Some(path) = flags.config.or_else(|| file_of(&environment)) {
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path: path.clone(), source })?;
        let origin = format!("the file {}", path.display());
        figment = figment.merge(overlay::Named { origin, provider: Toml::string(&text) });
    }
    let mut overlays = overlay_variables(&environment);
    overlays.extend(overlay_flags(&flags.set)?);

    let config: C = extract(&figment, overlays)?;
    config.validate()?;
    Ok((config, given))
}

fn file_of(environment: &[(String, String)]) -> Option<PathBuf> {
    environment
        .iter()
        .find(|(name, value)| name == "FREEHOLD_CONFIG" && !value.is_empty())
        .map(|(_, value)| PathBuf::from(value))
}

/// Values of variables and flags are text and carry no type: each is first read as what it looks
/// like, and as plain text if the field wanted that (a token of digits).
fn extract<C: DeserializeOwned>(base: &Figment, mut overlays: Vec<Overlay>) -> Result<C, ConfigError> {
    loop {
        let figment = overlays.iter().cloned().fold(base.clone(), Figment::merge);
        let error = match figment.extract::<C>() {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        let key = error.path.join(".");
        let guess = overlays.iter_mut().rev().find(|overlay| overlay.key == key);
        match guess {
            // Each round turns one guess into text, so that the loop ends.
            Some(overlay) if overlay.is_guess() => overlay.take_as_text(),
            _ => return Err(explain(error)),
        }
    }
}

fn explain(error: figment::Error) -> ConfigError {
    let origin =
        error.metadata.as_ref().map_or_else(|| "the configuration".to_owned(), |metadata| metadata.name.to_string());
    let mut path = error.path;
    match error.kind {
        Kind::UnknownField(field, expected) => {
            if path.last() != Some(&field) {
                path.push(field);
            }
            let expected = expected.iter().map(|&name| name.to_owned()).collect();
            ConfigError::UnknownKey { key: path.join("."), origin, expected }
        }
        Kind::MissingField(field) => {
            path.push(field.into_owned());
            let reason = "is missing; it has no default and must be set".to_owned();
            ConfigError::Value { key: path.join("."), origin, reason }
        }
        // The value itself stays out of the text: it may be a secret in a wrong place.
        Kind::InvalidType(actual, expected) => {
            let reason = format!("expected {expected}, found {}", kind_of(&actual));
            ConfigError::Value { key: path.join("."), origin, reason }
        }
        kind => ConfigError::Value { key: path.join("."), origin, reason: kind.to_string() },
    }
}

fn kind_of(actual: &figment::error::Actual) -> &'static str {
    use figment::error::Actual;
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Char(_) | Actual::Str(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a section",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests;
