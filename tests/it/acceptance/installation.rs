//! Rota set up, started and called as `acceptance.toml` specifies.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use anyhow::{Context as _, Result, ensure};
use axum::http::Method;
use serde_json::{Value, json};
use tests::{
    eventually::eventually,
    free_port::free_port,
    postgres::{SharedServer, TestDatabase},
    process::{ProcessSpec, ProcessUnderTest},
    redis_server::{PrivateRedis, RedisOptions},
    test_app::{Answer, ApiClient},
};

use super::contract::{Contract, fill_json, fill_text};

const PATIENCE: Duration = Duration::from_mins(1);

/// A running system. Fields drop in order: the processes before their stores.
pub struct Installation {
    pub contract: Contract,
    /// From the bootstrap output.
    pub tenants: Vec<Value>,
    processes: Vec<ProcessUnderTest>,
    api: ApiClient,
    asked: Mutex<BTreeSet<String>>,
    /// The environment of the operator's commands.
    operator: Vec<(&'static str, String)>,
    redis: PrivateRedis,
    _database: TestDatabase,
}

impl Installation {
    /// Sets up an empty database and starts one process of each role.
    pub async fn start(smtp_url: &str) -> Result<Self> {
        let contract = Contract::read()?;
        let (redis, database) =
            (PrivateRedis::new(RedisOptions::default()).await?, SharedServer::from_env()?.create_database().await?);
        let urls = database.urls();
        let stores = [
            ("owner_database", urls.owner.clone()),
            ("app_database", urls.app.clone()),
            ("system_database", urls.system.clone()),
        ];
        run(with(&contract, contract.command("/setup/migrate")?, &stores)?).await?;
        let printed = run(with(&contract, contract.command("/setup/bootstrap")?, &stores)?).await?;
        let bootstrap: Value = serde_json::from_str(printed.trim()).context("bootstrap prints one JSON object")?;
        let tenants = bootstrap["tenants"].as_array().context("bootstrap has tenants")?.clone();

        let mut settings = stores[1..].to_vec();
        settings.extend([("redis", redis.url()), ("smtp", smtp_url.to_owned()), ("test_kinds", "1".to_owned())]);
        settings.extend([("lease_ms", "5000"), ("tick_ms", "100"), ("reconcile_ms", "200")].map(owned));
        settings.extend([("worker_slots", "4"), ("worker_queues", "campaigns,default,email")].map(owned));
        let operator = settings.clone();
        let port = free_port()?;
        settings.push(("listen_port", port.to_string()));
        let mut processes = Vec::new();
        for role in contract.names("/roles")? {
            let metrics_port = free_port()?;
            let spec = with(&contract, contract.command(&format!("/roles/{role}/command"))?, &settings)?;
            let spec = with(&contract, spec, &[("metrics_port", metrics_port.to_string())])?;
            let mut process = spec.start()?;
            let port = if role == "api" { port } else { metrics_port };
            let ready = format!("http://127.0.0.1:{port}{}", contract.text(&format!("/roles/{role}/ready"))?);
            process.wait_ready(&ready, PATIENCE).await?;
            processes.push(process);
        }
        let api = ApiClient::new(&format!("http://127.0.0.1:{port}"), None);
        let asked = Mutex::default();
        Ok(Self { contract, tenants, processes, api, asked, operator, redis, _database: database })
    }

    /// The exit status and the output of the index check.
    pub async fn check_index(&self) -> Result<(Option<i32>, String)> {
        let mut check = with(&self.contract, self.contract.command("/queue/check")?, &self.operator)?.start()?;
        let status = check.wait_exit(PATIENCE).await?;
        Ok((status.code(), check.output()?))
    }

    /// A connection to change the index directly.
    pub async fn redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        tests::redis_server::connect(&self.redis.url()).await
    }

