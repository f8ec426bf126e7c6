//! A product's handlers: behind admission, but for those that it made public.

use utoipa_axum::router::OpenApiRouter;

/// The handlers of a product, below its mount.
///
/// ```
/// # use utoipa_axum::router::OpenApiRouter;
/// # let (notes, login) = (OpenApiRouter::new(), OpenApiRouter::new());
/// let handlers = data_plane::Handlers::new(notes).with_public(login);
/// ```
#[derive(Default)]
pub struct Handlers {
    pub(crate) admitted: OpenApiRouter,
    pub(crate) public: OpenApiRouter,
}

impl Handlers {
    /// Handlers behind admission: a request that was not admitted reaches none. The path `/audit` is Freehold's own: it shows a
    /// tenant its audit trail.
    pub fn new(admitted: OpenApiRouter) -> Self {
        Self { admitted, public: OpenApiRouter::new() }
    }

    /// Adds handlers that anybody reaches who names a tenant: a login page, a webhook. They take a
    /// [`PublicSession`](crate::PublicSession), and they tell whoever asks that a tenant exists.
    #[must_use]
    pub fn with_public(mut self, public: OpenApiRouter) -> Self {
        self.public = self.public.merge(public);
        self
    }
}

impl From<OpenApiRouter> for Handlers {
    fn from(admitted: OpenApiRouter) -> Self {
        Self::new(admitted)
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}
