//! `cargo xtask dev` as a newcomer runs it: what it prints works when pasted, Ctrl-C leaves nothing behind, and the next run
//! goes on with what is there.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::bed::{PATIENCE, send};
use crate::postgres::Postgres;
use crate::process::folder;

/// One run of it, in a session of its own, so that whatever it starts is found again.
struct Dev {
    child: Child,
    tour: String,
}

impl Dev {
    /// Until it has printed what to try. None: a port was taken meanwhile.
    fn start(state: &Path, control: u16, data: u16) -> Option<Self> {
        Self::start_with(state, control, data, &[])
    }

    fn start_with(state: &Path, control: u16, data: u16, flags: &[&str]) -> Option<Self> {
        let xtask = std::env::var_os("FREEHOLD_TEST_XTASK").expect("run this by `cargo xtask test`");
        let mut child = Command::new("setsid")
            .arg(xtask)
            .args(["dev", "--control", &format!("127.0.0.1:{control}"), "--data", &format!("127.0.0.1:{data}")])
            .arg("--dir")
            .arg(state)
            .arg("--planes")
            .arg(folder())
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines(&mut child);
        let mut said = String::new();
        let mut tour = None;
        let deadline = Instant::now() + 3 * PATIENCE;
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            said.extend([line.as_str(), "\n"]);
            if line.starts_with("Freehold is up.") {
                tour = Some(String::new());
            }
            let Some(tour) = &mut tour else { continue };
            // The planes' own lines come between.
            if !line.contains(" | ") {
                tour.extend([line.as_str(), "\n"]);
            }
            if line.contains("/v1/tenants/initech/keys") {
                let tour = std::mem::take(tour);
                std::thread::spawn(move || lines.iter().for_each(drop));
                return Some(Self { child, tour });
            }
        }
        let mut errors = String::new();
        // Nothing came in time, if it runs still.
        let _ = child.kill();
        let ended = child.wait().unwrap();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(errors.contains("is taken"), "dev did not come up ({ended}):\n{said}\n{errors}");
        None
    }

    /// The commands to try, as they would be pasted.
    fn commands(&self) -> Vec<String> {
        let text = self.tour.replace("\\\n", " ");
        text.lines().map(str::trim).filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
    }

    /// All that belongs to its session, itself too.
    fn processes(&self) -> Vec<String> {
        let session = self.child.id().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let found = entries.filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in brackets, may hold anything; then state, parent, group, session (proc_pid_stat(5)).
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?;
            (fields.nth(2)? == session && state != "Z").then_some(stat)
        });
        found.collect()
    }

    /// Ctrl-C, and nothing of it is left.
    fn stop(mut self) {
        assert!(self.processes().len() >= 3, "itself and both planes: {:?}", self.processes());
        let sent = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
        // First the data plane, then the control plane, each within its grace of 20 s.
        let deadline = Instant::now() + Duration::from_mins(1);
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            assert!(Instant::now() < deadline, "it does not stop: {:#?}", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(ended.success(), "it stopped as it was told");
        // What was sent a signal may take a moment to end; a plane's grace is 20 s, and well over this.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "left behind: {:#?}", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its children end when it does, however it does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(child: &mut Child) -> Receiver<String> {
    let (say, lines) = channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if say.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A port that is free, and the next one too.
fn two_ports() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// Runs a command as somebody who pasted it; what it printed is JSON.
fn pasted(command: &str) -> Value {
    let output = Command::new("sh").args(["-c", command]).env("no_proxy", "*").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command}: {error}: {output:?}"))
}

fn told(state: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(state.join("dev.json")).unwrap()).unwrap()
}

fn tenants(state: &Path) -> Value {
    told(state)["tenants"].clone()
}

