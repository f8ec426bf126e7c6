//! Lists, page after page.

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Client, query};

/// The largest page that the API gives.
const LARGEST_PAGE: usize = 200;

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

impl Client {
    /// All items of the list at this path and query string, or the first of them, as they came.
    pub(crate) fn list(&self, path: &str, at_most: Option<usize>) -> Result<Vec<Box<RawValue>>> {
        let mut items = Vec::new();
        self.each_page(path, at_most, |page| {
            items.extend(page);
            Ok(())
        })?;
        Ok(items)
    }

    /// As [`Client::list`], page by page: what is long need not be held.
    pub(crate) fn each_page(
        &self,
        path: &str,
        at_most: Option<usize>,
        mut take: impl FnMut(Vec<Box<RawValue>>) -> Result<()>,
    ) -> Result<()> {
        let mut wanted = at_most.unwrap_or(usize::MAX);
        let mut cursor: Option<String> = None;
        while wanted > 0 {
            let limit = LARGEST_PAGE.min(wanted).to_string();
            let page = query([("limit", Some(&limit)), ("cursor", cursor.as_deref())]);
            let page = if path.contains('?') { page.replacen('?', "&", 1) } else { page };
            let mut page: Page = self.get(&format!("{path}{page}"))?.json("list")?;
            page.items.truncate(wanted);
            wanted -= page.items.len();
            take(page.items)?;
            if page.next_cursor.is_none() {
                break;
            }
            if page.next_cursor == cursor {
                bail!("the server's list goes in circles; check --url, and report it if that is a control plane");
            }
            cursor = page.next_cursor;
        }
        Ok(())
    }
}
