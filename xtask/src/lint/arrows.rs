//! The arrows of the house: which crate may import which. They run down only, and the planes never
//! import each other. Read from the manifests, with dev and build dependencies like the others.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Finding, Tree};

/// Every crate of the house and what it may import of it. `None`: anything.
const MAY_IMPORT: [(&str, Option<&[&str]>); 10] = [
    ("service", Some(&[])),
    ("tenancy", Some(&["service"])),
    ("registry-migrations", Some(&[])),
    ("tenant-migrations", Some(&[])),
    ("control-plane", Some(&["service", "tenancy", "registry-migrations"])),
    ("data-plane", Some(&["service", "tenancy"])),
    ("petstore", Some(&["service", "tenancy", "control-plane", "data-plane", "tenant-migrations"])),
    // A client of the API, which runs where no plane does; it verifies the audit trail by itself.
    ("cli", Some(&["tenancy"])),
    // Must build in seconds, and when the house does not.
    ("xtask", Some(&[])),
    ("end-to-end", None),
];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let crates: Vec<Manifest<'_>> = tree
        .files()
        .filter(|(path, _)| path.ends_with("Cargo.toml"))
        .filter_map(|(path, text)| Manifest::read(path, text, findings))
        .collect();
    let members: BTreeSet<&str> = crates.iter().map(|it| it.name.as_str()).collect();
    let rules: BTreeMap<_, _> = MAY_IMPORT.into_iter().collect();

    for it in &crates {
        if !it.inherits_lints {
            let what = "does not inherit the workspace's lints: add `[lints] workspace = true`";
            findings.push(Finding::new(it.path, 0, what));
        }
        let Some(rule) = rules.get(it.name.as_str()) else {
            let what = format!(
                "crate `{}` is not on the map of arrows: say in xtask/src/lint/arrows.rs what it may import",
                it.name
            );
            findings.push(Finding::new(it.path, 0, what));
            continue;
        };
        let Some(allowed) = rule else { continue };
        for import in it.imports.iter().map(String::as_str) {
            if members.contains(import) && import != it.name && !allowed.contains(&import) {
                let what = format!("`{}` must not import `{import}`: arrows run down only", it.name);
                findings.push(Finding::new(it.path, 0, what));
            }
        }
    }
}

/// What a manifest says that the rules ask for.
struct Manifest<'a> {
    path: &'a str,
    name: String,
    imports: BTreeSet<String>,
    inherits_lints: bool,
}

impl<'a> Manifest<'a> {
    /// None for a virtual manifest and for what is a workspace of its own, which others build; and, with a finding, for one
    /// that cannot be read.
    fn read(path: &'a str, text: &str, findings: &mut Vec<Finding>) -> Option<Self> {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                findings.push(Finding::new(path, 0, format!("is no TOML: {error}")));
                return None;
            }
        };
        if table.contains_key("workspace") {
            return None;
        }
        let name = table.get("package")?.get("name")?.as_str()?.to_owned();
        let inherits_lints =
            table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool).unwrap_or(false);
        let mut imports = BTreeSet::new();
        collect_imports(&table, &mut imports);
        let targets = table.get("target").and_then(toml::Value::as_table);
        for target in targets.into_iter().flat_map(toml::Table::values) {
            target.as_table().inspect(|table| collect_imports(table, &mut imports));
        }
        Some(Self { path, name, imports, inherits_lints })
    }
}

fn collect_imports(table: &toml::Table, imports: &mut BTreeSet<String>) {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let listed = table.get(kind).and_then(toml::Value::as_table);
        for (key, value) in listed.into_iter().flatten() {
            // A renamed import is still one.
            let renamed = value.get("package").and_then(toml::Value::as_str);
            imports.insert(renamed.unwrap_or(key).to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    fn findings(manifests: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<(String, String)> =
            manifests.iter().map(|(name, rest)| (format!("crates/{name}/Cargo.toml"), manifest(name, rest))).collect();
        let files: Vec<(&str, &str)> = texts.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        let mut findings = Vec::new();
        check(&Tree::of(&files), &mut findings);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arrows_down_are_fine() {
        let found = findings(&[
            ("service", "[dependencies]\nserde = \"1\""),
            ("tenancy", "[dependencies]\nservice.workspace = true"),
            ("data-plane", "[dependencies]\ntenancy.workspace = true"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn every_kind_of_arrow_up_or_across_is_found() {
        let found = findings(&[
            ("service", "[dependencies]\ntenancy.workspace = true"),
            ("tenancy", "[dev-dependencies]\ncontrol-plane.workspace = true"),
            ("control-plane", "[build-dependencies]\ndp = { package = \"data-plane\", path = \"..\" }"),
            ("data-plane", "[target.'cfg(unix)'.dependencies]\ntenant-migrations.workspace = true"),
            ("tenant-migrations", ""),
            ("xtask", "[dependencies]\nservice.workspace = true"),
        ]);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[2].contains("`service` must not import `tenancy`"), "{found:?}");
    }

    #[test]
    fn lints_that_are_not_inherited_and_crates_without_a_rule_are_found() {
        let tree = Tree::of(&[("crates/new/Cargo.toml", "[package]\nname = \"new\"\n")]);
        let mut found = Vec::new();
        check(&tree, &mut found);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
