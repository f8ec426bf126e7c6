//! One plane as a process: started, heard from, killed. It goes with the value that holds it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// A running plane.
pub struct Process {
    child: Child,
    config: PathBuf,
    binary: &'static str,
    /// The URL of its API.
    pub url: String,
    /// The URL of its ops listener.
    pub ops_url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a plane, and waits until it says where it serves.
    pub fn start(binary: &'static str, config: &Path) -> Self {
        let mut child = Command::new(folder().join(binary))
            .arg("--config")
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary} ({error}); run this by `cargo xtask test`"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (said, serving) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let is_start = line.contains(" serves\"");
                if is_start {
                    let _ = said.send(serde_json::from_str::<Value>(&line).unwrap());
                }
                kept.lock().unwrap().push(line);
            }
        });
        let errors = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let start = heard(&serving, &log, binary);
        let url = |field: &str| format!("http://{}", start[field].as_str().unwrap());
        Self { child, config: config.to_owned(), binary, url: url("address"), ops_url: url("ops_address"), log }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was, so that others find it.
    pub fn restart(&mut self) {
        self.kill();
        let text = std::fs::read_to_string(&self.config).unwrap();
        let pinned = |text: String, key: &str, url: &str| {
            let address = url.trim_start_matches("http://");
            let lines = text
                .lines()
                .map(|line| if line.starts_with(key) { format!("{key}\"{address}\"") } else { line.to_owned() });
            lines.collect::<Vec<_>>().join("\n")
        };
        let text = pinned(text, "address = ", &self.url);
        let text = pinned(text, "ops_address = ", &self.ops_url);
        std::fs::write(&self.config, text).unwrap();
        let config = self.config.clone();
        *self = Self::start(self.binary, &config);
    }
}

fn heard(serving: &Receiver<Value>, log: &Mutex<Vec<String>>, binary: &str) -> Value {
    serving.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| {
        let log = log.lock().unwrap().join("\n");
        panic!("{binary} did not start:\n{log}")
    })
}

/// Where cargo put the planes: beside the tests' own folder.
pub fn folder() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    if folder.ends_with("deps") { folder.parent().unwrap().to_owned() } else { folder.to_owned() }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the log of {}:\n{}", self.binary, self.log());
        }
    }
}
