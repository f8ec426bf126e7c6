//! Pages of news.

use std::collections::BTreeSet;

use sea_orm::ActiveValue::Set;
use tenancy::feed::FeedRequest;

use super::*;
use crate::provision::tests::stage::{Stage, of, on_both};
use crate::registry::entities::tenants::ActiveModel;

on_both! { each_page_says_whether_more_follow_and_together_they_tell_of_each_tenant_once }

async fn each_page_says_whether_more_follow_and_together_they_tell_of_each_tenant_once(stage: &Stage) {
    let first = stage.built("acme").await;
    let (registry, row) = (&stage.plane.registry, stage.tenant(&first).await);
    let (epoch, head) = position(&registry.history().await.unwrap());
    // With the first, two full pages and one more tenant.
    let others = 1..=i64::try_from(2 * MAX_ITEMS).unwrap();
    let newest = head.0.cast_signed() + others.end();
    let others: Vec<ActiveModel> = others
        .map(|number| ActiveModel {
            id: Set(Uuid::now_v7()),
            slug: Set(format!("other-{number}")),
            revision: Set(head.0.cast_signed() + number),
            ..row.clone().into()
        })
        .collect();
    for some in others.chunks(500) {
        tenants::Entity::insert_many(some.to_vec()).exec_without_returning(registry.db()).await.unwrap();
    }
    history::Entity::update_many()
        .col_expr(history::Column::Head, Expr::value(newest))
        .filter(history::Column::Id.eq(1))
        .exec(registry.db())
        .await
        .unwrap();
    let mut request = FeedRequest { epoch: Some(epoch), ..stage.behind().await };
    let (mut told, mut sizes) = (BTreeSet::new(), Vec::new());
    loop {
        let answer = registry.follow(&request, Duration::from_mins(1), &CancellationToken::new()).await.unwrap();
        assert_eq!((answer.reset, answer.head.0), (false, newest.unsigned_abs()));
        sizes.push(answer.items.len());
        let revisions: Vec<_> = answer.items.iter().map(|item| item.revision).collect();
        assert!(revisions.is_sorted() && revisions.iter().all(|it| *it > request.after && *it <= answer.position));
        for item in answer.items {
            assert!(item.route.is_some_and(|route| route.revision == item.revision));
            assert!(told.insert(item.tenant), "{} is told of twice", item.tenant);
        }
        (request.after, request.heard) = (answer.position, answer.head);
        if answer.position >= answer.head {
            break;
        }
    }
    assert_eq!((told.len(), sizes), (1_001, vec![500, 500, 1]));
    assert!(told.contains(&of(&first).into()));
}
