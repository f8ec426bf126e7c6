//! Two databases of one version have one fingerprint, and each thing that somebody changes in one shows as a line.

use super::migrate::{Schema, Stage, Told};
use super::*;

fn schema() -> Schema {
    let owners = "CREATE TABLE owners (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)";
    let pets = "CREATE TABLE pets (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL, born DATE DEFAULT '2020-01-01', \
                owner INTEGER REFERENCES owners (id) ON DELETE CASCADE, legs INTEGER CHECK (legs < 9))";
    let rest = ["CREATE INDEX pets_by_name ON pets (name, born DESC)", "CREATE VIEW names AS SELECT name FROM pets"];
    Schema::of([Told::new("m2", [owners, pets, rest[0], rest[1]])])
}

/// What a change is, and the lines that tell it.
type Drift = (&'static str, &'static [&'static str]);

const ON_BOTH: [Drift; 4] = [
    ("CREATE TABLE more (id INTEGER)", &["+ table more", "+ column more.id INTEGER"]),
    ("DROP INDEX pets_by_name", &["- index pets_by_name"]),
    ("CREATE INDEX pets_by_name ON pets (name)", &["- index pets_by_name", "+ index pets_by_name"]),
    ("ALTER TABLE owners ADD COLUMN colour TEXT", &["+ column owners.colour TEXT"]),
];

const ON_POSTGRES: [Drift; 12] = [
    ("ALTER TABLE pets ALTER legs TYPE BIGINT", &["- column pets.legs integer", "+ column pets.legs bigint"]),
    ("ALTER TABLE pets ALTER name DROP NOT NULL", &["- column pets.name", "+ column pets.name"]),
    ("ALTER TABLE pets ALTER born SET DEFAULT '2021-01-01'", &["- column pets.born", "+ column pets.born"]),
    ("ALTER TABLE pets DROP CONSTRAINT pets_legs_check", &["- constraint pets.pets_legs_check CHECK"]),
    ("ALTER TABLE pets DROP CONSTRAINT pets_owner_fkey", &["- constraint pets.pets_owner_fkey FOREIGN KEY"]),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pets_by_name'::regclass",
        &["- index pets_by_name", "+ index pets_by_name"],
    ),
    ("CREATE OR REPLACE VIEW names AS SELECT name FROM pets WHERE legs > 2", &["- view names", "+ view names"]),
    ("CREATE SEQUENCE numbers", &["+ sequence numbers bigint START 1 INCREMENT 1"]),
    (
        "CREATE FUNCTION two() RETURNS INTEGER LANGUAGE sql AS 'SELECT 2'",
        &["+ function two() CREATE OR REPLACE FUNCTION"],
    ),
    (
        "CREATE TRIGGER noisy BEFORE UPDATE ON pets FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        &["+ trigger pets.noisy CREATE TRIGGER noisy"],
    ),
    ("CREATE TYPE size AS ENUM ('small', 'large')", &["+ type size ENUM 'small', 'large'"]),
    ("ALTER TABLE pets ENABLE ROW LEVEL SECURITY", &["- table pets", "+ table pets ROW SECURITY"]),
];

const ON_SQLITE: [Drift; 3] = [
    ("CREATE TRIGGER noisy AFTER UPDATE ON pets BEGIN SELECT 1; END", &["+ trigger noisy CREATE TRIGGER noisy"]),
    ("DROP VIEW names; CREATE VIEW names AS SELECT name FROM pets WHERE legs > 2", &["- view names", "+ view names"]),
    (
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '< 9', '< 10') WHERE name = 'pets'",
        &["- definition pets", "+ definition pets"],
    ),
];

async fn lines(stage: &Stage) -> Vec<String> {
    let entered = stage.enter().await;
    let lines = entered.schema().await.unwrap();
    entered.leave().await.unwrap();
    lines
}

async fn each_change_shows(kind: EngineKind, drifts: &[Drift]) {
    let schema = schema();
    let one = Stage::on(kind, &schema).await;
    one.roll(&schema, 2).await.unwrap();
    let expected = lines(&one).await;
    assert!(
        !expected.iter().any(|line| line.contains("freehold") || line.contains(one.name.as_str())),
        "{expected:#?}"
    );
    for (change, told) in ON_BOTH.iter().chain(drifts) {
        let other = Stage::on(kind, &schema).await;
        other.roll(&schema, 2).await.unwrap();
        let same = lines(&other).await;
        assert_eq!((diff(&expected, &same), hash(&same)), (Vec::new(), hash(&expected)));
        let db = other.other().await;
        let index_first = if change.starts_with("CREATE INDEX") { "DROP INDEX pets_by_name; " } else { "" };
        db.execute_unprepared(&format!("{index_first}{change}")).await.unwrap();
        db.close().await.unwrap();
        let found = lines(&other).await;
        // Postgres tells the schema, and types by names of its own.
        let plain = |line: &str| line.replace("public.", "").to_lowercase();
        let diff: Vec<String> = diff(&expected, &found).iter().map(|line| plain(line)).collect();
        assert_eq!(diff.len(), told.len(), "{change}: {diff:#?}");
        for told in *told {
            assert!(
                diff.iter().any(|line| line.starts_with(&told.to_lowercase())),
                "{change}: {told} is not in {diff:#?}"
            );
        }
        assert_ne!(hash(&found), hash(&expected), "{change}");
        other.end().await;
    }
    one.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_a_postgres_database_shows_as_a_line() {
    each_change_shows(EngineKind::Postgres, &ON_POSTGRES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_a_sqlite_database_shows_as_a_line() {
    each_change_shows(EngineKind::Sqlite, &ON_SQLITE).await;
}
