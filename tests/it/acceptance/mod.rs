//! Checks `acceptance.toml`: does what an external harness does, using only what the file
//! specifies.

mod contract;
mod installation;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::{eventually::eventually, http_sink::HttpSink, smtp_sink::SmtpSink};

use self::{
    contract::{Contract, fill_json},
    installation::Installation,
};

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_follows_the_file_succeeds() -> Result<()> {
    let (smtp, http) = (SmtpSink::start().await?, HttpSink::start().await?);
    let rota = Installation::start(&smtp.url()).await?;
    assert_eq!(rota.tenants.len(), 3, "bootstrap creates three tenants");
    every_kind_is_accepted(&rota).await?;
    every_state_is_reached(&rota).await?;
    a_callback_arrives(&rota, &http).await?;
    a_batch_runs(&rota).await?;
    a_campaign_is_delivered(&rota, &smtp).await?;
    no_address_is_suppressed(&rota).await?;
    a_user_signs_in(&rota).await?;
    a_key_is_rotated_and_revoked(&rota).await?;
    the_index_is_checked(&rota).await?;
    assert_eq!(rota.asked(), rota.contract.names("/requests")?, "every request of the file was sent");
    rota.stop().await
}

/// An index entry without a job is reported, with exit status 1.
async fn the_index_is_checked(rota: &Installation) -> Result<()> {
    let holds = async || rota.check_index().await.is_ok_and(|(status, _)| status == Some(0)).then_some(());
    eventually(PATIENCE, "the index keeps its invariants", holds).await;
    let leases: Vec<String> = redis::cmd("KEYS").arg("*{default}:meta").query_async(&mut rota.redis().await?).await?;
    let leases = leases[0].replace(":meta", ":leases");
    redis::cmd("ZADD").arg(leases).arg("inf").arg("garbage").exec_async(&mut rota.redis().await?).await?;
    let (status, output) = rota.check_index().await?;
    // The leader may have removed the entry already.
    if status != Some(0) {
        assert_eq!(status, Some(1));
        assert!(output.contains("default: garbage: garbage"), "{output}");
    }
    eventually(PATIENCE, "the leader removes it", holds).await;
    Ok(())
}

async fn every_kind_is_accepted(rota: &Installation) -> Result<()> {
    let values = [("n", json!(1)), ("url", json!("http://127.0.0.1:9/")), ("token", json!("t"))];
    for kind in rota.contract.names("/kinds")? {
        // Far in the future, since some of these kinds end the worker.
        let id = rota.enqueue(kind, &values, &format!("kind-{kind}"), json!("2999-01-01T00:00:00Z")).await?;
        rota.reaches(&id, "waiting").await?;
        rota.cancel(&id).await?;
        rota.reaches(&id, "cancelled").await?;
    }
    Ok(())
}

async fn every_state_is_reached(rota: &Installation) -> Result<()> {
    let done = rota.enqueue("noop", &[], "noop", Value::Null).await?;
    rota.reaches(&done, "succeeded").await?;
    assert_eq!(rota.enqueue("noop", &[], "noop", Value::Null).await?, done, "{{key}} makes a repeat harmless");
    let tried = rota.enqueue("fail", &[("n", json!(1))], "fail", Value::Null).await?;
    rota.reaches(&tried, "succeeded").await?;
    let long = rota.enqueue("sleep", &[("n", json!(600_000))], "sleep", Value::Null).await?;
    rota.reaches(&long, "running").await?;
    rota.cancel(&long).await?;
    rota.reaches(&long, "cancelled").await?;
    let hopeless = rota.enqueue("fail", &[("n", json!(1_000))], "hopeless", Value::Null).await?;
    rota.reaches(&hopeless, "will_retry").await?;
    rota.reaches(&hopeless, "dead").await
}

async fn a_callback_arrives(rota: &Installation, http: &HttpSink) -> Result<()> {
    let values = [("url", json!(http.url())), ("token", json!("token \"1\""))];
    let id = rota.enqueue("callback", &values, "callback", Value::Null).await?;
    http.wait_for("token \"1\"", PATIENCE).await;
    rota.reaches(&id, "succeeded").await?;
    assert_eq!(http.total(), 1);
    Ok(())
}

async fn a_batch_runs(rota: &Installation) -> Result<()> {
    let template = rota.contract.text("/requests/enqueue_batch/job")?;
    let job = |kind: &str, args: Value| -> Result<Value> {
        Ok(serde_json::from_str(&fill_json(template, &[("kind", json!(kind)), ("args", args)]))?)
    };
    let mut jobs = vec![job("noop", rota.contract.args("noop", &[])?)?; 9];
    jobs.push(job("no_such_kind", json!({}))?);
    let answer = rota.ask("enqueue_batch", &[("key", json!("batch")), ("jobs", Value::Array(jobs))]).await?;
    let results = rota.told("enqueue_batch", "results", &answer)?.as_array().context("the results are a list")?;
    let pointer = rota.contract.text("/requests/enqueue_batch/id")?;
    let ids: Vec<&Value> = results.iter().filter_map(|result| result.pointer(pointer)).collect();
    assert_eq!(results.len(), 10, "{answer}");
    assert_eq!(ids.len(), 9, "{answer}");
    for id in ids {
        rota.reaches(id, "succeeded").await?;
    }
    Ok(())
}

