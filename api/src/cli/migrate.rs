//! `api migrate`.

use shared::{
    config::{Env, MigrationConfig},
    db::migrate,
};

/// Creates the database roles and runs the migrations.
pub async fn migrate(env: &Env) -> anyhow::Result<()> {
    let config = MigrationConfig::load(env)?;
    migrate::migrate(config.owner.expose(), config.database.app.expose(), config.database.system.expose()).await?;
    super::answer("the database is up to date")
}
