//! `cargo xtask test`: the servers that the tests need, then `cargo test` on the workspace.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo;
use crate::servers::Servers;
use crate::stop::Stop;

/// What is typed after `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Start no servers: the FREEHOLD_TEST_* variables already say where they are
    #[arg(long)]
    no_servers: bool,
    /// Handed to `cargo test`; without -p it tests the whole workspace
    #[arg(value_name = "CARGO TEST ARGS", allow_hyphen_values = true, trailing_var_arg = true)]
    rest: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::ensure_tools()?;
    // Not `options.rest`: clap takes away the `--` that cargo must see.
    let rest = handed_over(std::env::args().skip(1));
    debug_assert!(options.rest.len() <= rest.len());
    let stop = Stop::on_signals()?;
    // Asked before the build, which may put another program in this one's place.
    let own = std::env::current_exe()?;
    let servers = (!options.no_servers).then(|| Servers::start(&stop)).transpose()?;

    let build = build_args(&rest);
    if !build.is_empty() {
        let build: Vec<&str> = build.iter().map(String::as_str).collect();
        cargo::build(&build, &stop)?;
    }
    let mut command = cargo::command();
    command.arg("test");
    if packages(&rest).is_empty() {
        command.arg("--workspace");
    }
    if !cargo_part(&rest).iter().any(|arg| arg == "--no-fail-fast") {
        // A failure in one crate hides no other's.
        command.arg("--no-fail-fast");
    }
    command.args(&rest).env("FREEHOLD_TEST_XTASK", own);
    if let Some(servers) = &servers {
        servers.export(&mut command);
    }
    let not_tried = tempfile::NamedTempFile::new()?;
    command.env("FREEHOLD_TEST_NOT_TRIED", not_tried.path());
    let status = cargo::run(&command, &stop)?;
    drop(servers);
    // In the end, where it is seen: what passed without being tried.
    for line in std::fs::read_to_string(not_tried.path())?.lines() {
        eprintln!("  Not tried {line}");
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// What follows `test` on the command line, less our own flag.
fn handed_over(args: impl Iterator<Item = String>) -> Vec<String> {
    args.skip_while(|arg| arg != "test").skip(1).skip_while(|arg| arg == "--no-servers").collect()
}

/// The arguments for cargo itself, not for the test binaries.
fn cargo_part(rest: &[String]) -> &[String] {
    let end = rest.iter().position(|arg| arg == "--").unwrap_or(rest.len());
    &rest[..end]
}

/// The packages that are named, as `-p a`, `-pa`, `--package a` or `--package=a`.
fn packages(rest: &[String]) -> Vec<String> {
    let args = cargo_part(rest);
    args.iter()
        .enumerate()
        .filter_map(|(index, arg)| match arg.as_str() {
            "-p" | "--package" => args.get(index + 1).cloned(),
            _ => arg.strip_prefix("--package=").or_else(|| arg.strip_prefix("-p")).map(str::to_owned),
        })
        .collect()
}

/// The binaries that end-to-end tests spawn are built first, with the same packages and targets as
/// the tests, so that no dependency is built twice with other features. Nothing to build when none
/// of the named packages spawns them.
fn build_args(rest: &[String]) -> Vec<String> {
    let named = packages(rest);
    let mut args: Vec<String> = if named.is_empty() {
        vec!["--workspace".into()]
    } else if named.iter().any(|name| name == "end-to-end" || name == "petstore") {
        // They start the planes and the client as anybody does.
        let all = named.into_iter().chain(["petstore".into(), "cli".into()]);
        all.flat_map(|name| ["-p".into(), name]).collect()
    } else {
        return Vec::new();
    };
    args.extend(["--bins".into(), "--tests".into()]);
    if cargo_part(rest).iter().any(|arg| arg == "--release" || arg == "-r") {
        args.push("--release".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_follows_test_is_handed_over_untouched() {
        let typed = words("test --no-servers -p tenancy slug -- --nocapture");
        assert_eq!(handed_over(typed.into_iter()), words("-p tenancy slug -- --nocapture"));
        assert_eq!(handed_over(words("test -- --nocapture").into_iter()), words("-- --nocapture"));
    }

    #[test]
    fn packages_are_found_however_they_are_named() {
        let typed = words("-p a --package b --package=c -pd -- -p e");
        assert_eq!(packages(&typed), words("a b c d"));
    }

    #[test]
    fn the_planes_are_built_for_whoever_spawns_them() {
        assert_eq!(build_args(&[]), words("--workspace --bins --tests"));
        assert_eq!(build_args(&words("-p xtask")), words(""));
        assert_eq!(
            build_args(&words("-p end-to-end --release")),
            words("-p end-to-end -p petstore -p cli --bins --tests --release")
        );
    }
}
