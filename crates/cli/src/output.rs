//! The answer on stdout, and what is said to a person on stderr. Neither panics when nobody reads any more.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Nobody reads stdout any more.
#[derive(Debug)]
pub(crate) struct ClosedOutput;

impl fmt::Display for ClosedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for ClosedOutput {}

/// In which form answers are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// The API's own JSON, for scripts.
    pub(crate) is_json: bool,
}

impl Output {
    /// Prints the document, or what `text` makes of it for people.
    pub(crate) fn show(self, document: &str, text: impl FnOnce() -> String) -> Result<()> {
        if self.is_json { print(document.trim_end()) } else { print(text().trim_end()) }
    }

    /// As [`Self::show`], of a document that was put together from several answers.
    pub(crate) fn show_all(self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        self.show(&serde_json::to_string(document)?, text)
    }

    /// What the API answers with nothing: a line for people.
    pub(crate) fn done(self, text: &str) -> Result<()> {
        if self.is_json { Ok(()) } else { print(text) }
    }
}

/// Writes a line, or several, to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClosedOutput.into()),
        written => written.context("could not write to stdout"),
    }
}

/// Says something to a person.
pub(crate) fn note(text: &str) {
    // Nobody to hear it is no failure.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// As it is printed in a line of its own: what a server or a database said may hold line breaks and escape codes.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// A moment of the API (RFC 3339, UTC) to the second.
pub(crate) fn moment(text: &str) -> String {
    match text.split_once('.') {
        Some((whole, rest)) if rest.ends_with('Z') => format!("{whole}Z"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_moves_no_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\r"), "a [2Jb c");
    }

    #[test]
    fn a_moment_is_told_to_the_second() {
        assert_eq!(moment("2026-11-24T14:34:39.584503Z"), "2026-11-24T14:34:39Z");
        assert_eq!(moment("2026-11-24T14:34:39Z"), "2026-11-24T14:34:39Z");
    }
}
