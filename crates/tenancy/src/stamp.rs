//! The identity stamp: one row in every tenant's database that says whose it is.
//!
//! The control plane writes it once; whoever dials reads it before anything else, so that a URL that leads to another
//! tenant's database opens nothing. Runtime roles may read it, never change it.

/// The stamp's table.
pub const TABLE: &str = "freehold_stamp";

/// Makes the table: `id` is always 1, so that there is one row at most. The same text for every engine.
pub const CREATE: &str = "CREATE TABLE IF NOT EXISTS freehold_stamp (\
     id INTEGER PRIMARY KEY CHECK (id = 1), tenant_id TEXT NOT NULL)";

/// Reads the stamp: one row with one text column, the tenant's id in UUID form; no row while there is no stamp.
pub const SELECT: &str = "SELECT tenant_id FROM freehold_stamp WHERE id = 1";
