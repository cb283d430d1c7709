//! `api tenant create|suspend|reactivate`.

use clap::{Args, Subcommand};
use shared::{
    clock::Clock,
    config::{Env, MigrationConfig},
    ids,
    store::{companies, tenants::OwnerConnection},
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
    /// Suspends a tenant: within 5 seconds all its credentials are refused. Running jobs go on.
    Suspend(Suspension),
    /// Ends the suspension of a tenant: its credentials work again.
    Reactivate(Suspension),
}

#[derive(Args)]
struct Suspension {
    /// The tenant's slug.
    slug: String,
    /// Why, for other operators; stored with the tenant.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

impl Tenant {
    /// Runs the command.
    pub async fn run(self, env: &Env) -> anyhow::Result<()> {
        match self.action {
            Action::Create { slug, name, tier } => Self::create(env, slug, name, tier).await,
            Action::Suspend(suspension) => suspension.apply(env, true).await,
            Action::Reactivate(suspension) => suspension.apply(env, false).await,
        }
    }

    async fn create(env: &Env, slug: String, name: Option<String>, tier: String) -> anyhow::Result<()> {
        anyhow::ensure!(companies::is_slug(&slug), "{slug:?} is not a slug: use 1 to 63 of a-z, 0-9 and -");
        let mut owner = open(env).await?;
        let (id, tier) =
            owner.ensure_tenant(ids::new_id(&Clock::system()), &slug, name.as_deref().unwrap_or(&slug), &tier).await?;
        super::answer(&serde_json::json!({ "id": id, "slug": slug, "tier": tier }).to_string())
    }
}

impl Suspension {
    async fn apply(self, env: &Env, is_suspended: bool) -> anyhow::Result<()> {
        let Self { slug, reason } = self;
        let found = open(env).await?.set_suspended(&slug, is_suspended, &reason).await?;
        anyhow::ensure!(found, "there is no tenant {slug:?}");
        super::answer(&serde_json::json!({ "slug": slug, "suspended": is_suspended, "reason": reason }).to_string())
    }
}

async fn open(env: &Env) -> anyhow::Result<OwnerConnection> {
    let config = MigrationConfig::load(env)?;
    Ok(OwnerConnection::open(config.owner.expose()).await?)
}
