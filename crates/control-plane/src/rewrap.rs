//! Seal keys: every sealed text is sealed anew under its ring's primary key, so that an old key can be taken away.
//!
//! It may be broken off anywhere and begun again: what is sealed under the primary is left alone. Neither generations nor
//! revisions rise, since what the texts say stays the same.

use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden as _, LikeExpr, Query, TableRef, ValueTuple};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    Select,
};
use service::problem::BoxError;
use tenancy::seal::{KeyRing, Purpose, Sealed, Subject};
use uuid::Uuid;

use crate::plane::Plane;
use crate::registry::entities::{databases, idempotency, servers, shares, tenants, warm_databases};

/// Texts that are sealed anew in one statement.
const AT_ONCE: u64 = 500;
/// Texts that one call looks at, at most.
const BUDGET: u64 = 10_000;

/// What one call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Texts that are sealed under the primary now, and were not before.
    pub(crate) rewrapped: u64,
    /// Texts that are yet to be.
    pub(crate) remaining: u64,
    /// Texts that no key of the ring opens. They stay as they are.
    pub(crate) unopened: u64,
}

/// A column of sealed texts, and for whom they are sealed.
struct Texts<E: EntityTrait> {
    of: &'static str,
    /// For whom, and the row's unique key.
    id: E::Column,
    generation: Expr,
    text: E::Column,
    purpose: Purpose,
}

impl<E: EntityTrait> Texts<E> {
    #[allow(clippy::unused_self, reason = "it says of which table")]
    fn rows(&self) -> Select<E> {
        E::find()
    }
}

/// Every column of sealed texts, each with its ring: `$do!(plane, texts)` for one after the other.
macro_rules! for_all_texts {
    ($plane:expr, |$ring:ident, $texts:ident| $do:expr) => {{
        let $ring = &$plane.tenants_ring;
        // A text moves from the first of these to the last, and is met on its way.
        let $texts = Texts::<databases::Entity> {
            of: "a tenant's next database URL",
            id: databases::Column::TenantId,
            generation: databases::Column::NextGeneration.into_expr(),
            text: databases::Column::NextSealedUrl,
            purpose: Purpose::TenantUrl,
        };
        $do;
        let $texts = Texts::<databases::Entity> {
            of: "a tenant's database URL",
            id: databases::Column::TenantId,
            generation: databases::Column::Generation.into_expr(),
            text: databases::Column::SealedUrl,
            purpose: Purpose::TenantUrl,
        };
        $do;
        let $texts = Texts::<tenants::Entity> {
            of: "a tenant's database URL",
            id: tenants::Column::Id,
            generation: tenants::Column::Generation.into_expr(),
            text: tenants::Column::SealedUrl,
            purpose: Purpose::TenantUrl,
        };
        $do;
        let $texts = Texts::<shares::Entity> {
            of: "the URL of a data plane's anchor",
            id: shares::Column::Anchor,
            generation: Expr::value(1_i64),
            text: shares::Column::SealedAnchor,
            purpose: Purpose::AnchorUrl,
        };
        $do;
        let $ring = &$plane.servers_ring;
        let $texts = Texts::<warm_databases::Entity> {
            of: "the URL of a database that is ready",
            id: warm_databases::Column::Id,
            generation: Expr::value(1_i64),
            text: warm_databases::Column::SealedUrl,
            purpose: Purpose::WarmUrl,
        };
        $do;
        let $texts = Texts::<servers::Entity> {
            of: "a server's admin URL",
            id: servers::Column::Id,
            generation: servers::Column::Generation.into_expr(),
            text: servers::Column::SealedAdminUrl,
            purpose: Purpose::ServerAdminUrl,
        };
        $do;
        let $texts = Texts::<servers::Entity> {
            of: "a server's next admin URL",
            id: servers::Column::Id,
            generation: servers::Column::Generation.into_expr().add(1_i64),
            text: servers::Column::NextSealedAdminUrl,
            purpose: Purpose::ServerAdminUrl,
        };
        $do;
        let $texts = Texts::<idempotency::Entity> {
            of: "a recorded answer",
            id: idempotency::Column::Claim,
            generation: Expr::value(0_i64),
            text: idempotency::Column::SealedAnswer,
            purpose: Purpose::RecordedAnswer,
        };
        $do;
    }};
}

/// Seals anew what is not sealed under its primary key, up to a bound. Call it until nothing remains.
pub(crate) async fn rewrap(plane: &Plane) -> Result<Progress, DbErr> {
    let (mut done, mut budget) = (Progress::default(), BUDGET);
    for_all_texts!(plane, |ring, texts| rewrap_texts(plane, ring, texts, &mut done, &mut budget).await?);
    // Counted when all is done, over all of them: a text may have gone from one place to another meanwhile.
    for_all_texts!(plane, |ring, texts| {
        let left = texts.rows().filter(not_sealed_by(texts.text, [ring.primary()]));
        done.remaining += left.count(plane.registry.db()).await?;
    });
    done.remaining = done.remaining.saturating_sub(done.unopened);
    Ok(done)
}

