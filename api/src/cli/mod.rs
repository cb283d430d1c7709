//! The operator's commands, one file each.
//!
//! Invariant: a command writes its result to standard output, and messages about its work to
//! standard error.

mod api_client;
mod api_key;
mod campaign_demo;
mod demo;
mod migrate;
mod openapi;
mod queue;
mod serve;
mod tenant;
mod user;

use std::path::Path;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shared::{config::Env, db};

/// Rota's API server and operator commands.
#[derive(Parser)]
#[command(name = "api", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the HTTP API until it is stopped.
    Serve,
    /// Creates the database roles and migrates the schema to this release. Safe to run from several
    /// places at once.
    Migrate,
    /// Creates demo tenants with API keys, or sends a demo campaign.
    Demo(demo::Demo),
    /// Tenants.
    Tenant(tenant::Tenant),
    /// Users.
    User(user::User),
    /// API clients.
    ApiClient(api_client::ApiClient),
    /// API keys.
    ApiKey(api_key::ApiKey),
    /// Queues: contents, pauses and tenant limits.
    Queue(queue::Queue),
    /// Prints the OpenAPI document.
    Openapi,
}

impl Arguments {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        let env = Env::from_process();
        shared::core_dumps::forbid_unless_permitted(&env);
        // A second provider in one process is not an error: it is the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let done = match self.command {
            Command::Serve => serve::serve(&env).await,
            Command::Migrate => migrate::migrate(&env).await,
            Command::Demo(demo) => demo.run(&env).await,
            Command::Tenant(tenant) => tenant.run(&env).await,
            Command::User(user) => user.run(&env).await,
            Command::ApiClient(api_client) => api_client.run(&env).await,
            Command::ApiKey(api_key) => api_key.run(&env).await,
            Command::Queue(queue) => queue.run(&env).await,
            Command::Openapi => openapi::print(),
        };
        done.map_err(with_advice)
    }
}

/// Adds what to do about an error of a database that `api migrate` has not prepared.
fn with_advice(error: anyhow::Error) -> anyhow::Error {
    match error.chain().find_map(|cause| db::advice(cause.downcast_ref()?)) {
        Some(advice) => error.context(advice),
        None => error,
    }
}

/// The content of the file that `argument` names; `-` is standard input. (A secret on the command
/// line would be visible to all users of this machine.)
fn read_secret(argument: &str, file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return std::io::read_to_string(std::io::stdin().lock()).context("standard input");
    }
    std::fs::read_to_string(file).with_context(|| format!("{argument} {}", file.display()))
}

/// Writes a result to standard output.
fn answer(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