#[test]
fn dev_comes_up_with_commands_that_work_stops_whole_and_goes_on_with_what_is_there() {
    let state = tempfile::tempdir().unwrap();
    let (dev, control, data) = loop {
        let (control, data) = (two_ports(), two_ports());
        if let Some(dev) = Dev::start(state.path(), control, data) {
            break (dev, control, data);
        }
    };
    let first = tenants(state.path());
    let slugs: Vec<_> = first.as_array().unwrap().iter().map(|it| it["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["acme", "globex"]);
    let commands = dev.commands();
    assert_eq!(commands.len(), 7, "five ways, a third tenant, and its key:\n{}", dev.tour);
    let (acme, globex) = (first[0]["api_key"].as_str().unwrap(), first[1]["api_key"].as_str().unwrap());
    for command in &commands[..5] {
        assert_eq!(pasted(command)["items"][0]["name"], "Sample Pet", "{command}");
        // The other tenant's, named in the same way; it has no custom domain.
        if !command.contains("pets.acme.test") {
            let other = command.replace(acme, globex).replace("acme", "globex");
            assert_eq!(pasted(&other)["items"][0]["name"], "Sample Pet", "{other}");
        }
        let foreign = pasted(&command.replace(acme, globex));
        assert_eq!(foreign["type"] == "urn:freehold:problem:tenant-not-found", command.contains("acme"), "{foreign}");
    }
    assert_eq!(pasted(&commands[5])["tenant"]["status"], "active");
    let key = pasted(&commands[6])["api_key"].as_str().unwrap().to_owned();
    let third = format!("curl -H 'Authorization: Bearer {key}' http://127.0.0.1:{data}/initech/api/pets");
    let deadline = Instant::now() + PATIENCE;
    while pasted(&third)["items"][0]["name"] != "Sample Pet" {
        assert!(Instant::now() < deadline, "the new tenant is not served: {}", pasted(&third));
    }
    dev.stop();

    // Where it was, unless somebody took its ports meanwhile.
    let mut again = Dev::start(state.path(), control, data);
    let dev = loop {
        match again {
            Some(dev) => break dev,
            None => again = Dev::start(state.path(), two_ports(), two_ports()),
        }
    };
    assert_eq!(tenants(state.path()), first, "the same tenants, with the same ids and keys");
    assert_eq!(pasted(&dev.commands()[0])["items"][0]["name"], "Sample Pet");
    dev.stop();
}

/// Of a server as it is when new: its connections are fewer than a third of the tenants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_tenants_on_a_hundred_connections_are_served_or_told_to_come_again() {
    const TENANTS: usize = 300;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (postgres, state) = (Postgres::start_with(&["max_connections=100"]), tempfile::tempdir().unwrap());
    let dev = loop {
        let flags = ["--postgres", &postgres.url()];
        if let Some(dev) = Dev::start_with(state.path(), two_ports(), two_ports(), &flags) {
            break dev;
        }
    };
    let told = told(state.path());
    let [control, data, token] =
        ["control_url", "data_url", "operator_token"].map(|field| told[field].as_str().unwrap().to_owned());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |path: String, body: Value| {
        let call = client.post(format!("{control}/v1/tenants{path}")).bearer_auth(&token).header("prefer", "wait=30");
        let answer = send(call.json(&body)).await;
        assert!((200..300).contains(&answer.status), "{answer:?}");
        answer.json()
    };
    let one = async |number: usize| {
        let slug = format!("many-{number}");
        let made = ask(String::new(), json!({ "slug": slug, "name": slug, "plan": "unlimited" })).await;
        assert_eq!(made["tenant"]["status"], "active", "{made}");
        ask(format!("/{slug}/keys"), json!({ "name": "many" })).await["api_key"].as_str().unwrap().to_owned()
    };
    let keys: Vec<String> = stream::iter(0..TENANTS).map(one).buffered(4).collect().await;
    let (mut served, mut busy) = (0, 0);
    let asked = stream::iter(0..4 * TENANTS).map(async |number: usize| {
        // Far from each other, so that no two come in the order of those before.
        let key = &keys[number * 7 % TENANTS];
        send(client.get(format!("{data}/api/pets")).bearer_auth(key)).await
    });
    let mut asked = Box::pin(asked.buffer_unordered(64));
    while let Some(answer) = asked.next().await {
        match (answer.status, answer.kind().as_str()) {
            (200, _) => served += 1,
            (503, "server-busy") => busy += 1,
            _ => panic!("{answer:?}"),
        }
    }
    assert!(served >= 4 * TENANTS * 9 / 10, "{served} served, {busy} told to come again");
    dev.stop();
}
