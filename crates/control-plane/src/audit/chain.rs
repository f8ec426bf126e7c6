//! Adding records to chains. A chain's row is locked until the commit, so that its numbers have no gap and its hashes one
//! order. Chains are locked in their own order, after tenants and before the registry's history.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, ExprTrait, QueryFilter};
use serde_json::value::RawValue;
use tenancy::audit::{Chain, Checkpoint, Digest, Event, Record};

use crate::registry::entities::{audit_chains, audit_checkpoints, records};

/// Adds events to their chains, in the order in which they come.
pub(crate) async fn append(db: &impl ConnectionTrait, mut events: Vec<(Chain, Event)>) -> Result<(), DbErr> {
    // It keeps the order within a chain.
    events.sort_by_key(|(chain, _)| *chain);
    for events in events.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((chain, _)) = events.first() else { continue };
        extend(db, *chain, events.iter().map(|(_, event)| event)).await?;
    }
    Ok(())
}

async fn extend<'a>(
    db: &impl ConnectionTrait,
    chain: Chain,
    events: impl ExactSizeIterator<Item = &'a Event>,
) -> Result<(), DbErr> {
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let head = advance(db, chain, count).await?;
    let mut previous: Digest = head.hash.parse().map_err(|_| damaged(chain))?;
    let mut rows = Vec::with_capacity(events.len());
    for (seq, event) in (head.seq - count + 1..).zip(events) {
        let record = Record::following(chain, seq.unsigned_abs(), previous, event)
            .map_err(|error| DbErr::Custom(format!("an audit event cannot be written: {error}")))?;
        previous = record.hash;
        rows.push(row(&record, event));
    }
    records::Entity::insert_many(rows).exec_without_returning(db).await?;
    audit_chains::Entity::update_many()
        .col_expr(audit_chains::Column::Hash, Expr::value(previous.to_string()))
        .filter(audit_chains::Column::Chain.eq(chain.to_string()))
        .exec(db)
        .await?;
    Ok(())
}

/// Locks a chain until the transaction ends. Who holds it is alone with what is of the platform.
pub(crate) async fn lock(db: &impl ConnectionTrait, chain: Chain) -> Result<(), DbErr> {
    advance(db, chain, 0).await.map(drop)
}

/// Takes the next numbers of a chain; answers the newest of them, with the hash of the record before the first.
async fn advance(db: &impl ConnectionTrait, chain: Chain, count: i64) -> Result<audit_chains::Model, DbErr> {
    let row = audit_chains::ActiveModel {
        chain: Set(chain.to_string()),
        seq: Set(count),
        hash: Set(Digest::before_first(chain).to_string()),
        signed: Set(0),
    };
    let further = Expr::col((audit_chains::Entity, audit_chains::Column::Seq)).add(count);
    let again = OnConflict::column(audit_chains::Column::Chain).value(audit_chains::Column::Seq, further).to_owned();
    audit_chains::Entity::insert(row).on_conflict(again).exec_with_returning(db).await
}

fn row(record: &Record, event: &Event) -> records::ActiveModel {
    records::ActiveModel {
        chain: Set(record.chain.to_string()),
        seq: Set(i64::try_from(record.seq).unwrap_or(i64::MAX)),
        id: Set(event.id),
        at: Set(event.at),
        action: Set(event.action.clone()),
        actor: Set(event.actor.clone()),
        tenant_id: Set(event.tenant.map(Into::into)),
        target_id: Set(event.target.map(Into::into)),
        request_id: Set(event.request_id.clone()),
        payload: Set(record.payload.get().to_owned()),
        previous: Set(record.previous.to_string()),
        digest: Set(record.digest.to_string()),
        hash: Set(record.hash.to_string()),
    }
}

/// A row as the record that it was written as. It need not be whole: whoever asks is told what is there.
pub(crate) fn record_of(row: records::Model) -> Result<Record, DbErr> {
    let (chain, seq) = (row.chain, row.seq);
    let damaged = || DbErr::Custom(format!("record {seq} of the audit chain {chain} is damaged"));
    Ok(Record {
        chain: chain.parse().map_err(|_| damaged())?,
        seq: seq.unsigned_abs(),
        previous: row.previous.parse().map_err(|_| damaged())?,
        digest: row.digest.parse().map_err(|_| damaged())?,
        hash: row.hash.parse().map_err(|_| damaged())?,
        payload: RawValue::from_string(row.payload).map_err(|_| damaged())?,
    })
}

/// A row as the checkpoint that it was written as.
pub(crate) fn checkpoint_of(row: audit_checkpoints::Model) -> Result<Checkpoint, DbErr> {
    let seq = row.seq;
    let damaged = || DbErr::Custom(format!("a checkpoint at record {seq} of the audit trail is damaged"));
    Ok(Checkpoint {
        chain: row.chain.parse().map_err(|_| damaged())?,
        seq: seq.unsigned_abs(),
        hash: row.hash.parse().map_err(|_| damaged())?,
        at: row.at,
        key: row.key,
        signature: row.signature,
    })
}

fn damaged(chain: Chain) -> DbErr {
    DbErr::Custom(format!("the head of the audit chain {chain} is damaged: restore the registry from a backup"))
}
