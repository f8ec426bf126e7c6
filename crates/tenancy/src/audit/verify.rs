//! The offline verifier: finds the first record that was changed, removed, inserted or reordered.
//!
//! It takes records in the order in which they were exported, chains after each other or mixed, and keeps of each only what
//! binds it to its neighbours. Whoever changes a record and computes all hashes after it anew is found by the next
//! checkpoint.

use std::collections::{BTreeMap, HashMap};

use super::{Chain, Checkpoint, Digest, PublicKey, Record};

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its payload, digest or hash is another.
    #[error("record {seq} of chain {chain} was changed")]
    Changed {
        /// The chain.
        chain: Chain,
        /// The record's number.
        seq: u64,
    },
    /// It is not there.
    #[error("record {seq} of chain {chain} was removed")]
    Removed {
        /// The chain.
        chain: Chain,
        /// The record's number.
        seq: u64,
    },
    /// It was not there.
    #[error("a record {seq} of chain {chain} was inserted")]
    Inserted {
        /// The chain.
        chain: Chain,
        /// The number that it has.
        seq: u64,
    },
    /// It was somewhere else.
    #[error("record {seq} of chain {chain} was reordered: it is not where it was")]
    Reordered {
        /// The chain.
        chain: Chain,
        /// The record's number.
        seq: u64,
    },
    /// Records and all hashes after them were made anew: one of these is the first.
    #[error(
        "a record from {from} to {to} of chain {chain} was changed, removed or inserted, and the hashes after it were computed anew"
    )]
    Rewritten {
        /// The chain.
        chain: Chain,
        /// The first that no earlier checkpoint vouches for.
        from: u64,
        /// The one whose hash the checkpoint knows otherwise.
        to: u64,
    },
    /// A checkpoint that none of the keys signed.
    #[error("the checkpoint at record {seq} of chain {chain} is not signed by its key {key}: it was changed")]
    BadSignature {
        /// The chain.
        chain: Chain,
        /// The record's number.
        seq: u64,
        /// The key that it names.
        key: String,
    },
    /// A checkpoint of a key that was not given.
    #[error(
        "the checkpoint at record {seq} of chain {chain} names key {key}, which was not given: add its public key, if it is one of yours"
    )]
    UnknownKey {
        /// The chain.
        chain: Chain,
        /// The record's number.
        seq: u64,
        /// The key that it names.
        key: String,
    },
}

/// What was found to be as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Chains.
    pub chains: usize,
    /// Records.
    pub records: u64,
    /// Those of them that no checkpoint vouches for yet: they fit together, and that is all that is known.
    pub unsigned: u64,
}

/// What is kept of a record.
struct Link {
    seq: u64,
    previous: Digest,
    digest: Digest,
    hash: Digest,
    /// The payload has the digest.
    is_payloads: bool,
}

/// Takes records and checkpoints, and judges them.
#[derive(Default)]
pub struct Verifier {
    keys: HashMap<String, PublicKey>,
    chains: BTreeMap<Chain, (Vec<Link>, BTreeMap<u64, Checkpoint>)>,
    conflict: Option<Fault>,
}

