//! Lists come in pages: `{items, next_cursor}`. A cursor is opaque, and names the last item before the page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use service::Problem;
use std::str::FromStr;
use utoipa::{IntoParams, ToSchema};

const DEFAULT: u64 = 50;
const LARGEST: u64 = 200;

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Items at most, 1 to 200; 50 unless told.
    pub(super) limit: Option<u64>,
    /// The `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

/// One page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The items.
    items: Vec<T>,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// The size of a page, within its bounds.
pub(super) fn limit(asked: Option<u64>) -> Result<u64, Problem> {
    match asked.unwrap_or(DEFAULT) {
        limit if (1..=LARGEST).contains(&limit) => Ok(limit),
        _ => Err(invalid("limit", "must be from 1 to 200")),
    }
}

/// The key that a cursor names.
pub(super) fn after<K: FromStr>(cursor: Option<&str>) -> Result<Option<K>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    match key(cursor) {
        Some(key) => Ok(Some(key)),
        None => Err(invalid("cursor", "is not a next_cursor of this list: begin without one")),
    }
}

/// The key in a cursor, if it is one of this list.
pub(super) fn key<K: FromStr>(cursor: &str) -> Option<K> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.parse().ok().filter(|_| !text.contains('\0'))
}

/// The cursor that names a key.
pub(super) fn cursor(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// A query string is refused by one of its fields.
pub(super) fn invalid(field: &str, detail: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "invalid-query",
        format!("The query string is not valid: `{field}` {detail}."),
    )
    .with_field(field, detail)
}

impl<T> Page<T> {
    /// A page of `rows`, which were asked for one more than `limit` to see whether another page follows.
    pub(super) fn of<R>(mut rows: Vec<R>, limit: u64, key: impl Fn(&R) -> String, item: impl FnMut(R) -> T) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| has_more).map(|last| cursor(&key(last)));
        Self { items: rows.into_iter().map(item).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_to_the_next_page_and_the_last_page_has_none() {
        let page = Page::of(vec![1, 2, 3], 2, ToString::to_string, |it| it);
        assert_eq!(page.items, [1, 2]);
        assert_eq!(after::<i32>(page.next_cursor.as_deref()).unwrap(), Some(2));
        assert!(Page::of(vec![1, 2], 2, ToString::to_string, |it| it).next_cursor.is_none());
    }

    #[test]
    fn bad_cursors_and_limits_name_their_field() {
        assert_eq!(after::<i32>(Some("!")).unwrap_err().errors()[0].field, "cursor");
        assert_eq!(after::<i32>(Some("eA")).unwrap_err().errors()[0].field, "cursor");
        for bad in [0, 201] {
            assert_eq!(limit(Some(bad)).unwrap_err().errors()[0].field, "limit");
        }
    }
}
