//! One plane as a process: started, heard from, killed. It goes with the value that holds it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a process says when it is to be killed, and who hears of it.
struct Trap {
    is_it: Box<dyn Fn(&Value) -> bool + Send>,
    sprung: Sender<()>,
    freezes: bool,
}

/// A running plane.
pub struct Process {
    child: Arc<Mutex<Child>>,
    trap: Arc<Mutex<Option<Trap>>>,
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
        Self::start_with(binary, config, &[])
    }

    fn start_with(binary: &'static str, config: &Path, flags: &[&str]) -> Self {
        Self::start_by(Command::new(folder().join(binary)), binary, config, flags)
    }

    /// As [`Process::start`], by this command.
    pub fn start_by(mut command: Command, binary: &'static str, config: &Path, flags: &[&str]) -> Self {
        let mut child = command
            .arg("--config")
            .arg(config)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary} ({error}); run this by `cargo xtask test`"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (said, serving) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let errors = BufReader::new(child.stderr.take().unwrap());
        let child = Arc::new(Mutex::new(child));
        let trap: Arc<Mutex<Option<Trap>>> = Arc::default();
        let kept = Arc::clone(&log);
        let (victim, set) = (Arc::clone(&child), Arc::clone(&trap));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut set = set.lock().unwrap();
                if let Some(trap) = &*set
                    && serde_json::from_str(&line).is_ok_and(|line| (trap.is_it)(&line))
                {
                    // At once: it is in the middle of what it speaks of, or of what comes next.
                    let mut victim = victim.lock().unwrap();
                    if trap.freezes {
                        signal(victim.id(), "-STOP");
                    } else {
                        let _ = victim.kill();
                        let _ = victim.wait();
                    }
                    let _ = trap.sprung.send(());
                    *set = None;
                }
                drop(set);
                let is_start = line.contains(" serves\"");
                if is_start {
                    let _ = said.send(serde_json::from_str::<Value>(&line).unwrap());
                }
                kept.lock().unwrap().push(line);
            }
        });
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let start = heard(&serving, &log, binary);
        let url = |field: &str| format!("http://{}", start[field].as_str().unwrap());
        Self { child, trap, config: config.to_owned(), binary, url: url("address"), ops_url: url("ops_address"), log }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Kills the process with SIGKILL as soon as it logs such a line. Whoever listens hears of it.
    pub fn kill_at(&self, sprung: Sender<()>, is_it: impl Fn(&Value) -> bool + Send + 'static) {
        *self.trap.lock().unwrap() = Some(Trap { is_it: Box::new(is_it), sprung, freezes: false });
    }

    /// As [`Process::kill_at`], but it is only stopped, and can go on.
    pub fn freeze_at(&self, sprung: Sender<()>, is_it: impl Fn(&Value) -> bool + Send + 'static) {
        *self.trap.lock().unwrap() = Some(Trap { is_it: Box::new(is_it), sprung, freezes: true });
    }

    /// Takes the trap away; says whether the process still runs.
    pub fn spare(&self) -> bool {
        *self.trap.lock().unwrap() = None;
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// Lets it go on after it was frozen.
    pub fn thaw(&self) {
        signal(self.id(), "-CONT");
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// SIGTERM, and waits until it has drained and ended by itself.
    pub fn stop(&mut self) {
        signal(self.id(), "-TERM");
        let deadline = Instant::now() + Duration::from_secs(30);
        let has_ended = || self.child.lock().unwrap().try_wait().unwrap().is_some();
        while !has_ended() {
            assert!(Instant::now() < deadline, "{} does not stop", self.binary);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again where it was, so that others find it.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// As [`Process::restart`], with flags for this start.
    pub fn restart_with(&mut self, flags: &[&str]) {
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
        *self = Self::start_with(self.binary, &config, flags);
    }
}

fn heard(serving: &Receiver<Value>, log: &Mutex<Vec<String>>, binary: &str) -> Value {
    serving.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| {
        let log = log.lock().unwrap().join("\n");
        panic!("{binary} did not start:\n{log}")
    })
}

fn signal(process: u32, signal: &str) {
    let sent = Command::new("kill").arg(signal).arg(process.to_string()).status().unwrap();
    assert!(sent.success(), "kill {signal}");
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