async fn rewrap_texts<E: EntityTrait>(
    plane: &Plane,
    ring: &KeyRing,
    texts: Texts<E>,
    done: &mut Progress,
    budget: &mut u64,
) -> Result<(), DbErr> {
    let db = plane.registry.db();
    let mut after = Uuid::nil();
    while *budget > 0 {
        let page: Vec<(Uuid, i64, String)> = texts
            .rows()
            .select_only()
            .column(texts.id)
            .column_as(texts.generation.clone(), "generation")
            .column(texts.text)
            .filter(not_sealed_by(texts.text, [ring.primary()]))
            .filter(texts.id.gt(after))
            .order_by_asc(texts.id)
            .limit(Ord::min(AT_ONCE, *budget))
            .into_tuple()
            .all(db)
            .await?;
        let Some((last, _, _)) = page.last() else { return Ok(()) };
        after = *last;
        *budget -= page.len() as u64;
        let mut anew = Vec::new();
        for (id, generation, text) in page {
            let subject = Subject { purpose: texts.purpose, id, generation: generation.unsigned_abs() };
            match ring.open(subject, &Sealed::from_stored(text.as_str())) {
                Ok(secret) => {
                    let new = ring.seal(subject, &secret, &mut rand::rng());
                    anew.push((id, text, new));
                }
                Err(error) => {
                    tracing::warn!(%id, %error, "{} does not open, and stays as it is", texts.of);
                    done.unopened += 1;
                }
            }
        }
        if !anew.is_empty() {
            done.rewrapped += replace::<E>(db, texts.id, texts.text, anew).await?;
        }
    }
    Ok(())
}

/// Puts sealed texts in the place of old ones; answers how many. A row whose text is not the old one any more was changed
/// meanwhile, and is left alone.
pub(crate) async fn replace<E: EntityTrait>(
    db: &impl ConnectionTrait,
    id: E::Column,
    text: E::Column,
    anew: Vec<(Uuid, String, Sealed)>,
) -> Result<u64, DbErr> {
    // Both engines call a list's columns so.
    let given = |column: &'static str| Expr::col(("anew", column));
    let rows = anew.into_iter().map(|(id, old, new)| ValueTuple::Three(id.into(), old.into(), new.as_stored().into()));
    let update = Query::update()
        .table(E::default())
        .value(text, given("column3"))
        .from(TableRef::ValuesList(rows.collect(), "anew".into_iden()))
        // Found by the key: texts have no index.
        .and_where(id.into_expr().eq(given("column1")))
        .and_where(text.into_expr().eq(given("column2")))
        .to_owned();
    Ok(db.execute(&update).await?.rows_affected())
}

/// Refuses to start with a ring that lacks a key which something is sealed with.
pub(crate) async fn check_keys(plane: &Plane) -> Result<(), BoxError> {
    for_all_texts!(plane, |ring, texts| check_texts(plane, ring, texts).await?);
    Ok(())
}

async fn check_texts<E: EntityTrait>(plane: &Plane, ring: &KeyRing, texts: Texts<E>) -> Result<(), BoxError> {
    let foreign: Option<(Uuid, String)> = texts
        .rows()
        .select_only()
        .column(texts.id)
        .column(texts.text)
        .filter(not_sealed_by(texts.text, ring.ids()))
        .into_tuple()
        .one(plane.registry.db())
        .await?;
    let Some((id, text)) = foreign else { return Ok(()) };
    let is_open_to_nodes = matches!(texts.purpose, Purpose::TenantUrl | Purpose::AnchorUrl);
    let section = if is_open_to_nodes { "seal.tenants" } else { "seal.servers" };
    let sealed = Sealed::from_stored(text);
    let key = sealed.key_id().unwrap_or("of no name");
    Err(format!(
        "{} (of {id}) is sealed with key {key:?}, which {section}.keys lacks: add the key to the configuration; once \
         `freehold tenant rewrap` is done, it can be taken away",
        texts.of
    )
    .into())
}

/// Texts that were sealed by none of these keys.
fn not_sealed_by<'a, C: ColumnTrait>(text: C, keys: impl IntoIterator<Item = &'a str>) -> Condition {
    keys.into_iter().fold(Condition::all().add(text.is_not_null()), |condition, key| {
        // A key's id may hold a wildcard of LIKE.
        let prefix = KeyRing::prefix_of(key).replace('_', "\\_");
        condition.add(text.into_expr().not_like(LikeExpr::new(format!("{prefix}%")).escape('\\')))
    })
}
