//! Signing checkpoints. What is signed was looked at first: from the last checkpoint on, every record must follow the one
//! before it, so that nobody gets a signature for what was altered since.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use tenancy::audit::{Chain, Digest, SigningKeys};
use tokio_util::sync::CancellationToken;

use super::{checkpoint_of, record_of};
use crate::registry::Registry;
use crate::registry::entities::{audit_chains, audit_checkpoints, records};

/// Chains that are looked at in one go.
const CHAINS: u64 = 200;
/// Records that are read at once.
const RECORDS: u64 = 1_000;
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_mins(5);

/// Why a chain got no signature.
#[derive(Debug, thiserror::Error)]
enum Unsigned {
    #[error(transparent)]
    Registry(#[from] DbErr),
    /// Somebody altered the registry.
    #[error("record {0} does not follow the one before it")]
    Broken(u64),
    #[error("its checkpoint at record {0} is signed by none of the configured keys")]
    Checkpoint(u64),
}

/// Signs how far each chain has come, until told to stop. Any number of replicas may.
pub(crate) async fn run(registry: Registry, keys: Arc<SigningKeys>, every: Duration, stopping: CancellationToken) {
    let counter = opentelemetry::global::meter("control-plane")
        .u64_counter("audit_checkpoints")
        .with_description("Checkpoints of the audit trail that were signed, or refused because a chain is broken.")
        .build();
    let mut pause = every;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        match sign_all(&registry, &keys, &counter).await {
            Ok(()) => pause = every,
            Err(error) => {
                tracing::warn!(%error, "could not sign the audit trail's checkpoints");
                pause = (pause * 2).min(LONGEST.max(every));
            }
        }
    }
}

async fn sign_all(registry: &Registry, keys: &SigningKeys, counter: &Counter<u64>) -> Result<(), DbErr> {
    let mut after = String::new();
    loop {
        let unsigned = audit_chains::Entity::find()
            .filter(Expr::col(audit_chains::Column::Seq).gt(Expr::col(audit_chains::Column::Signed)))
            .filter(audit_chains::Column::Chain.gt(after.as_str()))
            .order_by_asc(audit_chains::Column::Chain)
            .limit(CHAINS)
            .all(registry.db())
            .await?;
        let Some(last) = unsigned.last() else { return Ok(()) };
        after.clone_from(&last.chain);
        for head in unsigned {
            let name = head.chain.clone();
            let outcome = match sign(registry, keys, head).await {
                Ok(()) => "signed",
                Err(Unsigned::Registry(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(chain = name, %error,
                        "the audit trail was altered, and gets no checkpoint: `freehold audit export` and `verify` say where");
                    "broken"
                }
            };
            counter.add(1, &[KeyValue::new("outcome", outcome)]);
        }
    }
}

/// Signs one chain's head, if all since the last checkpoint leads to it.
async fn sign(registry: &Registry, keys: &SigningKeys, head: audit_chains::Model) -> Result<(), Unsigned> {
    let chain: Chain = head.chain.parse().map_err(|_| Unsigned::Broken(0))?;
    let last = audit_checkpoints::Entity::find()
        .filter(audit_checkpoints::Column::Chain.eq(head.chain.as_str()))
        .order_by_desc(audit_checkpoints::Column::Seq)
        .one(registry.db())
        .await?;
    let (mut seq, mut hash) = (0, Digest::before_first(chain));
    if let Some(row) = last {
        let checkpoint = checkpoint_of(row)?;
        if !keys.public().iter().any(|key| checkpoint.is_signed_by(key)) {
            return Err(Unsigned::Checkpoint(checkpoint.seq));
        }
        (seq, hash) = (checkpoint.seq, checkpoint.hash);
    }
    while seq < head.seq.unsigned_abs() {
        let rows = records::Entity::find()
            .filter(records::Column::Chain.eq(head.chain.as_str()))
            .filter(records::Column::Seq.gt(i64::try_from(seq).unwrap_or(i64::MAX)))
            .filter(records::Column::Seq.lte(head.seq))
            .order_by_asc(records::Column::Seq)
            .limit(RECORDS)
            .all(registry.db())
            .await?;
        if rows.is_empty() {
            return Err(Unsigned::Broken(seq + 1));
        }
        for row in rows {
            let record = record_of(row).map_err(|_| Unsigned::Broken(seq + 1))?;
            if record.seq != seq + 1 || record.previous != hash || !record.is_whole() {
                return Err(Unsigned::Broken(seq + 1));
            }
            (seq, hash) = (record.seq, record.hash);
        }
    }
    if hash.to_string() != head.hash {
        return Err(Unsigned::Broken(seq));
    }
    let checkpoint = keys.sign(chain, seq, hash, registry.now());
    let row = audit_checkpoints::ActiveModel {
        chain: Set(head.chain.clone()),
        seq: Set(head.seq),
        hash: Set(head.hash),
        at: Set(checkpoint.at),
        key: Set(checkpoint.key),
        signature: Set(checkpoint.signature),
    };
    let once =
        OnConflict::columns([audit_checkpoints::Column::Chain, audit_checkpoints::Column::Seq]).do_nothing().to_owned();
    audit_checkpoints::Entity::insert(row).on_conflict(once).exec_without_returning(registry.db()).await?;
    audit_chains::Entity::update_many()
        .col_expr(audit_chains::Column::Signed, Expr::value(head.seq))
        .filter(audit_chains::Column::Chain.eq(head.chain))
        .filter(audit_chains::Column::Signed.lt(head.seq))
        .exec(registry.db())
        .await?;
    Ok(())
}
