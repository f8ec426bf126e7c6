//! Which tenants a page has: all that are selected, by their ids, or a sample of them that is the same on every page.

use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use sea_orm::{ColumnTrait, DbErr, QueryFilter, QueryOrder, QuerySelect};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::fleet::select::Selected;
use crate::plane::Plane;
use crate::registry::entities::tenants;

/// Tenants on one page.
const AT_MOST: usize = 200;
/// Ids that are read together to draw a sample.
const IDS: u64 = 10_000;

/// How many of the selected tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    /// So many, drawn by the seed.
    Sample {
        size: u32,
        seed: u64,
    },
}

/// Where a page begins: after the tenant of this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) extent: Extent,
    pub(crate) after: Uuid,
}

/// Not a position of ours.
#[derive(Debug)]
pub(crate) struct NoPosition;

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.extent {
            Extent::All => write!(f, "all/{}", self.after),
            Extent::Sample { size, seed } => write!(f, "{size}-{seed}/{}", self.after),
        }
    }
}

impl FromStr for From {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let (extent, after) = text.split_once('/').ok_or(NoPosition)?;
        let after = after.parse().map_err(|_| NoPosition)?;
        if extent == "all" {
            return Ok(Self { extent: Extent::All, after });
        }
        let (size, seed) = extent.split_once('-').ok_or(NoPosition)?;
        let size = size.parse().ok().filter(|size| (1..=Extent::LARGEST).contains(size)).ok_or(NoPosition)?;
        let seed = seed.parse().map_err(|_| NoPosition)?;
        Ok(Self { extent: Extent::Sample { size, seed }, after })
    }
}

impl Extent {
    /// The largest sample.
    pub(crate) const LARGEST: u32 = 10_000;
}

/// The tenants of a page, by their ids.
pub(super) struct Page {
    pub(super) tenants: Vec<tenants::Model>,
    has_more: bool,
}

impl Page {
    /// Where the next page begins, when so many of this one were looked at.
    pub(super) fn next_after(&self, looked_at: usize, from: &From) -> Option<From> {
        let is_last = looked_at == self.tenants.len() && !self.has_more;
        let last = looked_at.checked_sub(1).and_then(|at| self.tenants.get(at)).filter(|_| !is_last)?;
        Some(From { after: last.id, ..*from })
    }
}

pub(super) async fn read(plane: &Plane, selected: &Selected, from: &From) -> Result<Page, DbErr> {
    let db = plane.registry.db();
    let mut rows = selected.all().order_by_asc(tenants::Column::Id);
    let has_more = match from.extent {
        Extent::All => {
            rows = rows.filter(tenants::Column::Id.gt(from.after)).limit(AT_MOST as u64 + 1);
            false
        }
        Extent::Sample { size, seed } => {
            let mut drawn = draw(plane, selected, size, seed).await?;
            drawn.retain(|id| *id > from.after);
            let has_more = drawn.len() > AT_MOST;
            drawn.truncate(AT_MOST);
            rows = rows.filter(tenants::Column::Id.is_in(drawn));
            has_more
        }
    };
    let mut tenants = rows.all(db).await?;
    let has_more = has_more || tenants.len() > AT_MOST;
    tenants.truncate(AT_MOST);
    Ok(Page { tenants, has_more })
}

/// The ids whose hashes with the seed are the smallest, in the order of ids. Only so many are held as are drawn.
async fn draw(plane: &Plane, selected: &Selected, size: u32, seed: u64) -> Result<Vec<Uuid>, DbErr> {
    let mut drawn: BinaryHeap<([u8; 32], Uuid)> = BinaryHeap::new();
    let mut after = Uuid::nil();
    loop {
        let some: Vec<Uuid> = selected
            .all()
            .select_only()
            .column(tenants::Column::Id)
            .filter(tenants::Column::Id.gt(after))
            .order_by_asc(tenants::Column::Id)
            .limit(IDS)
            .into_tuple()
            .all(plane.registry.db())
            .await?;
        let Some(last) = some.last() else { break };
        after = *last;
        for id in some {
            drawn.push((Sha256::new().chain_update(seed.to_be_bytes()).chain_update(id).finalize().into(), id));
            if drawn.len() > size as usize {
                drawn.pop();
            }
        }
    }
    let mut ids: Vec<Uuid> = drawn.into_iter().map(|(_, id)| id).collect();
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_nothing_else_is() {
        for extent in [Extent::All, Extent::Sample { size: 50, seed: u64::MAX }] {
            let from = From { extent, after: Uuid::now_v7() };
            assert_eq!(from.to_string().parse::<From>().unwrap(), from);
        }
        for bad in
            ["", "all", "all/x", "0-1/00000000-0000-0000-0000-000000000000", "5/00000000-0000-0000-0000-000000000000"]
        {
            assert!(bad.parse::<From>().is_err(), "{bad}");
        }
    }
}
