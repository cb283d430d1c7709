//! `api demo`: creates demo tenants, each with a key, an API client and a signed-in administrator, or sends a demo campaign.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use shared::{
    authz::Role,
    clock::Clock,
    config::{DemoConfig, Env},
    db::{PoolSettings, TenantDb},
    identity::{
        access_token::{AccessTokens, Subject},
        password::{self, Password},
    },
    ids,
    store::{
        sessions::{self, EndReason},
        tenants::OwnerConnection,
        users::{NewUser, UserState},
    },
    tenancy::TenantId,
};
use url::Url;
use uuid::Uuid;

use super::{api_client, api_key, campaign_demo};

/// Creates demo tenants with API keys and administrators, or sends a demo campaign.
#[derive(Args)]
pub struct Demo {
    /// Number of tenants to create; existing ones get an additional key, and their
    /// administrator a new password.
    #[arg(long, default_value_t = 1, conflicts_with = "campaign")]
    tenants: u16,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// A CSV file of leads: sends a campaign to them through a running API.
    #[arg(long, requires = "api_key_file")]
    campaign: Option<PathBuf>,
    /// Base URL of the API.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    base_url: Url,
    /// File with the API key for the campaign; `-` is standard input. (A command-line argument
    /// would be visible to all users of this machine.)
    #[arg(long)]
    api_key_file: Option<PathBuf>,
}

impl Demo {
    /// Runs the command.
    pub async fn run(self, env: &Env) -> anyhow::Result<()> {
        match (self.campaign, self.api_key_file) {
            (Some(leads), Some(file)) => {
                campaign_demo::send(&leads, &self.base_url, super::read_secret("--api-key-file", &file)?.trim()).await
            }
            _ => make_tenants(env, self.tenants, self.json).await,
        }
    }
}

async fn make_tenants(env: &Env, count: u16, json: bool) -> anyhow::Result<()> {
    let config = DemoConfig::load(env)?;
    let mut owner = OwnerConnection::open(config.migration.owner.expose()).await?;
    let sessions = TenantDb::open(config.migration.database.app.expose(), "rota-cli", PoolSettings::default())?;
    let mut tenants = Vec::new();
    for number in 1..=count {
        let slug = format!("demo-{number}");
        let (id, tier) = owner
            .ensure_tenant(ids::new_id(&Clock::system()), &slug, &format!("Demo {number}"), "professional")
            .await?;
        let api_key = api_key::create_full_key(&mut owner, id, "demo").await?;
        let admin = ensure_admin(&mut owner, id, number).await?;
        let (client_id, client_secret) = api_client::create(&sessions, id, "demo", api_key::all_scopes()).await?;
        let access_token = sign_in(&sessions, &config.tokens.access_tokens, id, admin.id).await?;
        tenants.push(json!({
            "id": id, "slug": slug, "tier": tier, "api_key": api_key,
            "admin_email": admin.email, "admin_password": admin.password, "access_token": access_token,
            "client_id": client_id, "client_secret": client_secret,
        }));
    }
    if json {
        return super::answer(&json!({ "tenants": tenants }).to_string());
    }
    tenants.iter().try_for_each(|tenant| {
        let of = |name: &str| tenant[name].as_str().unwrap_or_default().to_owned();
        super::answer(&format!(
            "tenant {}: X-API-Key: {}; sign in as {} with {}",
            of("slug"),
            of("api_key"),
            of("admin_email"),
            of("admin_password")
        ))
    })
}

/// The administrator of a demo tenant.
struct Admin {
    id: Uuid,
    email: String,
    password: String,
}

/// The administrator of a demo tenant, with a new password.
async fn ensure_admin(owner: &mut OwnerConnection, tenant: TenantId, number: u16) -> anyhow::Result<Admin> {
    let (email, password) = (format!("admin@demo-{number}.example"), password::random_text());
    let user = NewUser {
        id: ids::new_id(&Clock::system()),
        email: email.clone(),
        email_key: email.clone(),
        name: format!("Demo {number}"),
        role: Role::Admin,
        password_hash: Some(Password::new(&password, &[&email])?.hash()),
        state: UserState::Active,
    };
    let id = owner.ensure_user(tenant, &user).await?;
    Ok(Admin { id, email, password })
}

/// Opens a session and returns its access token.
async fn sign_in(tenants: &TenantDb, tokens: &AccessTokens, tenant: TenantId, user: Uuid) -> anyhow::Result<String> {
    let mut transaction = tenants.begin(tenant).await?;
    // Whoever knew the password before this run is signed out.
    sessions::end_all(&mut transaction, Subject::User(user), None, EndReason::PasswordChanged).await?;
    let session = sessions::open(&mut transaction, ids::new_id(&Clock::system()), Subject::User(user)).await?;
    transaction.commit().await?;
    Ok(tokens.issue(&session.access_token(tenant), &[]))
}
