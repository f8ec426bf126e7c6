//! A mail server in this process, as well behaved as a test wants it to be.

use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How it treats those who come from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Polite,
    /// Dies while it is being told the mail.
    DiesInTheMail,
    /// Has the mail, and dies before it says so.
    DiesBeforeItsAnswer,
    NeverGreets,
    NeverSaysGoodbye,
    /// Answers a login with all that it was told.
    EchoesLogins,
    Refuses,
}

pub(crate) struct PostOffice {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    received: Arc<Mutex<Vec<String>>>,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

impl PostOffice {
    pub(crate) async fn open(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (received, manner) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(Mutex::new(manner)));
        let (letters, manners) = (received.clone(), manner.clone());
        let task = tokio::spawn(async move {
            let mut conversations = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let manner = *manners.lock().unwrap();
                conversations.spawn(converse(stream, manner, letters.clone()));
            }
        });
        Self { address, received, manner, task }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// The mails that it has, whole.
    pub(crate) fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for PostOffice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address at which nobody listens.
pub(crate) async fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

async fn converse(mut stream: TcpStream, manner: Manner, received: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    if manner == Manner::NeverGreets {
        pending::<()>().await;
    }
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 post.example\r\n").await?;
    let mut mail: Option<String> = None;
    while let Some(line) = lines.next_line().await? {
        let answer = match &mut mail {
            Some(_) if manner == Manner::DiesInTheMail => return Ok(()),
            Some(text) if line == "." => {
                received.lock().unwrap().push(std::mem::take(text));
                mail = None;
                if manner == Manner::DiesBeforeItsAnswer {
                    return Ok(());
                }
                "250 taken".to_owned()
            }
            Some(text) => {
                text.push_str(line.strip_prefix('.').unwrap_or(&line));
                text.push_str("\r\n");
                continue;
            }
            None => match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => "250-post.example\r\n250 AUTH PLAIN".to_owned(),
                "AUTH" if manner == Manner::EchoesLogins => format!("535 what is {line}"),
                "AUTH" => "235 welcome".to_owned(),
                "RCPT" if manner == Manner::Refuses => "550 nobody of\tthat name".to_owned(),
                "DATA" => {
                    mail = Some(String::new());
                    "354 go on".to_owned()
                }
                "QUIT" if manner == Manner::NeverSaysGoodbye => pending().await,
                "QUIT" => "221 goodbye".to_owned(),
                _ => "250 well".to_owned(),
            },
        };
        writer.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}