async fn a_campaign_is_delivered(rota: &Installation, smtp: &SmtpSink) -> Result<()> {
    let csv = "email,first_name\nada@example.com,Ada\nbob@example.com,\"Bob \"\"B.\"\"\"\neve@example.com,Eve\n";
    let values = [
        ("key", json!("campaign")),
        ("csv", json!(csv)),
        ("subject", json!("Hello {{ first_name }}")),
        ("body", json!("Dear {{ first_name }},\nyour token is {{ email }}/token-7.\n")),
    ];
    let answer = rota.ask("campaign", &values).await?;
    let id = rota.told("campaign", "id", &answer)?.clone();
    smtp.wait_for(3, PATIENCE).await;
    let done = rota.contract.words("/requests/campaign_status/succeeded")?;
    let campaign = eventually(PATIENCE, "the campaign is done", async || {
        let answer = rota.ask("campaign_status", &[("id", id.clone())]).await.ok()?;
        let state = rota.told("campaign_status", "state", &answer).ok()?.as_str()?.to_owned();
        done.contains(&state.as_str()).then_some(answer)
    })
    .await;
    assert_eq!(rota.told("campaign_status", "sent", &campaign)?, 3);
    assert_eq!(smtp.count(), 3);
    assert_eq!(smtp.duplicates().len(), 0);
    for lead in ["ada@example.com", "bob@example.com", "eve@example.com"] {
        let mails = smtp.by_recipient(lead);
        assert!(mails[0].text().contains(&format!("{lead}/token-7")), "{}", mails[0].text());
    }
    Ok(())
}

async fn no_address_is_suppressed(rota: &Installation) -> Result<()> {
    let answer = rota.ask("suppressions", &[]).await?;
    assert_eq!(rota.told("suppressions", "items", &answer)?, &json!([]));
    Ok(())
}

async fn a_user_signs_in(rota: &Installation) -> Result<()> {
    rota.accepts("user", &rota.tenants[0]).await?;
    let of = |name: &str| rota.tenants[0][name].clone();
    let answer = rota.ask("token", &[("email", of("admin_email")), ("password", of("admin_password"))]).await?;
    rota.accepts("user", &json!({ "access_token": rota.told("token", "access", &answer)? })).await?;
    let refresh_token = rota.told("token", "refresh", &answer)?.clone();
    let answer = rota.ask("refresh", &[("refresh_token", refresh_token)]).await?;
    rota.told("refresh", "refresh", &answer)?;
    rota.accepts("user", &json!({ "access_token": rota.told("refresh", "access", &answer)? })).await
}

async fn a_key_is_rotated_and_revoked(rota: &Installation) -> Result<()> {
    let values = [("name", json!("acceptance")), ("scopes", json!(["jobs:read"])), ("expires_at", Value::Null)];
    let answer = rota.ask("api_key_create", &values).await?;
    rota.accepts("api_key", &json!({ "api_key": rota.told("api_key_create", "key", &answer)? })).await?;
    let answer = rota.ask("api_key_rotate", &[("id", rota.told("api_key_create", "id", &answer)?.clone())]).await?;
    let rotated = json!({ "api_key": rota.told("api_key_rotate", "key", &answer)? });
    rota.accepts("api_key", &rotated).await?;
    rota.ask("api_key_revoke", &[("id", rota.told("api_key_rotate", "id", &answer)?.clone())]).await?;
    let revoked = async || rota.accepts("api_key", &rotated).await.is_err().then_some(());
    eventually(PATIENCE, "the key is revoked", revoked).await;
    Ok(())
}

/// Some process reads every variable of the file: it refuses to start with an invalid value and
/// names the variable.
#[tokio::test(flavor = "multi_thread")]
async fn every_variable_of_the_file_is_read() -> Result<()> {
    let contract = Contract::read()?;
    let variables: BTreeSet<&str> = contract
        .names("/env")?
        .into_iter()
        .map(|name| contract.text(&format!("/env/{name}")))
        .collect::<Result<_>>()?;
    let mut named = BTreeSet::new();
    for command in ["/setup/migrate", "/roles/api/command", "/roles/worker/command", "/roles/scheduler/command"] {
        let mut spec = contract.command(command)?;
        for variable in &variables {
            spec = spec.env(variable, "\u{1}!");
        }
        let mut process = spec.start()?;
        assert!(!process.wait_exit(PATIENCE).await?.success(), "{command} starts with invalid values");
        let output = process.output()?;
        // Whole words, so that METRICS_PORT does not count as PORT.
        let words: BTreeSet<&str> = output.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        named.extend(variables.iter().copied().filter(|variable| words.contains(variable)));
    }
    assert_eq!(named, variables, "every variable is read by some process");
    Ok(())
}

#[test]
fn every_part_of_the_file_is_tried() -> Result<()> {
    let contract = Contract::read()?;
    let sections = ["auth", "build", "env", "kinds", "queue", "requests", "roles", "setup", "states", "version"];
    assert_eq!(contract.names("")?, sections);
    assert_eq!(contract.names("/roles")?, ["api", "scheduler", "worker"]);
    assert_eq!(contract.names("/setup")?, ["bootstrap", "migrate"]);
    assert_eq!(contract.names("/auth")?, ["api_key", "user"]);
    assert_eq!(contract.text("/build/command")?, "cargo build --release --workspace");
    let mut words = Vec::new();
    for state in contract.names("/states")? {
        words.extend(contract.words(&format!("/states/{state}"))?);
    }
    words.sort_unstable();
    let all = ["available", "cancelled", "completed", "discarded", "retryable", "running", "scheduled"];
    assert_eq!(words, all, "every job state has exactly one meaning to a harness");
    Ok(())
}
