//! Invariant 13: the trail is append-only in chains with signed checkpoints, and `freehold audit verify` finds any change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait as _;
use serde_json::json;

use crate::bed::{Bed, PATIENCE};
use crate::on_both;
use crate::process::folder;

/// `freehold` with a control plane, or with none.
async fn freehold(bed: Option<&Bed>, arguments: &[&str]) -> Output {
    let mut command = Command::new(folder().join("freehold"));
    command.args(arguments).env_remove("FREEHOLD_URL").env_remove("FREEHOLD_TOKEN");
    if let Some(bed) = bed {
        command.env("FREEHOLD_URL", &bed.control[0].url).env("FREEHOLD_TOKEN", &bed.token);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// An exported trail, and the public key that was kept.
struct Trail {
    file: PathBuf,
    key: String,
}

impl Trail {
    async fn export(bed: &Bed, name: &str) -> Self {
        let key = String::from_utf8(freehold(Some(bed), &["audit", "key"]).await.stdout).unwrap();
        let file = bed.folder.path().join(name);
        let written = freehold(Some(bed), &["audit", "export", "--output", file.to_str().unwrap()]).await;
        assert!(written.status.success(), "{written:?}");
        Self { file, key: key.trim().to_owned() }
    }

    /// What verifying this file says, without any control plane.
    async fn verify(&self, file: &Path, held: Option<&Path>) -> Result<String, String> {
        let mut arguments = vec!["audit", "verify", file.to_str().unwrap(), "--public-key", &self.key];
        if let Some(held) = held {
            arguments.extend(["--held", held.to_str().unwrap()]);
        }
        let said = freehold(None, &arguments).await;
        if said.status.success() {
            Ok(String::from_utf8(said.stdout).unwrap())
        } else {
            assert_eq!(said.status.code(), Some(1), "{said:?}");
            Err(String::from_utf8(said.stderr).unwrap())
        }
    }
}

/// Until every record has a checkpoint behind it.
async fn until_signed(bed: &Bed) {
    let deadline = Instant::now() + PATIENCE;
    while bed.registry_number("SELECT count(*) FROM audit_chains WHERE signed < seq").await > 0 {
        assert!(Instant::now() < deadline, "no checkpoint comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn work(bed: &Bed) {
    for round in 0..3 {
        bed.done("PATCH", "/v1/tenants/acme", Some(json!({ "name": format!("Acme {round}") }))).await;
        bed.done("POST", "/v1/tenants/acme/suspend", None).await;
        bed.done("POST", "/v1/tenants/acme/resume", None).await;
    }
}

on_both!(the_verifier_names_what_was_changed_removed_inserted_or_reordered_in_a_file, 1, 0);
async fn the_verifier_names_what_was_changed_removed_inserted_or_reordered_in_a_file(bed: Bed) {
    let acme = bed.tenant("acme").await;
    work(&bed).await;
    until_signed(&bed).await;
    let trail = Trail::export(&bed, "trail.jsonl").await;
    let said = trail.verify(&trail.file, None).await.unwrap();
    assert!(said.contains("in 2 chains are what they were"), "{said}");

    let text = fs::read_to_string(&trail.file).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = |seq: u64| {
        let begins = format!("{{\"record\":{{\"chain\":\"{}\",\"seq\":{seq},", acme.id);
        lines.iter().position(|line| line.starts_with(&begins)).unwrap()
    };
    let five = format!("5 of chain {}", acme.id);
    let mut changed = lines.clone();
    changed[at(5)] = changed[at(5)].replace("\"actor\":\"tests\"", "\"actor\":\"other\"");
    assert_ne!(changed, lines);
    let mut removed = lines.clone();
    removed.remove(at(5));
    let mut inserted = lines.clone();
    inserted.insert(at(5), lines[at(5)].replace("\"actor\":\"tests\"", "\"actor\":\"other\""));
    let mut doubled = lines.clone();
    doubled.insert(at(5), lines[at(5)].clone());
    let mut reordered = lines.clone();
    reordered.swap(at(5), at(7));
    let mut unsigned = lines.clone();
    let checkpoint = lines.iter().position(|line| line.starts_with("{\"checkpoint\"")).unwrap();
    unsigned[checkpoint] = unsigned[checkpoint].replace("\"seq\":", "\"seq\":1");
    for (lines, says) in [
        (changed, format!("record {five} was changed")),
        (removed, format!("record {five} was removed")),
        (inserted, format!("a record {five} was inserted")),
        (doubled, format!("a record {five} was inserted")),
        (reordered, format!("record {five} was reordered")),
        (unsigned, "is not signed by its key".to_owned()),
    ] {
        let other = bed.folder.path().join("tampered.jsonl");
        fs::write(&other, lines.join("\n") + "\n").unwrap();
        let said = trail.verify(&other, None).await.unwrap_err();
        assert!(said.contains(&says), "{says}: {said}");
    }
    // The end cut off, with its checkpoints: found by those who kept an earlier one.
    let own = format!("{{\"record\":{{\"chain\":\"{}\"", acme.id);
    let is_left =
        |(line, text): &(usize, &String)| text.starts_with("{\"record\"") && (!text.starts_with(&own) || *line < at(8));
    let cut: Vec<_> = lines.iter().enumerate().filter(is_left).map(|(_, text)| text.clone()).collect();
    let short = bed.folder.path().join("cut.jsonl");
    fs::write(&short, cut.join("\n") + "\n").unwrap();
    let said = trail.verify(&short, Some(&trail.file)).await.unwrap_err();
    assert!(said.contains(&format!("record 8 of chain {} was removed", acme.id)), "{said}");
    // Another's key proves nothing.
    let other = Trail { key: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(), file: trail.file.clone() };
    assert!(other.verify(&trail.file, None).await.unwrap_err().contains("was not given"));
}

on_both!(the_verifier_finds_what_was_altered_in_the_registry, 1, 0);
async fn the_verifier_finds_what_was_altered_in_the_registry(bed: Bed) {
    let acme = bed.tenant("acme").await;
    work(&bed).await;
    until_signed(&bed).await;
    let before = Trail::export(&bed, "before.jsonl").await;
    let registry = bed.registry().await;
    let chain = &acme.id;
    for (sql, says) in [
        (
            format!(
                "UPDATE audit SET payload = replace(payload, 'tests', 'other') WHERE chain = '{chain}' AND seq = 4"
            ),
            format!("record 4 of chain {chain} was changed"),
        ),
        (
            format!("DELETE FROM audit WHERE chain = '{chain}' AND seq = 3"),
            format!("record 3 of chain {chain} was removed"),
        ),
        (format!("UPDATE audit SET seq = 1000 - seq WHERE chain = '{chain}'"), format!("chain {chain} was removed")),
        (format!("DELETE FROM audit WHERE chain = '{chain}'"), format!("record 1 of chain {chain} was removed")),
    ] {
        registry.execute_unprepared(&sql).await.unwrap();
        let after = Trail::export(&bed, "after.jsonl").await;
        let said = before.verify(&after.file, None).await.unwrap_err();
        assert!(said.contains(&says), "{sql}: {said}");
    }
    registry.execute_unprepared(&format!("DELETE FROM audit_checkpoints WHERE chain = '{chain}'")).await.unwrap();
    let after = Trail::export(&bed, "after.jsonl").await;
    assert!(before.verify(&after.file, None).await.is_ok(), "nothing is left that tells of the chain");
    let said = before.verify(&after.file, Some(&before.file)).await.unwrap_err();
    assert!(said.contains(&format!("record 1 of chain {chain} was removed")), "who kept a checkpoint knows: {said}");
    registry.close().await.unwrap();
}

on_both!(what_was_altered_since_the_last_checkpoint_gets_no_signature, 1, 0);
async fn what_was_altered_since_the_last_checkpoint_gets_no_signature(bed: Bed) {
    let acme = bed.tenant("acme").await;
    until_signed(&bed).await;
    let count = |table: &str| format!("SELECT count(*) FROM {table} WHERE chain = '{}'", acme.id);
    let signed = bed.registry_number(&count("audit_checkpoints")).await;
    // As one who has the registry and not the key.
    let registry = bed.registry().await;
    let alter = format!("UPDATE audit SET digest = previous WHERE chain = '{}' AND seq = 2", acme.id);
    let unsign = format!("UPDATE audit_chains SET signed = 0 WHERE chain = '{}'", acme.id);
    let forget = format!("DELETE FROM audit_checkpoints WHERE chain = '{}'", acme.id);
    for sql in [alter, forget, unsign] {
        registry.execute_unprepared(&sql).await.unwrap();
    }
    registry.close().await.unwrap();
    assert!(signed > 0);
    let deadline = Instant::now() + PATIENCE;
    while !bed.control[0].log().contains("the audit trail was altered") {
        assert!(Instant::now() < deadline, "it is not told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bed.registry_number(&count("audit_checkpoints")).await, 0);
    // The others' go on.
    bed.done("PUT", "/v1/plans/other", Some(json!({ "connections": 2, "concurrency": 2 }))).await;
    let platform = "SELECT count(*) FROM audit_chains WHERE chain = 'platform' AND signed < seq";
    while bed.registry_number(platform).await > 0 {
        assert!(Instant::now() < deadline, "no checkpoint comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
