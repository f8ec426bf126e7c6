//! The ways that a mail can take: to a mail server, or into a folder.

use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::Message;
use tokio::time::timeout;
use uuid::Uuid;

use super::Unsent;
use super::smtp::Relay;

pub(super) enum Transport {
    /// Mails become files that only we may read.
    Folder(PathBuf),
    Smtp(Box<Relay>),
}

impl Transport {
    /// Hands a mail over, within a time. An error means that nobody said that they have it.
    pub(super) async fn deliver(&self, id: Uuid, mail: &Message, at_most: Duration) -> Result<(), Unsent> {
        match self {
            Self::Folder(folder) => {
                let (folder, text) = (folder.clone(), mail.formatted());
                let write = tokio::task::spawn_blocking(move || write(&folder, id, &text));
                match timeout(at_most, write).await {
                    Ok(Ok(written)) => {
                        written.map_err(|error| Unsent(format!("the mail's file cannot be written: {error}")))
                    }
                    Ok(Err(_)) => Err(Unsent("the mail's file was not written: we panicked".to_owned())),
                    Err(_) => Err(Unsent("the mail's file was not written in time".to_owned())),
                }
            }
            Self::Smtp(relay) => relay.deliver(mail.envelope(), &mail.formatted(), at_most).await,
        }
    }
}

/// Makes a folder that only we may enter, unless it is there.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes `ID.eml` in one step: whoever looks sees a whole mail or none. A second attempt replaces what a first one wrote.
fn write(folder: &Path, id: Uuid, text: &[u8]) -> io::Result<()> {
    make(folder)?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(format!("{id}.eml")))?;
    Ok(())
}
