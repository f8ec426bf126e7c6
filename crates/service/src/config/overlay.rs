//! The two sources that set one key at a time: environment variables and `--set` flags.
//!
//! Each value remembers where it was set, so that an error names the variable or the flag.

use figment::{
    Error, Metadata, Profile, Provider,
    util::nest,
    value::{Dict, Map, Value},
};

use super::ConfigError;

/// One key set to one value.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    /// The whole key, `section.key`.
    pub(super) key: String,
    origin: String,
    text: String,
    value: Value,
}

impl Overlay {
    fn new(key: String, origin: String, text: &str) -> Self {
        let value = text.parse().unwrap_or_else(|never| match never {});
        Self { key, origin, text: text.to_owned(), value }
    }

    /// Whether the text was taken for something else than text.
    pub(super) fn is_guess(&self) -> bool {
        self.value.as_str() != Some(self.text.as_str())
    }

    pub(super) fn take_as_text(&mut self) {
        self.value = Value::from(self.text.as_str());
    }
}

impl Provider for Overlay {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let dict = nest(&self.key, self.value.clone()).into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

/// `FREEHOLD_SECTION__KEY=value`. A name without `__` is no key of the configuration: such
/// variables belong to other programs (`FREEHOLD_URL`, `FREEHOLD_TOKEN`).
pub(super) fn overlay_variables(environment: &[(String, String)]) -> Vec<Overlay> {
    environment
        .iter()
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("FREEHOLD_").filter(|key| key.contains("__"))?;
            let key = key.to_lowercase().replace("__", ".");
            Some(Overlay::new(key, format!("the environment variable {name}"), value))
        })
        .collect()
}

/// `--set section.key=value`.
pub(super) fn overlay_flags(flags: &[String]) -> Result<Vec<Overlay>, ConfigError> {
    flags
        .iter()
        .map(|flag| match flag.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Overlay::new(key.to_owned(), format!("the flag --set {key}"), value))
            }
            _ => Err(ConfigError::Flag(flag.clone())),
        })
        .collect()
}

/// A provider under a name that errors can show.
pub(super) struct Named<P> {
    pub(super) origin: String,
    pub(super) provider: P,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        self.provider.data()
    }
}
