//! What a database's schema is, told so that two can be compared: one object a line, as the catalogue has it, sorted. Nothing of
//! its rows, nothing of who may do what (the doctor looks at that), and no name that is the database's own.

use std::cmp::Ordering;
use std::fmt::Write as _;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, IsolationLevel, Statement, TransactionTrait as _,
};
use sha2::{Digest as _, Sha256};

use super::EngineError;
use super::database::OURS;

const POSTGRES: &str = include_str!("fingerprint/postgres.sql");
const SQLITE: &str = include_str!("fingerprint/sqlite.sql");

/// The lines of a database's schema, sorted.
pub(super) async fn lines(db: &DatabaseConnection) -> Result<Vec<String>, EngineError> {
    let read = async {
        let backend = db.get_database_backend();
        // One moment of it, whatever somebody changes meanwhile.
        let db = if backend == DbBackend::Sqlite {
            db.begin().await?
        } else {
            let snapshot = db.begin_with_config(Some(IsolationLevel::RepeatableRead), None).await?;
            // Names are told with their schema, whatever the database's own path is.
            snapshot.execute_unprepared("SET LOCAL search_path = pg_catalog").await?;
            snapshot
        };
        let sql = if backend == DbBackend::Sqlite { SQLITE } else { POSTGRES };
        let sql = sql.replace("{ours}", &OURS.map(|table| format!("'{table}'")).join(", "));
        let rows = db.query_all_raw(Statement::from_string(backend, sql)).await?;
        let lines = rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect::<Result<Vec<_>, _>>()?;
        db.rollback().await?;
        Ok(lines)
    };
    let lines = read.await.map_err(|error: DbErr| EngineError::of("read the database's schema", error))?;
    let mut lines: Vec<String> = lines.iter().map(|line| on_one_line(line)).collect();
    // By bytes: each server sorts by a language of its own.
    lines.sort_unstable();
    Ok(lines)
}

/// Where a definition breaks its lines says nothing.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The fingerprint: SHA-256 of the lines, in hexadecimal digits.
pub(crate) fn hash(lines: &[String]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
        hash.update(b"\n");
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What is missing (`- `) and what is there and should not be (`+ `), of sorted lines, in their order.
pub(crate) fn diff(expected: &[String], found: &[String]) -> Vec<String> {
    let (mut expected, mut found) = (expected.iter().peekable(), found.iter().peekable());
    let mut lines = Vec::new();
    loop {
        let order = match (expected.peek(), found.peek()) {
            (None, None) => return lines,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(expected), Some(found)) => expected.cmp(found),
        };
        if order == Ordering::Equal {
            expected.next();
            found.next();
        } else if order == Ordering::Less {
            lines.extend(expected.next().map(|line| format!("- {line}")));
        } else {
            lines.extend(found.next().map(|line| format!("+ {line}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned<const N: usize>(lines: [&str; N]) -> Vec<String> {
        lines.map(str::to_owned).into()
    }

    #[test]
    fn a_diff_tells_what_is_missing_and_what_is_too_much() {
        let (one, other) = (owned(["a", "b", "b", "d"]), owned(["b", "c", "d", "e"]));
        assert_eq!(diff(&one, &other), ["- a", "- b", "+ c", "+ e"]);
        assert_eq!(diff(&other, &one), ["+ a", "+ b", "- c", "- e"]);
        assert_eq!(diff(&one, &one), [] as [&str; 0]);
        assert_eq!(diff(&[], &one).len(), 4);
    }

    #[test]
    fn a_fingerprint_is_of_the_lines_and_of_where_they_end() {
        assert_ne!(hash(&owned(["a", "b"])), hash(&owned(["ab"])));
        assert_ne!(hash(&owned(["a", "b"])), hash(&owned(["a"])));
        assert_eq!(hash(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
