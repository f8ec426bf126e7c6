//! The rules of the house that no compiler knows. Lists all that it finds, not the first.

use super::arrows;
use super::code;
use super::tree::{Finding, Tree};

/// A file past this wants to be two rooms.
const LONGEST: usize = 400;

/// The line that excuses a longer one, with its reason behind it.
const LONG_BECAUSE: &str = "// tidy: long because ";

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "type", "types", "util", "utils"];

/// Where somebody's machine begins. In two parts, so that this file passes its own rule.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/", "work"), concat!("/", "root"), concat!("/", "home/"), concat!("/", "Users/")];

/// Where the packages of a lock file come from: the public index, and nobody's mirror of it.
const PUBLIC_INDEX: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Sorted by path and line.
pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    arrows::check(tree, &mut findings);
    for (path, text) in tree.files() {
        if std::path::Path::new(path).extension() == Some("rs".as_ref()) {
            says_what_it_is_for(path, text, &mut findings);
            is_not_long(path, text, &mut findings);
            does_not_give_up(path, text, &mut findings);
        }
        is_named_after_something(path, &mut findings);
        knows_no_machine(path, text, &mut findings);
        comes_from_the_public_index(path, text, &mut findings);
    }
    findings.sort();
    findings
}

fn says_what_it_is_for(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if !text.starts_with("//! ") {
        let what = "open with `//!`: what this room is for, and what never happens in it";
        findings.push(Finding::new(path, 1, what));
    }
}

fn is_not_long(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let lines = text.lines().count();
    let is_excused = text.lines().any(|line| line.trim().strip_prefix(LONG_BECAUSE).is_some_and(|why| !why.is_empty()));
    if lines > LONGEST && !is_excused {
        let what = format!("{lines} lines: a file past {LONGEST} wants to be two rooms, or says `{LONG_BECAUSE}…`");
        findings.push(Finding::new(path, 0, what));
    }
}

fn does_not_give_up(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if is_test(path) {
        return;
    }
    let code = code::without_text(text);
    let end = code::tests_begin(&code).unwrap_or(usize::MAX);
    for (index, line) in code.lines().enumerate().take(end) {
        for (call, instead) in [
            (".unwrap()", "return the error, or `expect(\"why it cannot fail\")`"),
            ("todo!", "finish it"),
            ("unimplemented!", "finish it"),
        ] {
            if line.contains(call) {
                findings.push(Finding::new(path, index + 1, format!("`{call}` outside tests: {instead}")));
            }
        }
    }
}

/// The `tests` package and integration tests, and modules of tests in files of their own.
fn is_test(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    parts.contains(&"tests") || parts.last() == Some(&"tests.rs")
}

fn is_named_after_something(path: &str, findings: &mut Vec<Finding>) {
    let named = path.split('/').find(|part| {
        let stem = part.strip_suffix(".rs").unwrap_or(part);
        EMPTY_NAMES.contains(&stem)
    });
    if let Some(name) = named {
        let what = format!("`{name}` says nothing: name it after the step or the word it is about");
        findings.push(Finding::new(path, 0, what));
    }
}

fn knows_no_machine(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        for machine_path in MACHINE_PATHS {
            if names_path(line, machine_path) {
                let what = format!("`{machine_path}` is a path of somebody's machine");
                findings.push(Finding::new(path, index + 1, what));
            }
        }
    }
}

/// Whether the line has this absolute path, and not as a part of a relative one or of a URL.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let begins = line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !".-_/~}>*".contains(c));
        let ends = path.ends_with('/')
            || line[at + path.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric() && !"-_.".contains(c));
        begins && ends
    })
}

fn comes_from_the_public_index(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let is_lock = path.ends_with("Cargo.lock");
    let is_config = path.contains(".cargo/config");
    for (index, line) in text.lines().enumerate() {
        let source = line.trim().strip_prefix("source = ").filter(|_| is_lock);
        let is_foreign = source.is_some_and(|it| !it.contains(PUBLIC_INDEX))
            || is_config && ["[source.", "[registries.", "replace-with"].iter().any(|it| line.contains(it));
        if is_foreign {
            let what = "packages come from the public crates.io, and from no mirror that others cannot reach";
            findings.push(Finding::new(path, index + 1, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        findings(&Tree::of(files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tidy_tree_has_no_findings() {
        let long = format!("//! Room.\n// tidy: long because it is a table.\n{}", "\n".repeat(500));
        let found = found(&[
            (
                "crates/a/src/lib.rs",
                "//! Room.\n\n// never .unwrap() here, nor todo!\nfn f(r#type: u8) {}\n#[cfg(test)]\nmod tests { fn t() { f().unwrap(); } }\n",
            ),
            ("crates/a/src/table.rs", &long),
            ("tests/src/lib.rs", "//! Tests.\nfn t() { f().unwrap(); }\n"),
            ("README.md", "see https://example.org/root and ../work/x, `framework/work`, GET {base}/work"),
            ("Cargo.lock", &format!("source = \"{PUBLIC_INDEX}\"\n")),
        ]);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_found() {
        assert_eq!(found(&[("a.rs", "use std::fs;\n"), ("b.rs", "")]).len(), 2);
    }

    #[test]
    fn a_long_file_without_a_reason_is_found() {
        let long = format!("//! Room.\n// tidy: long because \n{}", "\n".repeat(400));
        assert_eq!(found(&[("a.rs", &long)]).len(), 1);
        let just = format!("//! Room.\n{}", "\n".repeat(399));
        assert!(found(&[("a.rs", &just)]).is_empty());
    }

    #[test]
    fn a_name_that_says_nothing_is_found_for_files_and_folders() {
        let text = "//! Room.\n";
        assert_eq!(found(&[("src/utils.rs", text), ("src/common/lease.rs", text)]).len(), 2);
    }

    #[test]
    fn giving_up_outside_tests_is_found_on_its_line() {
        let text = "//! Room.\nfn f() { g().unwrap(); }\nfn g() { todo!() }\n";
        let found = found(&[("src/lib.rs", text)]);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("src/lib.rs:2: `.unwrap()`"), "{found:#?}");
    }

    #[test]
    fn a_path_of_somebodys_machine_is_found() {
        for line in ["cd @work/x", "\"@root\"", "=@root/.cargo", "@home/me/x", "(@work)"] {
            let line = line.replace('@', "/");
            assert_eq!(found(&[("notes.md", &line)]).len(), 1, "{line}");
        }
    }

    #[test]
    fn a_mirror_is_found_in_the_lock_file_and_in_the_configuration() {
        let lock = "source = \"registry+https://mirror.example.org/index\"\n";
        let config = "[source.crates-io]\nreplace-with = \"mirror\"\n";
        assert_eq!(found(&[("Cargo.lock", lock), (".cargo/config.toml", config)]).len(), 3);
    }

    #[test]
    fn findings_of_every_rule_are_listed_together() {
        let manifest = "[package]\nname = \"service\"\n[dependencies]\nservice.path = \".\"\n";
        let found = found(&[("crates/service/Cargo.toml", manifest), ("src/helpers.rs", "fn f() { g().unwrap(); }\n")]);
        assert_eq!(found.len(), 4, "{found:#?}");
    }
}
