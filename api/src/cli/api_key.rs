//! `api api-key create`.

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use clap::{Args, Subcommand};
use shared::{
    authz::Permission,
    clock::Clock,
    config::{Env, MigrationConfig},
    identity::api_key::ApiKeySecret,
    ids,
    store::{api_keys::NewApiKey, tenants::OwnerConnection},
    tenancy::TenantId,
};

/// API keys.
#[derive(Args)]
pub struct ApiKey {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Creates a key and prints it as JSON. The key cannot be shown again.
    Create {
        /// The tenant's slug.
        #[arg(long)]
        tenant: String,
        /// A name for the key.
        #[arg(long, default_value = "api key")]
        name: String,
        /// Scopes of the key, separated by commas; all scopes if omitted.
        #[arg(long, value_delimiter = ',')]
        scopes: Vec<String>,
        /// Days until the key expires; never if omitted.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        expires_in_days: Option<u16>,
    },
}

impl ApiKey {
    /// Runs the command.
    pub async fn run(self, env: &Env) -> anyhow::Result<()> {
        let Action::Create { tenant, name, scopes, expires_in_days } = self.action;
        check_scopes(&scopes)?;
        let config = MigrationConfig::load(env)?;
        let mut owner = OwnerConnection::open(config.owner.expose()).await?;
        let id = owner.find_tenant(&tenant).await?.with_context(|| format!("there is no tenant {tenant:?}"))?;
        let (clock, scopes) = (Clock::system(), if scopes.is_empty() { all_scopes() } else { scopes });
        let expires_at = expires_in_days.map(|days| clock.now() + TimeDelta::days(days.into()));
        let new = NewApiKey { id: ids::new_id(&clock), name, scopes, expires_at, created_by: None };
        let secret = ApiKeySecret::random();
        owner.create_api_key(id, &new, &secret).await?;
        super::answer(
            &serde_json::json!({
                "id": new.id,
                "api_key": secret.present(new.id),
                "scopes": new.scopes,
                "expires_at": new.expires_at,
            })
            .to_string(),
        )
    }
}

/// Creates a key with every scope, for the demo.
pub async fn create_full_key(owner: &mut OwnerConnection, tenant: TenantId, name: &str) -> anyhow::Result<String> {
    let new = NewApiKey {
        id: ids::new_id(&Clock::system()),
        name: name.to_owned(),
        scopes: all_scopes(),
        expires_at: None,
        created_by: None,
    };
    let secret = ApiKeySecret::random();
    owner.create_api_key(tenant, &new, &secret).await?;
    Ok(secret.present(new.id))
}

/// Every scope that a key can have.
pub(super) fn all_scopes() -> Vec<String> {
    Permission::of_tenants().map(|permission| permission.as_str().to_owned()).collect()
}

/// Refuses a scope that no key can have.
pub(super) fn check_scopes(scopes: &[String]) -> anyhow::Result<()> {
    match scopes.iter().find(|scope| Permission::parse(scope).is_none_or(Permission::is_of_operators)) {
        Some(unknown) => bail!("unknown scope {unknown:?}; known scopes: {}", all_scopes().join(", ")),
        None => Ok(()),
    }
}
