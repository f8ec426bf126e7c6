//! The spool: events on this node's disk that the control plane has not taken yet, in numbered files.
//!
//! A file is one batch. It is closed before it is brought away and never changes after that, so that it is the same batch
//! however often it is brought. The newest file stays, if only empty: it keeps the number.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tenancy::audit::{MAX_BATCH, Notice, Noticed};
use uuid::Uuid;

use super::dropped;

/// A file is closed when it has so many bytes: with the largest event more, a batch is well below what a request may have.
const CLOSE_AT: u64 = 256 * 1024;
const ID_FILE: &str = "spool-id";

/// Events that wait.
pub(super) struct Spool {
    folder: PathBuf,
    id: Uuid,
    most_bytes: u64,
    /// Closed files, the oldest first: numbers and lengths.
    closed: VecDeque<(u64, u64)>,
    open: Open,
    /// Being brought away: it is not dropped under whoever reads it.
    in_hand: Option<u64>,
    unsynced: Vec<File>,
}

/// The file that is written to.
struct Open {
    number: u64,
    file: File,
    bytes: u64,
    events: usize,
    is_dirty: bool,
}

impl Spool {
    /// Opens a spool, or makes one. What a crash left half written is cut off.
    pub(super) fn open(folder: &Path, most_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let id = identity(folder)?;
        let mut files = VecDeque::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Some(number) = number_of(&entry.path()) {
                cut_off(&entry.path())?;
                files.push_back((number, fs::metadata(entry.path())?.len()));
            }
        }
        files.make_contiguous().sort_unstable();
        let newest = files.back().copied();
        let number = match newest {
            // The newest is empty: it goes on where it was.
            Some((number, 0)) => {
                files.pop_back();
                number
            }
            Some((number, _)) => number + 1,
            None => 1,
        };
        for (number, _) in files.iter().filter(|(_, bytes)| *bytes == 0) {
            fs::remove_file(path_of(folder, *number))?;
        }
        files.retain(|(_, bytes)| *bytes > 0);
        let open = Open::new(folder, number)?;
        let folder = folder.to_owned();
        Ok(Self { folder, id, most_bytes, closed: files, open, in_hand: None, unsynced: Vec::new() })
    }

    /// Numbers are of one spool: who loses the folder has another.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// All that waits.
    pub(super) fn bytes(&self) -> u64 {
        self.open.bytes + self.closed.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Writes an event; whoever kills this process does not undo it. Answers how many old ones had to go for it.
    pub(super) fn append(&mut self, noticed: &Noticed) -> io::Result<u64> {
        let count = self.make_room()?;
        self.write(noticed)?;
        Ok(count)
    }

    fn write(&mut self, noticed: &Noticed) -> io::Result<()> {
        let mut line = serde_json::to_vec(noticed)?;
        line.push(b'\n');
        let open = &mut self.open;
        if let Err(error) = open.file.write_all(&line) {
            // A half of a line would spoil the next.
            open.file.set_len(open.bytes)?;
            open.file.seek(SeekFrom::End(0))?;
            return Err(error);
        }
        open.bytes += line.len() as u64;
        open.events += 1;
        open.is_dirty = true;
        if open.bytes >= CLOSE_AT || open.events >= MAX_BATCH - 1 {
            self.close()?;
        }
        Ok(())
    }

    /// Drops the oldest files when the spool is full, and writes down how many events that were. What such a file told of
    /// earlier drops is told again: else a control plane that is away for long would hear of the last drops alone.
    fn make_room(&mut self) -> io::Result<u64> {
        let mut count = 0;
        while self.bytes() >= self.most_bytes {
            let Some(at) = self.closed.iter().position(|(number, _)| Some(*number) != self.in_hand) else { break };
            let Some((number, _)) = self.closed.get(at).copied() else { break };
            let path = path_of(&self.folder, number);
            let (told, events): (Vec<Noticed>, Vec<Noticed>) =
                read(&path)?.into_iter().partition(|it| it.notice == Notice::EventsDropped);
            let lost = events.len() as u64 + told.iter().filter_map(|it| it.count).sum::<u64>();
            // First told, then done: a crash in between tells too many, and never none.
            self.write(&dropped(lost, "the node's spool was full"))?;
            fs::remove_file(&path)?;
            self.closed.retain(|(other, _)| *other != number);
            count += events.len() as u64;
        }
        Ok(count)
    }

    /// Closes the file that is written to, if it has anything.
    fn close(&mut self) -> io::Result<()> {
        if self.open.bytes == 0 {
            return Ok(());
        }
        let next = Open::new(&self.folder, self.open.number + 1)?;
        let closed = std::mem::replace(&mut self.open, next);
        self.closed.push_back((closed.number, closed.bytes));
        if closed.is_dirty {
            self.unsynced.push(closed.file);
        }
        Ok(())
    }

    /// The number of the oldest batch, which is in hand until [`Spool::done`].
    pub(super) fn take(&mut self) -> io::Result<Option<u64>> {
        if self.closed.is_empty() {
            self.close()?;
        }
        self.in_hand = self.closed.front().map(|(number, _)| *number);
        Ok(self.in_hand)
    }

    /// Where a batch is.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        path_of(&self.folder, number)
    }

    /// The control plane has it.
    pub(super) fn done(&mut self, number: u64) -> io::Result<()> {
        self.in_hand = None;
        self.closed.retain(|(other, _)| *other != number);
        match fs::remove_file(path_of(&self.folder, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Files that a loss of power would harm: to be synced, with the folder, by somebody who may wait.
    pub(super) fn unsynced(&mut self) -> io::Result<Vec<File>> {
        let mut files = std::mem::take(&mut self.unsynced);
        if self.open.is_dirty {
            files.push(self.open.file.try_clone()?);
            self.open.is_dirty = false;
        }
        if !files.is_empty() {
            files.push(File::open(&self.folder)?);
        }
        Ok(files)
    }
}

impl Open {
    fn new(folder: &Path, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path_of(folder, number))?;
        Ok(Self { number, bytes: file.metadata()?.len(), file, events: 0, is_dirty: false })
    }
}

/// The events of a batch; those that cannot be read are counted by one more.
pub(super) fn read(path: &Path) -> io::Result<Vec<Noticed>> {
    let (mut events, mut unread) = (Vec::new(), 0);
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(noticed) => events.push(noticed),
            Err(_) => unread += 1,
        }
    }
    if unread > 0 {
        events.push(dropped(unread, "they were damaged on the node's disk"));
    }
    Ok(events)
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.jsonl"))
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok()
}

/// Reads the spool's id, or makes one.
fn identity(folder: &Path) -> io::Result<Uuid> {
    let path = folder.join(ID_FILE);
    let known = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    if let Some(id) = known {
        return Ok(id);
    }
    // None, or one that a crash left half: numbers of before mean nothing any more.
    let id = Uuid::new_v4();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    Ok(id)
}

/// Cuts off what stands behind the last line break.
fn cut_off(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < bytes.len() {
        file.set_len(whole as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
