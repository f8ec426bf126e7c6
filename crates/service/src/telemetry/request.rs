//! The request at hand, as its log lines and its counts tell it: id, trace, method, path, route, tenant.
//!
//! It goes with the request's task, and is read when a line is written. A span would be built, entered at each poll and
//! recorded into for every request, whether a line is written or not: 36 of a request's 126 microseconds, when it was.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request};
use http::{HeaderMap, Method, Uri};
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::{TraceContextExt, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::layers::RequestId;

tokio::task_local! {
    static CURRENT: Arc<RequestContext>;
}

/// What is known of a request; more as it goes on. It outlives what answers do not: a handler that panics or takes too
/// long is counted for its tenant too.
#[derive(Debug)]
pub struct RequestContext {
    id: RequestId,
    /// The caller's, if its `traceparent` names one.
    trace: Option<TraceId>,
    method: Method,
    uri: Uri,
    client: Option<IpAddr>,
    endpoint: OnceLock<(&'static str, MatchedPath)>,
    tenant: OnceLock<Arc<str>>,
    was_given_up: AtomicBool,
}

impl RequestContext {
    pub(crate) fn of(request: &Request, client: Option<IpAddr>) -> Arc<Self> {
        Arc::new(Self {
            id: RequestId::of(request.headers()),
            trace: trace_of(request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            client,
            endpoint: OnceLock::new(),
            tenant: OnceLock::new(),
            was_given_up: AtomicBool::new(false),
        })
    }

    /// Runs a request's work. What it spawns is not part of it.
    pub(crate) async fn scope<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// Reads the context of the request that this task is at work for, if it is at work for one.
    pub fn current<T>(read: impl FnOnce(&Self) -> T) -> Option<T> {
        CURRENT.try_with(|context| read(context)).ok()
    }

    /// Names the route that matched, for a request inside of it, and what was taken off its path before. The first to set
    /// it wins.
    pub fn set_endpoint(&self, mount: &'static str, request: &Request) {
        if let Some(path) = request.extensions().get::<MatchedPath>() {
            // A second value is dropped on purpose.
            let _ = self.endpoint.set((mount, path.clone()));
        }
    }

    /// Sets the tenant; the first to set it wins.
    pub fn set_tenant(&self, tenant: impl Into<Arc<str>>) {
        let _ = self.tenant.set(tenant.into());
    }

    /// It took too long, and is answered without its handler.
    pub(crate) fn give_up(&self) {
        self.was_given_up.store(true, Ordering::Relaxed);
    }

    /// Whether it took too long: what is dropped then was answered 503.
    pub fn was_given_up(&self) -> bool {
        self.was_given_up.load(Ordering::Relaxed)
    }

    /// The request's id.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Where the request comes from, as far as a trusted proxy says it, else the other end of its connection; none where
    /// there is no socket.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// The mount point and the route's pattern, if a route matched. There are few patterns, but any number of paths.
    pub(super) fn endpoint(&self) -> Option<(&'static str, &str)> {
        self.endpoint.get().map(|(mount, path)| (*mount, path.as_str()))
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.get().map(AsRef::as_ref)
    }

    /// What each line of the log says. Not the query string: it may hold what only the caller should know.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let fields = [
            ("request_id", Some(self.id.as_str().to_owned())),
            ("trace_id", self.trace.map(|trace| trace.to_string())),
            ("method", Some(self.method.to_string())),
            ("path", Some(self.uri.path().to_owned())),
            ("tenant", self.tenant().map(ToString::to_string)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

fn trace_of(headers: &HeaderMap) -> Option<TraceId> {
    headers.get("traceparent")?;
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    let span = context.span();
    span.span_context().is_valid().then(|| span.span_context().trace_id())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn fields(headers: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let mut request = Request::get("/pets?token=planted");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let context = RequestContext::of(&request.body(Body::empty()).unwrap(), None);
        context.set_tenant("acme");
        context.fields().collect()
    }

    #[test]
    fn lines_say_the_callers_trace_and_no_query() {
        let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let told = fields(&[("x-request-id", "r1"), parent]);
        let expected = [
            ("request_id", "r1"),
            ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("method", "GET"),
            ("path", "/pets"),
            ("tenant", "acme"),
        ];
        assert_eq!(told, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(fields(&[("traceparent", "nonsense")]).len(), 4);
    }

    #[tokio::test]
    async fn a_context_is_there_for_its_work_alone() {
        assert!(RequestContext::current(|_| ()).is_none());
        let context = RequestContext::of(&Request::new(Body::empty()), None);
        assert!(context.scope(async { RequestContext::current(|_| ()) }).await.is_some());
        assert!(RequestContext::current(|_| ()).is_none());
    }
}
