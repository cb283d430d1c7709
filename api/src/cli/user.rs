//! `api user create`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use shared::{
    authz::Role,
    clock::Clock,
    config::{Env, MigrationConfig},
    db::{PoolSettings, TenantDb},
    email_address::EmailAddress,
    identity::password::{self, Password},
    ids,
    store::{
        tenants::OwnerConnection,
        users::{self, NewUser, UserState},
    },
};

/// Users.
#[derive(Args)]
pub struct User {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Creates a user of a tenant and prints it as JSON.
    Create(Create),
}

#[derive(Args)]
struct Create {
    /// The tenant's slug.
    #[arg(long)]
    tenant: String,
    /// The address to sign in with.
    #[arg(long)]
    email: String,
    /// Display name; the address if omitted.
    #[arg(long)]
    name: Option<String>,
    /// `super_admin`, admin, manager, `compliance_officer`, auditor, viewer or user.
    #[arg(long, default_value = "admin")]
    role: String,
    /// File with the password; `-` is standard input. Without it a random password is printed. (A
    /// command-line argument would be visible to all users of this machine.)
    #[arg(long)]
    password_file: Option<PathBuf>,
}

impl User {
    /// Runs the command.
    pub async fn run(self, env: &Env) -> anyhow::Result<()> {
        let Action::Create(create) = self.action;
        create.run(env).await
    }
}

impl Create {
    async fn run(self, env: &Env) -> anyhow::Result<()> {
        let email = EmailAddress::parse(&self.email).with_context(|| format!("--email {:?}", self.email))?;
        let Some(role) = Role::parse(&self.role) else {
            let known: Vec<&str> = Role::all().map(Role::as_str).collect();
            bail!("--role {:?}: known roles are {}", self.role, known.join(", "));
        };
        let name = self.name.unwrap_or_else(|| email.to_string());
        let (text, is_random) = match &self.password_file {
            Some(file) => {
                (super::read_secret("--password-file", file)?.trim_end_matches(['\r', '\n']).to_owned(), false)
            }
            None => (password::random_text(), true),
        };
        let password = Password::new(&text, &[&self.email, &name])?;
        let config = MigrationConfig::load(env)?;
        let mut owner = OwnerConnection::open(config.owner.expose()).await?;
        let tenant = owner.find_tenant(&self.tenant).await?;
        let tenant = tenant.with_context(|| format!("there is no tenant {:?}", self.tenant))?;
        let user = NewUser {
            id: ids::new_id(&Clock::system()),
            email_key: email.key(),
            email: email.to_string(),
            name,
            role,
            password_hash: Some(password.hash()),
            state: UserState::Active,
        };
        let tenants = TenantDb::open(config.database.app.expose(), "rota-cli", PoolSettings::default())?;
        let mut transaction = tenants.begin(tenant).await?;
        anyhow::ensure!(users::add(&mut transaction, &user).await?, "{} has a user {email}", self.tenant);
        transaction.commit().await?;
        let mut printed = serde_json::json!({ "id": user.id, "email": user.email, "role": role.as_str() });
        if is_random {
            printed["password"] = text.into();
        }
        super::answer(&printed.to_string())
    }
}