impl Verifier {
    /// One that trusts these keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { keys: keys.into_iter().map(|key| (key.id(), key)).collect(), ..Self::default() }
    }

    /// Takes the next record.
    pub fn take(&mut self, record: &Record) {
        let Record { chain, seq, previous, digest, hash, .. } = *record;
        let is_payloads = digest == Digest::of(record.payload.get().as_bytes());
        self.chains.entry(chain).or_default().0.push(Link { seq, previous, digest, hash, is_payloads });
    }

    /// Takes a checkpoint, of the same file or one that was kept apart.
    pub fn trust(&mut self, checkpoint: Checkpoint) -> Result<(), Fault> {
        let (chain, seq, key) = (checkpoint.chain, checkpoint.seq, checkpoint.key.clone());
        let Some(known) = self.keys.get(&key) else { return Err(Fault::UnknownKey { chain, seq, key }) };
        if !checkpoint.is_signed_by(known) {
            return Err(Fault::BadSignature { chain, seq, key });
        }
        let signed = &mut self.chains.entry(chain).or_default().1;
        if signed.get(&seq).is_some_and(|other| other.hash != checkpoint.hash) {
            // Two signed words that contradict each other: the registry itself was rewritten between them.
            let from = signed.range(..seq).next_back().map_or(1, |(before, _)| before + 1);
            self.conflict.get_or_insert(Fault::Rewritten { chain, from, to: seq });
        }
        signed.insert(seq, checkpoint);
        Ok(())
    }

    /// Judges all that was taken.
    pub fn judge(&self) -> Result<Verdict, Fault> {
        let mut verdict = Verdict { chains: self.chains.len(), ..Verdict::default() };
        for (&chain, (links, signed)) in &self.chains {
            let hashes = walk(chain, links)?;
            let mut vouched = 0;
            for (&seq, checkpoint) in signed {
                let at = usize::try_from(seq).ok().and_then(|seq| seq.checked_sub(1));
                match at.and_then(|at| hashes.get(at)) {
                    Some(hash) if *hash == checkpoint.hash => vouched = seq,
                    Some(_) => return Err(Fault::Rewritten { chain, from: vouched + 1, to: seq }),
                    None => return Err(Fault::Removed { chain, seq: hashes.len() as u64 + 1 }),
                }
            }
            verdict.records += hashes.len() as u64;
            verdict.unsigned += hashes.len() as u64 - vouched;
        }
        match &self.conflict {
            Some(fault) => Err(fault.clone()),
            None => Ok(verdict),
        }
    }
}

/// The hashes of a chain whose records fit together.
fn walk(chain: Chain, links: &[Link]) -> Result<Vec<Digest>, Fault> {
    let mut hashes = Vec::with_capacity(links.len());
    let mut previous = Digest::before_first(chain);
    for (at, link) in links.iter().enumerate() {
        let expected = hashes.len() as u64 + 1;
        if !link.follows(chain, expected, previous) {
            return Err(fault(chain, links, at, expected, previous));
        }
        previous = link.hash;
        hashes.push(link.hash);
    }
    Ok(hashes)
}

impl Link {
    /// The hash fits what the record says, if its number is this.
    fn is_numbered(&self, chain: Chain, seq: u64) -> bool {
        self.hash == Digest::chained(chain, seq, self.previous, self.digest)
    }

    fn follows(&self, chain: Chain, expected: u64, previous: Digest) -> bool {
        self.seq == expected && self.previous == previous && self.is_payloads && self.is_numbered(chain, expected)
    }
}

/// What was done to a chain whose record at `at` should be number `expected`, after the hash `previous`, and is not.
fn fault(chain: Chain, links: &[Link], at: usize, expected: u64, previous: Digest) -> Fault {
    let (link, later) = (&links[at], &links[at + 1..]);
    let seq = link.seq;
    let is_there_later = later.iter().any(|other| other.follows(chain, expected, previous));
    if seq < expected {
        return Fault::Inserted { chain, seq };
    }
    if seq > expected {
        // Its own turn comes later, and so does that of the one that should be here.
        return if later.iter().any(|other| other.seq == expected) {
            Fault::Reordered { chain, seq: expected }
        } else {
            Fault::Removed { chain, seq: expected }
        };
    }
    if is_there_later {
        return Fault::Inserted { chain, seq };
    }
    if !link.is_payloads {
        return Fault::Changed { chain, seq };
    }
    if link.is_numbered(chain, seq) {
        // It is sound, and knows another record before it.
        return Fault::Changed { chain, seq: seq.saturating_sub(1).max(1) };
    }
    // Numbers may have been written over so that there is no gap: the hash still knows the true one.
    match (1..=links.len() as u64 + 1).find(|&number| number != seq && link.is_numbered(chain, number)) {
        Some(number) if number > seq => {
            let is_elsewhere = later.iter().any(|other| other.is_numbered(chain, seq));
            if is_elsewhere { Fault::Reordered { chain, seq } } else { Fault::Removed { chain, seq } }
        }
        Some(number) => Fault::Inserted { chain, seq: number },
        None => Fault::Changed { chain, seq },
    }
}

#[cfg(test)]
mod tests;
