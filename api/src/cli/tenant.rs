//! `api tenant create`.

use clap::{Args, Subcommand};
use shared::{
    clock::Clock,
    config::{Env, MigrationConfig},
    ids,
    store::tenants::OwnerConnection,
};

/// Tenants.
#[derive(Args)]
pub struct Tenant {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Creates a tenant and prints it as JSON. An existing slug keeps its tenant, whose id is
    /// printed.
    Create {
        /// Name in URLs and commands: lower-case letters, digits and dashes.
        slug: String,
        /// Display name; the slug if omitted.
        #[arg(long)]
        name: Option<String>,
        /// Tier: free, starter, professional, enterprise, custom or trial.
        #[arg(long, default_value = "free", value_parser = ["free", "starter", "professional", "enterprise", "custom", "trial"])]
        tier: String,
    },
}

impl Tenant {
    /// Runs the command.
    pub async fn run(self, env: &Env) -> anyhow::Result<()> {
        let Action::Create { slug, name, tier } = self.action;
        let valid = (1..=63).contains(&slug.len())
            && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        anyhow::ensure!(valid, "{slug:?} is not a slug: use 1 to 63 of a-z, 0-9 and -");
        let config = MigrationConfig::load(env)?;
        let mut owner = OwnerConnection::open(config.owner.expose()).await?;
        let (id, tier) =
            owner.ensure_tenant(ids::new_id(&Clock::system()), &slug, name.as_deref().unwrap_or(&slug), &tier).await?;
        super::answer(&serde_json::json!({ "id": id, "slug": slug, "tier": tier }).to_string())
    }
}
