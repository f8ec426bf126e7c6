//! What the registry keeps for a server beside tenants' databases: its template, its ready databases, the count of its places.

use sea_orm::DbErr;

use super::servers::unreachable;
use super::{Cure, Doctor, Finding, Kind, LOOK};
use crate::engine::EngineError;
use crate::provision::{On, StockError, gaps, places};
use crate::registry::entities::servers;

impl Doctor {
    /// What is wrong with it.
    pub(super) async fn keeping(&self, server: &servers::Model) -> Result<Vec<Finding>, DbErr> {
        let mut findings = Vec::new();
        match self.stock_in_time(Box::pin(gaps(&self.plane, server))).await? {
            Err(error) => return Ok(vec![unreachable(server, &error)]),
            Ok(gaps) => {
                let remedy = "Nothing need be done: the keeper of ready databases makes another. Run the doctor with fix \
                              to have it done at once.";
                let missing = |kind, detail: &str, name: &crate::engine::DatabaseName| {
                    let finding = Finding::new(kind, detail, remedy).cured_by(Cure::MendStock);
                    Finding { database: Some(name.to_string()), ..finding }
                };
                findings.extend(gaps.templates.iter().map(|name| {
                    missing(
                        Kind::TemplateMissing,
                        "The server's template is not there, or was not dropped to the end.",
                        name,
                    )
                }));
                findings.extend(gaps.databases.iter().map(|name| {
                    let detail = "A database that is ready for a tenant, or its login role, is not on the server.";
                    missing(Kind::WarmDatabaseMissing, detail, name)
                }));
                for (name, limit) in &gaps.limits {
                    let detail = format!(
                        "The login role of a ready database may hold {limit} connections, and not {}.",
                        server.connection_budget
                    );
                    let remedy = "Nothing need be done: the keeper of ready databases sets it. Run the doctor with fix to \
                                  have it done at once.";
                    let finding = Finding::new(Kind::PrivilegesDrifted, detail, remedy).cured_by(Cure::MendStock);
                    findings.push(Finding { database: Some(name.to_string()), ..finding });
                }
            }
        }
        if let Some((counted, taken)) = places(self.plane.registry.db(), server.id).await?
            && i64::from(counted) != taken
        {
            let detail =
                format!("By its own count {counted} tenants have a place on it, and {taken} are placed there.");
            let remedy = "Run the doctor with fix, which counts them anew.";
            findings.push(Finding::new(Kind::PlacedDisagrees, detail, remedy).cured_by(Cure::RecountPlaces));
        }
        for finding in &mut findings {
            finding.server = Some(server.name.clone());
            finding.on = Some(On::Server(server.id));
        }
        Ok(findings)
    }

    /// What of the stock's work failed on the server; a registry that fails is nobody's finding.
    async fn stock_in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StockError>>,
    ) -> Result<Result<T, EngineError>, DbErr> {
        let done = self.in_time(LOOK, async { Ok(work.await) }).await;
        match done {
            Ok(Ok(done)) => Ok(Ok(done)),
            Ok(Err(StockError::Registry(error))) => Err(error),
            Ok(Err(StockError::Engine(error))) | Err(error) => Ok(Err(error)),
            Ok(Err(error)) => Ok(Err(EngineError::unavailable(error.to_string()))),
        }
    }
}
