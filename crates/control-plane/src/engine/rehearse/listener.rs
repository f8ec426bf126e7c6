//! Hears which statements a driver runs for one future, by what it logs of each; nothing else is listened to.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The driver's name for its log of statements.
const STATEMENTS: &str = "sqlx::query";

/// Statements as they were heard. Clones hear for the same list, which is as long as a migration has statements.
#[derive(Clone, Default)]
pub(super) struct Listener(Arc<Mutex<Vec<String>>>);

impl Listener {
    pub(super) fn note(&self, statement: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(statement);
    }

    pub(super) fn statements(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A log entry has the first words of a statement, and the whole of it where that is more.
#[derive(Default)]
struct Heard {
    words: String,
    whole: String,
}

impl Visit for Heard {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.words),
            "db.statement" => value.trim().clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == STATEMENTS
    }

    fn event(&self, event: &Event<'_>) {
        let mut heard = Heard::default();
        event.record(&mut heard);
        self.note(if heard.whole.is_empty() { heard.words } else { heard.whole });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
