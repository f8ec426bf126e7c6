//! The texts that tidy looks at: what is committed or would be, by path from the root.
//!
//! Nothing here judges; tests make trees of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// Text files by their path, with `/` between its parts.
#[derive(Default)]
pub(super) struct Tree {
    files: BTreeMap<String, String>,
}

/// One thing to repair.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    pub(super) path: String,
    /// Counted from 1; 0 is the file as a whole.
    pub(super) line: usize,
    pub(super) what: String,
}

impl Tree {
    /// Asks git, so that what it ignores is ignored; without git, walks.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .ok()
            .filter(|output| output.status.success());
        let paths: Vec<String> = match listed {
            Some(output) => String::from_utf8_lossy(&output.stdout)
                .split('\0')
                .filter(|path| !path.is_empty())
                .map(str::to_owned)
                .collect(),
            None => walk(root)?,
        };
        let files = paths
            .into_iter()
            // A file that was deleted but not yet committed, or one that is no text.
            .filter_map(|path| {
                let text = std::fs::read_to_string(root.join(&path)).ok()?;
                Some((path, text))
            })
            .collect();
        Ok(Self { files })
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { files }
    }
}

impl Finding {
    pub(super) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

fn walk(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let is_ours = ![".git", "target", ".freehold"].iter().any(|it| name == *it);
            let kind = entry.file_type()?;
            if kind.is_dir() && is_ours {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(path) = entry.path().strip_prefix(root)
            {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}
