//! `api demo`: creates demo tenants, or sends a demo campaign.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use shared::{
    clock::Clock,
    config::{Env, MigrationConfig},
    ids,
    store::tenants::OwnerConnection,
};
use url::Url;

use super::{api_key, campaign_demo};

/// Creates demo tenants with API keys, or sends a demo campaign.
#[derive(Args)]
pub struct Demo {
    /// Number of tenants to create; existing ones get an additional key.
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
            (Some(leads), Some(file)) => campaign_demo::send(&leads, &self.base_url, &read_key(&file)?).await,
            _ => make_tenants(env, self.tenants, self.json).await,
        }
    }
}

fn read_key(file: &Path) -> anyhow::Result<String> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock()).context("standard input")?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("--api-key-file {}", file.display()))?
    };
    Ok(text.trim().to_owned())
}

async fn make_tenants(env: &Env, count: u16, json: bool) -> anyhow::Result<()> {
    let config = MigrationConfig::load(env)?;
    let mut owner = OwnerConnection::open(config.owner.expose()).await?;
    let mut tenants = Vec::new();
    for number in 1..=count {
        let slug = format!("demo-{number}");
        let (id, tier) = owner
            .ensure_tenant(ids::new_id(&Clock::system()), &slug, &format!("Demo {number}"), "professional")
            .await?;
        let api_key = api_key::create_full_key(&mut owner, id, "demo").await?;
        tenants.push(json!({ "id": id, "slug": slug, "tier": tier, "api_key": api_key }));
    }
    if json {
        return super::answer(&json!({ "tenants": tenants }).to_string());
    }
    tenants
        .iter()
        .try_for_each(|tenant| super::answer(&format!("tenant {}: X-API-Key: {}", tenant["slug"], tenant["api_key"])))
}
