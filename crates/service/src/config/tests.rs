//! What a person who configures a service sees.

use std::io::Write;

use serde::Deserialize;

use super::*;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plane {
    listen: ListenConfig,
    telemetry: TelemetryConfig,
    lifecycle: LifecycleConfig,
    tokens: Tokens,
    #[serde(default)]
    servers: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tokens {
    #[serde(skip_serializing)]
    node: String,
    keys: std::collections::BTreeMap<String, String>,
    region: Option<String>,
}

impl Default for Plane {
    fn default() -> Self {
        Self {
            listen: ListenConfig::local(8700, 8701),
            telemetry: TelemetryConfig::default(),
            lifecycle: LifecycleConfig::default(),
            tokens: Tokens::default(),
            servers: vec!["one".to_owned()],
        }
    }
}

impl Validate for Plane {
    fn validate(&self) -> Result<(), Invalid> {
        self.listen.validate().map_err(|invalid| invalid.within("listen"))?;
        self.telemetry.validate().map_err(|invalid| invalid.within("telemetry"))?;
        self.lifecycle.validate().map_err(|invalid| invalid.within("lifecycle"))
    }
}

fn loaded(args: &[&str], environment: &[(&str, &str)]) -> Result<Plane, ConfigError> {
    let args = std::iter::once("plane").chain(args.iter().copied()).map(OsString::from);
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    load_from("plane", args, environment)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn defaults_yield_to_the_file_the_file_to_variables_and_those_to_flags() {
    let file = file("[listen]\naddress = \"127.0.0.1:1\"\n[lifecycle]\ndrain_seconds = 1\n");
    let path = file.path().to_str().unwrap();

    let config = loaded(&[], &[]).unwrap();
    assert_eq!((config.listen.address.port(), config.lifecycle.drain_seconds), (8700, 20));

    let config = loaded(&["--config", path], &[]).unwrap();
    assert_eq!((config.listen.address.port(), config.lifecycle.drain_seconds), (1, 1));
    assert_eq!(config.listen.ops_address.port(), 8701, "a file may set one key of a section");

    let environment = [
        ("FREEHOLD_CONFIG", path),
        ("FREEHOLD_LISTEN__ADDRESS", "127.0.0.1:2"),
        ("FREEHOLD_LIFECYCLE__DRAIN_SECONDS", "2"),
        ("FREEHOLD_TOKEN", "of another program"),
    ];
    let config = loaded(&[], &environment).unwrap();
    assert_eq!((config.listen.address.port(), config.lifecycle.drain_seconds), (2, 2));

    let config = loaded(&["--set", "lifecycle.drain_seconds=3"], &environment).unwrap();
    assert_eq!((config.listen.address.port(), config.lifecycle.drain_seconds), (2, 3));
}

#[test]
fn an_unknown_key_is_named_with_its_origin() {
    let file = file("[listen]\nadress = \"127.0.0.1:1\"\n");
    let path = file.path().to_str().unwrap();
    let error = loaded(&["--config", path], &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "unknown configuration key `listen.adress` in the file {path}; known there: address, \
             ops_address, proxies"
        )
    );
    let error = loaded(&[], &[("FREEHOLD_LISTEN__ADRESS", "x")]).unwrap_err().to_string();
    assert!(error.contains("`listen.adress` in the environment variable FREEHOLD_LISTEN__ADRESS"));
    let error = loaded(&["--set", "lisen.address=x"], &[]).unwrap_err().to_string();
    assert!(error.contains("`lisen` in the flag --set lisen.address"), "{error}");
}

#[test]
fn a_bad_field_is_named_without_its_value() {
    let error = loaded(&["--set", "lifecycle.drain_seconds=soon"], &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "configuration key `lifecycle.drain_seconds` in the flag --set lifecycle.drain_seconds: \
         expected u64, found text"
    );
    let error = loaded(&["--set", "lifecycle.drain_seconds=9999"], &[]).unwrap_err().to_string();
    assert_eq!(error, "configuration key `lifecycle.drain_seconds` must be at most 3600");
    let error = loaded(&["--set", "telemetry.filter=a=b=c"], &[]).unwrap_err().to_string();
    assert!(error.starts_with("configuration key `telemetry.filter` is no list"), "{error}");
    let error = loaded(&["--set", "listen.address=here"], &[]).unwrap_err().to_string();
    assert!(error.contains("`listen.address` in the flag --set listen.address"), "{error}");
}

#[test]
fn text_that_looks_like_a_number_stays_text_where_text_is_wanted() {
    let environment =
        [("FREEHOLD_TOKENS__NODE", "007"), ("FREEHOLD_TOKENS__KEYS__K1", "1e5"), ("FREEHOLD_TOKENS__REGION", "true")];
    let config = loaded(&["--set", "servers=[a, b]"], &environment).unwrap();
    assert_eq!(config.tokens.node, "007");
    assert_eq!(config.tokens.keys["k1"], "1e5");
    assert_eq!(config.tokens.region.as_deref(), Some("true"));
    assert_eq!(config.servers, ["a", "b"]);
}

#[test]
fn a_missing_file_and_a_flag_without_value_say_what_to_do() {
    let error = loaded(&["--config", "/nowhere/x.toml"], &[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration file /nowhere/x.toml"), "{error}");
    let error = loaded(&["--set", "nothing"], &[]).unwrap_err().to_string();
    assert!(error.contains("write --set section.key=value"), "{error}");
}

#[test]
fn a_programs_own_flag_is_given_or_not_shown_by_help_and_set_by_nothing_else() {
    const SWITCHES: &[Switch] = &[Switch { name: "afresh", help: "Begins anew" }];
    let loaded = |args: &[&str], environment: &[(&str, &str)]| {
        let args = std::iter::once("plane").chain(args.iter().copied()).map(OsString::from);
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        read::<Plane>("plane", SWITCHES, args, environment)
    };
    assert!(loaded(&["--afresh"], &[]).unwrap().1.contains("afresh"));
    assert!(loaded(&[], &[("FREEHOLD_AFRESH", "true")]).unwrap().1.is_empty());
    let help = loaded(&["--help"], &[]).unwrap_err().to_string();
    assert!(help.contains("--afresh") && help.contains("Begins anew"), "{help}");
    assert!(matches!(loaded(&["--restored"], &[]), Err(ConfigError::CommandLine(_))), "another program's");
}
