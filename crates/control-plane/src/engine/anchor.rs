//! Anchors: one session of each data plane on a server, by a login role of its own. While it lives, the data plane does.

use async_trait::async_trait;
use secrecy::SecretString;
use uuid::Uuid;

use super::EngineError;

/// The login role by which one process has its anchor; another number after each time that it was barred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnchorRole {
    pub(crate) holder: Uuid,
    pub(crate) number: i64,
}

impl AnchorRole {
    /// Begins the names of all login roles of a process' anchors.
    pub(super) fn prefix(&self) -> String {
        format!("freehold_anchor_{}_", self.holder.simple())
    }

    /// 62 bytes of the 63 that a server takes, where the number is a time in milliseconds.
    pub(super) fn name(&self) -> String {
        format!("{}{}", self.prefix(), self.number)
    }
}

/// How anchors are made and barred. An engine without sessions has none.
#[async_trait]
pub(crate) trait Anchors {
    /// What the data plane dials; nothing where there are no anchors.
    fn anchor_url(&self, _role: AnchorRole, _password: &SecretString) -> Option<SecretString> {
        None
    }
    /// Makes a login role that owns nothing and holds one session, or gives it this password.
    async fn make_anchor(&self, _role: AnchorRole, _password: &SecretString) -> Result<(), EngineError> {
        Ok(())
    }
    /// Which of these login roles are not there: a server may have been restored from before they were made.
    async fn missing_anchors(&self, _roles: &[AnchorRole]) -> Result<Vec<AnchorRole>, EngineError> {
        Ok(Vec::new())
    }
    /// Drops the process' login roles up to this one: no anchor of theirs begins after it. One that is there goes on.
    async fn bar_anchors(&self, _up_to: AnchorRole) -> Result<(), EngineError> {
        Ok(())
    }
    /// Ends the sessions that have this name. They may still be there for a moment.
    async fn end_sessions_named(&self, _name: &str) -> Result<(), EngineError> {
        Ok(())
    }
}