    /// Sends a request of the file as the first tenant, and checks the response status.
    pub async fn ask(&self, name: &str, values: &[(&str, Value)]) -> Result<Value> {
        let request = self.contract.request(name)?;
        self.asked.lock().expect("no holder panics").insert(name.to_owned());
        let text = |member: &str| request[member].as_str().with_context(|| format!("requests.{name} has no {member}"));
        let method: Method = text("method")?.parse()?;
        let mut sent = self.api.request(&method, &fill_text(text("path")?, values));
        let (header, key) = self.contract.credential("api_key", &self.tenants[0])?;
        sent = sent.header(header, key);
        for (header, value) in request["headers"].as_object().into_iter().flatten() {
            sent = sent.header(header, fill_text(value.as_str().context("a header is a string")?, values));
        }
        if let Some(body) = request["body"].as_str() {
            sent = sent.header("content-type", "application/json").body(fill_json(body, values));
        }
        let answer = Answer::to(sent).await?;
        ensure!(request["status"] == answer.status, "{name}: {} {}", answer.status, answer.text);
        Ok(answer.body)
    }

    /// Whether a read is permitted with the credential of a tenant.
    pub async fn accepts(&self, principal: &str, tenant: &Value) -> Result<()> {
        let (header, value) = self.contract.credential(principal, tenant)?;
        let answer = Answer::to(self.api.request(&Method::GET, "/api/v1/jobs").header(header, value)).await?;
        ensure!(answer.status == 200, "{principal}: {} {}", answer.status, answer.text);
        Ok(())
    }

    /// The value in a response at the pointer from the file.
    pub fn told<'a>(&self, name: &str, member: &str, answer: &'a Value) -> Result<&'a Value> {
        let pointer = self.contract.text(&format!("/requests/{name}/{member}"))?;
        answer.pointer(pointer).with_context(|| format!("the answer to {name} has nothing at {pointer}: {answer}"))
    }

    /// Submits a job and returns its id.
    pub async fn enqueue(&self, kind: &str, values: &[(&str, Value)], key: &str, run_at: Value) -> Result<Value> {
        let args = self.contract.args(kind, values)?;
        let values = [("kind", json!(kind)), ("args", args), ("key", json!(key)), ("run_at", run_at)];
        let answer = self.ask("enqueue", &values).await?;
        self.told("enqueue", "id", &answer).cloned()
    }

    /// Waits until a job is in one of the states listed in the file for this word.
    pub async fn reaches(&self, id: &Value, word: &str) -> Result<()> {
        let states = self.contract.words(&format!("/states/{word}"))?;
        eventually(PATIENCE, &format!("job {id} is {word}"), async || {
            let answer = self.ask("status", &[("id", id.clone())]).await.ok()?;
            let state = self.told("status", "state", &answer).ok()?.as_str()?.to_owned();
            states.contains(&state.as_str()).then_some(())
        })
        .await;
        Ok(())
    }

    /// Cancels a job; fails unless the response shows a cancelled state.
    pub async fn cancel(&self, id: &Value) -> Result<()> {
        let answer = self.ask("cancel", &[("id", id.clone())]).await?;
        let state = self.told("cancel", "state", &answer)?.as_str().unwrap_or_default();
        ensure!(self.contract.words("/states/cancelled")?.contains(&state), "{answer}");
        Ok(())
    }

    /// The names of the requests sent so far, in ascending order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").iter().cloned().collect()
    }

    /// Sends SIGTERM to every role; each must exit successfully.
    pub async fn stop(mut self) -> Result<()> {
        for process in &mut self.processes {
            process.sigterm()?;
        }
        for process in &mut self.processes {
            let status = process.wait_exit(PATIENCE).await?;
            ensure!(status.success(), "{status}\n{}", process.output()?);
        }
        Ok(())
    }
}

fn owned((name, value): (&'static str, &str)) -> (&'static str, String) {
    (name, value.to_owned())
}

/// Adds variables by their keys in the file.
fn with(contract: &Contract, mut spec: ProcessSpec, settings: &[(&str, String)]) -> Result<ProcessSpec> {
    for (name, value) in settings {
        spec = spec.env(contract.text(&format!("/env/{name}"))?, value);
    }
    Ok(spec)
}

/// Runs a command to completion and returns its output.
async fn run(spec: ProcessSpec) -> Result<String> {
    let mut process = spec.start()?;
    let status = process.wait_exit(PATIENCE).await?;
    ensure!(status.success(), "{status}: {}", process.output()?);
    process.output()
}
