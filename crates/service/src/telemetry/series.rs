//! Instruments that are bound to their labels, found by one hash of the labels. OpenTelemetry's own look-up hashes, compares
//! and copies every label, twice for each request.

use std::{
    hash::{BuildHasher as _, Hash},
    sync::OnceLock,
};

use foldhash::quality::RandomState;
use opentelemetry::metrics::{BoundCounter, BoundHistogram};

/// How many places are searched for a series before the table counts as full.
const PROBES: usize = 16;

/// The table's places are made for at most this many series: 1 MiB. Series that find no place are counted too, but slower.
const MOST: usize = 32_768;

/// The instruments that count requests with the same labels.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) total: BoundCounter<u64>,
    pub(super) seconds: BoundHistogram<f64>,
}

/// A hash table of fixed size. Entries are added and never removed, so reads need no lock.
///
/// It keeps hashes of 64 bits in place of labels. Labels with the same hash share a series; two of 10,000 do so in one
/// of 3 * 10¹¹ processes.
#[derive(Debug)]
pub(super) struct SeriesTable {
    hasher: RandomState,
    places: Box<[OnceLock<Box<Place>>]>,
}

/// A series, and the hash of its labels.
#[derive(Debug)]
struct Place {
    hash: u64,
    series: Series,
}

impl SeriesTable {
    /// A table for `limit` series, [`MOST`] at most. It has at least two places for each, of 16 bytes.
    pub(super) fn new(limit: usize) -> Self {
        let places = (2 * limit.min(MOST)).next_power_of_two().max(PROBES);
        Self { hasher: RandomState::default(), places: (0..places).map(|_| OnceLock::new()).collect() }
    }

    /// The series with these labels. It is made at their first request. `None` if the table is full.
    pub(super) fn find(&self, labels: impl Hash, make: impl Fn() -> Series) -> Option<&Series> {
        let hash = self.hasher.hash_one(labels);
        (0..PROBES).find_map(|probe| {
            // The number of places is a power of two: the remainder is the hash's last bits.
            #[expect(clippy::cast_possible_truncation)]
            let place = &self.places[(hash as usize).wrapping_add(probe) & (self.places.len() - 1)];
            let found = place.get_or_init(|| Box::new(Place { hash, series: make() }));
            (found.hash == hash).then_some(&found.series)
        })
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::*;

    #[test]
    fn a_series_is_made_once_and_none_past_the_room_for_it() {
        let meter = SdkMeterProvider::default().meter("test");
        let (total, seconds) = (meter.u64_counter("total").build(), meter.f64_histogram("seconds").build());
        let count = std::cell::Cell::new(0);
        let make = || {
            count.set(count.get() + 1);
            Series { total: total.bind(&[]), seconds: seconds.bind(&[]) }
        };
        let table = SeriesTable::new(100);
        for _ in 0..3 {
            for label in 0..100 {
                assert!(table.find(label, make).is_some());
            }
        }
        assert_eq!(count.get(), 100);
        assert!((100..1_000).any(|label| table.find(label, make).is_none()), "it never was full");
        assert!(count.get() <= table.places.len());
    }
}
