//! `freehold` as an operator and a script use it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Store, Tuning};
use crate::on_both;
use crate::process::folder;

pub(crate) async fn freehold(bed: &Bed, arguments: &[&str]) -> Output {
    let mut command = typed(bed, arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn typed(bed: &Bed, arguments: &[&str]) -> Command {
    let mut command = Command::new(folder().join("freehold"));
    command.args(arguments).env("FREEHOLD_URL", &bed.control[0].url).env("FREEHOLD_TOKEN", &bed.token);
    command
}

/// As [`freehold`], with this on its standard input.
async fn freehold_of(bed: &Bed, arguments: &[&str], input: String) -> Output {
    let mut command = typed(bed, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn json(bed: &Bed, arguments: &[&str]) -> Value {
    let output = freehold(bed, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

on_both!(a_tenants_limits_issuers_and_hosts_by_the_command_line, 1, 1);
async fn a_tenants_limits_issuers_and_hosts_by_the_command_line(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let own = async |limits: Value| {
        assert_eq!(json(&bed, &["tenant", "limits", "show", "acme", "--json"]).await, limits);
    };
    own(json!({})).await;
    json(&bed, &["tenant", "limits", "set", "acme", "--requests", "7", "--burst", "3", "--json"]).await;
    json(&bed, &["tenant", "limits", "set", "acme", "--requests", "9", "--json"]).await;
    own(json!({ "requests": 9, "burst": 3 })).await;
    // They hold where the requests are.
    let limit = async || bed.get(0, &acme, "/api/pets").await.header("x-ratelimit-limit");
    let told = async { while limit().await != "9" {} };
    tokio::time::timeout(PATIENCE, told).await.expect("the node hears of the limits");
    assert_eq!(json(&bed, &["tenant", "limits", "remove", "acme", "--json"]).await, json!({}));
    own(json!({})).await;
    let none = freehold(&bed, &["tenant", "limits", "set", "acme"]).await;
    assert_eq!(none.status.code(), Some(2), "{none:?}");

    let set = ["tenant", "issuer", "set", "acme", "okta", "--issuer", "https://login.acme.test/", "--jwks-url"];
    let set =
        [&set[..], &["https://login.acme.test/keys", "--audience", "pets", "--scope", "pets:read", "--json"]].concat();
    let trusted = json(&bed, &set).await;
    assert_eq!((&trusted["name"], &trusted["scopes"]), (&json!("okta"), &json!(["pets:read"])), "{trusted}");
    assert_eq!(json(&bed, &["tenant", "issuer", "show", "acme", "okta", "--json"]).await, trusted);
    assert_eq!(json(&bed, &["tenant", "issuer", "list", "acme", "--json"]).await, json!([trusted]));
    assert!(freehold(&bed, &["tenant", "issuer", "remove", "acme", "okta"]).await.status.success());
    let gone = freehold(&bed, &["tenant", "issuer", "remove", "acme", "okta"]).await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("freehold tenant issuer list"), "{gone:?}");

    // Nobody is asked for a proof here: what proves a host is in `domains`.
    let host = json(&bed, &["tenant", "domain", "add", "acme", "Pets.Acme.Test", "--json"]).await;
    assert_eq!((&host["host"], &host["is_proven"]), (&json!("pets.acme.test"), &json!(true)), "{host}");
    assert_eq!(json(&bed, &["tenant", "domain", "prove", "acme", "pets.acme.test", "--json"]).await, host);
    assert_eq!(json(&bed, &["tenant", "domain", "list", "acme", "--json"]).await, json!([host]));
    assert!(freehold(&bed, &["tenant", "domain", "remove", "acme", "pets.acme.test"]).await.status.success());
    assert_eq!(json(&bed, &["tenant", "domain", "show", "acme", "--json"]).await, json!([]));
}

on_both!(a_tenants_life_by_the_command_line, 1, 1);
async fn a_tenants_life_by_the_command_line(bed: Bed) {
    let made = json(&bed, &["tenant", "create", "acme", "--plan", "test", "--key", "--json"]).await;
    let key = made["key"]["api_key"].as_str().unwrap().to_owned();
    let id = made["tenant"]["id"].as_str().unwrap().to_owned();
    let acme = crate::bed::Tenant { id: id.clone(), slug: "acme".to_owned(), key };
    bed.until(&acme, "/api/pets", 200).await;
    let again = freehold(&bed, &["tenant", "create", "acme"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("Choose another"), "{again:?}");

    assert_eq!(json(&bed, &["tenant", "list", "--json"]).await[0]["slug"], "acme");
    assert_eq!(json(&bed, &["tenant", "rotate", "acme", "--json"]).await["tenant"]["generation"], 2);
    assert!(freehold(&bed, &["tenant", "suspend", "acme"]).await.status.success());
    bed.until(&acme, "/api/pets", 403).await;
    assert!(freehold(&bed, &["tenant", "resume", "acme"]).await.status.success());
    assert!(
        freehold(&bed, &["tenant", "config", "set", "acme", "include_deleted_pets", "true"]).await.status.success()
    );
    assert!(freehold(&bed, &["tenant", "rename", "acme", "--slug", "acme2"]).await.status.success());
    bed.until(&acme, "/acme2/api/pets", 200).await;

    let rewrapped = freehold(&bed, &["tenant", "rewrap"]).await;
    assert!(rewrapped.status.success(), "{rewrapped:?}");
    let healthy = freehold(&bed, &["tenant", "doctor"]).await;
    assert!(healthy.status.success(), "{healthy:?}");
    // What the doctor finds is told by the exit code too.
    let registry = bed.registry().await;
    sea_orm::ConnectionTrait::execute_unprepared(&registry, "UPDATE tenants SET sealed_url = 'fh1.lost.AAAA'")
        .await
        .unwrap();
    let sick = freehold(&bed, &["tenant", "doctor", "--json"]).await;
    assert_eq!(sick.status.code(), Some(1), "{sick:?}");
    let findings: Value = serde_json::from_slice(&sick.stdout).unwrap();
    let kinds = |findings: &Value| {
        findings["findings"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&findings), [json!("url_does_not_open")], "{findings}");
    // As it advises.
    assert!(freehold(&bed, &["tenant", "rotate", "acme2"]).await.status.success());
    assert!(freehold(&bed, &["tenant", "doctor"]).await.status.success());

    // A fix is an operation, and what it mended is told.
    let wrong = "UPDATE servers SET placed = 7";
    sea_orm::ConnectionTrait::execute_unprepared(&registry, wrong).await.unwrap();
    assert_eq!(freehold(&bed, &["tenant", "doctor"]).await.status.code(), Some(1));
    let fixed = json(&bed, &["tenant", "doctor", "--fix", "--json"]).await;
    let finding = &fixed["findings"][0];
    assert_eq!((&finding["kind"], &finding["is_fixed"]), (&json!("placed_disagrees"), &json!(true)), "{fixed}");
    let path = format!("/v1/operations/{}", finding["operation"].as_str().unwrap());
    let operation = bed.done("GET", &path, None).await;
    assert_eq!((&operation["kind"], &operation["state"]), (&json!("fix"), &json!("done")), "{operation}");
    assert!(operation["tenant"].is_null() && operation["server"].is_string(), "{operation}");
    assert_eq!(operation["requested_by"], "tests");
    assert!(freehold(&bed, &["tenant", "doctor"]).await.status.success());

    assert!(!freehold(&bed, &["tenant", "delete", "acme2"]).await.status.success(), "nobody said yes");
    assert!(freehold(&bed, &["tenant", "delete", "acme2", "--yes"]).await.status.success());
    bed.until(&acme, "/api/pets", 401).await;
    assert_eq!(json(&bed, &["tenant", "show", &id, "--json"]).await["status"], "deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_by_the_command_line() {
    let bed = Bed::start(Store::Sqlite, 1, 1).await;
    let [second, moved] = ["second", "moved"].map(|name| bed.folder.path().join(name));
    for folder in [&second, &moved] {
        std::fs::create_dir(folder).unwrap();
    }
    let add = |name| ["server", "add", name, "--engine", "sqlite", "--region", "there", "--capacity", "10", "--json"];
    let missing = freehold(&bed, &add("second")).await;
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("FREEHOLD_ADMIN_URL"), "{missing:?}");

    let piped = [&add("second")[..], &["--warm", "0", "--admin-url-file", "-"]].concat();
    let added = freehold_of(&bed, &piped, format!("sqlite://{}\n", second.display())).await;
    assert!(added.status.success(), "{added:?}");
    let added: Value = serde_json::from_slice(&added.stdout).unwrap();
    let told = |server: &Value| ["name", "engine", "region", "state"].map(|field| server[field].clone());
    assert_eq!(told(&added), ["second", "sqlite", "there", "open"], "{added}");
    assert_eq!((&added["capacity"], &added["warm"]), (&json!(10), &json!(0)), "{added}");
    let names = |servers: &Value| servers.as_array().unwrap().iter().map(|it| it["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&json(&bed, &["server", "list", "--json"]).await), ["local", "second"]);

    let mut command = typed(&bed, &add("second"));
    command.env("FREEHOLD_ADMIN_URL", format!("sqlite://{}", second.display()));
    let again = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("could not add second: "), "{again:?}");

    let file = bed.folder.path().join("url");
    std::fs::write(&file, format!("sqlite://{}\n", moved.display())).unwrap();
    let set = ["server", "set", "second", "--state", "draining", "--capacity", "20", "--connect-rate", "50", "--json"];
    let set = json(&bed, &[&set[..], &["--admin-url-file", file.to_str().unwrap()]].concat()).await;
    assert_eq!(told(&set), ["second", "sqlite", "there", "draining"], "{set}");
    assert_eq!((&set["capacity"], &set["connect_rate"], &set["warm"]), (&json!(20), &json!(50), &json!(0)), "{set}");
    let shown = json(&bed, &["server", "show", "second", "--json"]).await;
    assert_eq!((&shown["state"], &shown["databases"]), (&json!("draining"), &json!(0)), "{shown}");
    let shown = freehold(&bed, &["server", "show", "second"]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("\nstate              draining\n"), "{shown:?}");

    // A URL where the path of its file should be: not even that is repeated.
    let mistaken =
        ["server", "set", "second", "--admin-url-file", "postgres://admin:planted-password@db.test/postgres"];
    let mistaken = freehold(&bed, &mistaken).await;
    assert_eq!(mistaken.status.code(), Some(1), "{mistaken:?}");
    assert!(!format!("{mistaken:?}").contains("planted-password"), "{mistaken:?}");
    let nothing = freehold(&bed, &["server", "set", "second"]).await;
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    let unknown = freehold(&bed, &["server", "show", "third"]).await;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("freehold server list"), "{unknown:?}");
}

async fn a_deleted_tenant_is_restored_by_the_command_line(store: Store) {
    let tuning = Tuning { tenants: "grace_seconds = 3600\n", ..Tuning::DEFAULT };
    let bed = Bed::start_with(store, 1, 1, tuning).await;
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let early = freehold(&bed, &["tenant", "restore", "acme"]).await;
    assert_eq!(early.status.code(), Some(1), "{early:?}");
    assert!(String::from_utf8_lossy(&early.stderr).contains("could not restore acme"), "{early:?}");

    let deleted = freehold(&bed, &["tenant", "delete", "acme", "--yes"]).await;
    let said = String::from_utf8_lossy(&deleted.stdout);
    assert!(deleted.status.success() && said.contains("freehold tenant restore acme"), "{deleted:?}");
    bed.until(&acme, "/api/pets", 403).await;
    assert_eq!(json(&bed, &["tenant", "show", "acme", "--json"]).await["status"], "deleting");
    // As it advises.
    let restored = freehold(&bed, &["tenant", "restore", "acme"]).await;
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(String::from_utf8_lossy(&restored.stdout), "acme is active\n");
    bed.until(&acme, "/api/pets", 200).await;
    assert_eq!(bed.get(0, &acme, "/api/pets").await.json()["items"][0]["name"], "Sample Pet", "its data are there");

    // As it was before, and as a script has it.
    assert!(freehold(&bed, &["tenant", "suspend", "acme"]).await.status.success());
    assert!(freehold(&bed, &["tenant", "delete", &acme.id, "--yes"]).await.status.success());
    assert_eq!(json(&bed, &["tenant", "restore", &acme.id, "--json"]).await["status"], "suspended");
    let nobody = freehold(&bed, &["tenant", "restore", "nobody"]).await;
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_on_sqlite() {
    a_deleted_tenant_is_restored_by_the_command_line(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_on_postgres() {
    a_deleted_tenant_is_restored_by_the_command_line(Store::Postgres).await;
}

/// What bash would offer for what was typed.
fn completed(typed: &[&str]) -> Vec<String> {
    let script = r#"source <("$0" completions bash) || exit 1
        COMP_WORDS=(freehold "$@") COMP_CWORD=$#
        _freehold freehold "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash").args(["-c", script]).arg(folder().join("freehold")).args(typed).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn shells_complete_what_is_typed() {
    assert_eq!(completed(&["tenant", "re"]), ["resume", "reconnect", "restore", "rename", "rewrap"]);
    assert_eq!(completed(&["ten"]), ["tenant"]);
    assert_eq!(completed(&["tenant", "doctor", "--f"]), ["--fix"]);
    assert_eq!(completed(&["tenant", "key", "cr"]), ["create"]);
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(folder().join("freehold")).args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}");
        for word in ["tenant", "restore", "rewrap", "server", "fleet", "audit"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let unknown = Command::new(folder().join("freehold")).args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("bash"), "it says which there are: {unknown:?}");
}
