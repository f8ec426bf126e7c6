//! A server's address for data planes is tried as a data plane would: by the login role of a database that is made for it, and
//! dropped after it.

use crate::engine::{DatabaseName, Engine, EngineError, Slot, new_password};
use crate::plane::Plane;

/// Sessions of the look at once, and one to spare.
const CONNECTIONS: u32 = 3;

/// Refuses a server whose address for data planes does not lead there, or by a pooler that is of no use to them. A process that
/// dies meanwhile leaves a stray, which the doctor finds.
pub(crate) async fn try_way(plane: &Plane, engine: &dyn Engine) -> Result<(), EngineError> {
    if !engine.has_data_address() {
        return Ok(());
    }
    let (name, password) = {
        let mut rng = rand::rng();
        (DatabaseName::generate(plane.registry.mark(), &mut rng), new_password(&mut rng))
    };
    let tried = async {
        engine.create_database(&name).await?;
        engine.create_role(&name, Slot::A, &password, CONNECTIONS).await?;
        engine.check_way(&name, Slot::A, &password).await
    };
    let tried = tried.await;
    if let Err(error) = engine.drop_database(&name).await {
        tracing::warn!(database = %name, %error, "a database that was made for a look is left to the doctor");
    }
    tried
}
