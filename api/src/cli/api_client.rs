//! `api api-client create`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use shared::{
    clock::Clock,
    config::{Env, MigrationConfig},
    db::{PoolSettings, TenantDb},
    identity::api_key::ApiKeySecret,
    ids,
    store::{
        api_clients::{self, NewApiClient},
        tenants::OwnerConnection,
    },
    tenancy::TenantId,
};
use uuid::Uuid;

use super::api_key;

/// API clients.
#[derive(Args)]
pub struct ApiClient {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Creates an API client and prints it as JSON. The secret cannot be shown again.
    Create {
        /// The tenant's slug.
        #[arg(long)]
        tenant: String,
        /// A name for the client.
        #[arg(long, default_value = "api client")]
        name: String,
        /// Scopes of the client, separated by commas; all scopes if omitted.
        #[arg(long, value_delimiter = ',')]
        scopes: Vec<String>,
    },
}

impl ApiClient {
    /// Runs the command.
    pub async fn run(self, env: &Env) -> anyhow::Result<()> {
        let Action::Create { tenant, name, scopes } = self.action;
        api_key::check_scopes(&scopes)?;
        let config = MigrationConfig::load(env)?;
        let mut owner = OwnerConnection::open(config.owner.expose()).await?;
        let id = owner.find_tenant(&tenant).await?.with_context(|| format!("there is no tenant {tenant:?}"))?;
        let tenants = TenantDb::open(config.database.app.expose(), "rota-cli", PoolSettings::default())?;
        let scopes = if scopes.is_empty() { api_key::all_scopes() } else { scopes };
        let (client_id, client_secret) = create(&tenants, id, &name, scopes.clone()).await?;
        super::answer(
            &serde_json::json!({ "client_id": client_id, "client_secret": client_secret, "scopes": scopes })
                .to_string(),
        )
    }
}

/// Creates a client without a creator; returns its id and its secret.
pub(super) async fn create(
    tenants: &TenantDb,
    tenant: TenantId,
    name: &str,
    scopes: Vec<String>,
) -> anyhow::Result<(Uuid, String)> {
    let client = NewApiClient { id: ids::new_id(&Clock::system()), name: name.to_owned(), scopes, created_by: None };
    let secret = ApiKeySecret::random();
    let mut transaction = tenants.begin(tenant).await?;
    api_clients::add(&mut transaction, &client, &secret).await?;
    transaction.commit().await?;
    Ok((client.id, secret.present_as_client(client.id)))
}
