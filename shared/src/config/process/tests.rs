//! What complete configurations accept and refuse, and their messages. The sections test their own
//! types.

use super::super::{Environment, LogFormat, MailTransport, QueueFilter};
use super::*;
use std::time::Duration;

fn minimal() -> Env {
    [
        ("DATABASE_URL", "postgres://rota_app:app@localhost/rota"),
        ("DATABASE_SYSTEM_URL", "postgres://rota_system:system@localhost/rota"),
        ("REDIS_URL", "redis://localhost:6379"),
    ]
    .into_iter()
    .collect()
}

#[test]
fn three_addresses_suffice_in_development() {
    let api = ApiConfig::load(&minimal()).unwrap();
    assert_eq!(api.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(api.links.public_url.as_str(), "http://127.0.0.1:8080/");
    assert_eq!(api.environment.environment, Environment::Development);
    assert_eq!(api.timing.lease, Duration::from_secs(30));
    assert_eq!((api.metrics, api.limits.max_args_bytes), (None, 65_536));
    let worker = WorkerConfig::load(&minimal()).unwrap();
    assert_eq!(worker.http.listen.first().port(), 9464);
    assert_eq!(worker.mail.transport, MailTransport::Directory(".local/mail".into()));
    assert_eq!(worker.mail.from.as_str(), "no-reply@localhost");
    assert_eq!(worker.slots.queues, QueueFilter::All);
    let scheduler = SchedulerConfig::load(&minimal()).unwrap();
    assert_eq!((scheduler.http.listen.first().port(), scheduler.telemetry.format), (9465, LogFormat::Pretty));
}

#[test]
fn links_use_a_reachable_address() {
    let env =
        minimal().with("HOST", "0.0.0.0").with("ROTA_LINK_KEY", &"k".repeat(32)).with("JWT_SECRET", &"j".repeat(32));
    let api = ApiConfig::load(&env.with("PORT", "9000-9009")).unwrap();
    assert_eq!(api.http.listen.to_string(), "0.0.0.0:9000-9009");
    assert_eq!(api.links.public_url.as_str(), "http://127.0.0.1:9000/");
    let env = minimal().with("ROTA_PUBLIC_URL", "https://rota.example/app");
    assert_eq!(ApiConfig::load(&env).unwrap().links.public_url.as_str(), "https://rota.example/app");
}

#[test]
fn mails_come_from_the_public_host_or_a_given_address() {
    let env = minimal().with("ROTA_PUBLIC_URL", "https://rota.example/app");
    assert_eq!(WorkerConfig::load(&env).unwrap().mail.from.as_str(), "no-reply@rota.example");
    let env = env.with("ROTA_MAIL_FROM", "accounts@example.com");
    assert_eq!(WorkerConfig::load(&env).unwrap().mail.from.as_str(), "accounts@example.com");
    assert!(WorkerConfig::load(&env.with("ROTA_MAIL_FROM", "Rota <a@example.com>")).is_err());
}

#[test]
fn the_metrics_of_the_api_have_their_own_port_or_none() {
    let api = ApiConfig::load(
        &minimal()
            .with("HOST", "0.0.0.0")
            .with("ROTA_LINK_KEY", &"k".repeat(32))
            .with("JWT_SECRET", &"j".repeat(32))
            .with("METRICS_PORT", "9463"),
    )
    .unwrap();
    assert_eq!(api.metrics.map(|metrics| metrics.listen.to_string()).as_deref(), Some("0.0.0.0:9463"));
    assert_eq!(ApiConfig::load(&minimal()).unwrap().metrics, None);
    assert!(ApiConfig::load(&minimal().with("METRICS_PORT", "x")).is_err());
}

#[test]
fn all_problems_are_reported_together() {
    let env = minimal().with("DATABASE_URL", "").with("PORT", "99999").with("ROTA_LEASE_MS", "1999");
    let env = env.with("ROTA_LEASE", "5").with("REDIS_URL", "http://:hunter2@x");
    let text = ApiConfig::load(&env).unwrap_err().to_string();
    insta::assert_snapshot!(text, @r#"
    5 problems in the configuration
      PORT: "99999" is not accepted; expected a port from 0 (any free one) to 65535, or a range such as 8080-8099
      DATABASE_URL: not set; expected postgres://user:password@host:port/database
      REDIS_URL: the value (not shown here) is not accepted: it must begin with redis://, rediss://, redis+unix:// or unix://; expected redis://host:port/database or rediss://… for TLS
      ROTA_LEASE_MS: "1999" is not accepted; expected whole milliseconds from 2000
      ROTA_LEASE: unknown variable; did you mean ROTA_LEASE_MS?
    "#);
}

#[test]
fn shards_are_read_alike_by_every_process() {
    let env = minimal().with("ROTA_QUEUE_SHARDS", "email:4");
    let email = "email".parse().unwrap();
    assert_eq!(ApiConfig::load(&env).unwrap().redis.shards.of(&email), 4);
    assert_eq!(WorkerConfig::load(&env).unwrap().redis.shards.of(&email), 4);
    assert_eq!(SchedulerConfig::load(&env).unwrap().redis.shards.of(&email), 4);
    assert_eq!(OperatorConfig::load(&env).unwrap().redis.shards.of(&email), 4);
    let text = WorkerConfig::load(&env.with("ROTA_QUEUE_SHARDS", "default:2,email:65")).unwrap_err().to_string();
    insta::assert_snapshot!(text, @r#"
    1 problem in the configuration
      ROTA_QUEUE_SHARDS: entry 2, "email:65": the count is not a whole number from 1 to 64; expected queues with their numbers of shards, 1 to 64, separated by commas, such as email:4,default:2
    "#);
}

#[test]
fn production_refuses_development_settings() {
    let env = minimal().with("ENVIRONMENT", "production").with("ROTA_TEST_KINDS", "1");
    let env = env.with("ROTA_FAULT", "rescue_after_ledger:1:kill");
    let env = env.with("DATABASE_URL", "postgres://rota_app:rota_app@localhost/rota");
    let errors = WorkerConfig::load(&env).unwrap_err();
    let variables: Vec<_> = errors.problems().iter().map(|problem| problem.variable.as_str()).collect();
    assert_eq!(variables, ["ROTA_TEST_KINDS", "ROTA_FAULT", "DATABASE_URL", "ROTA_LINK_KEY", "SMTP_URL"]);
    assert!(!errors.to_string().contains("rota_app:rota_app"));
    let env = env.with("ROTA_TEST_KINDS", "0").with("ROTA_FAULT", "").with("SMTP_URL", "smtps://mail.example");
    let env = env.with("DATABASE_URL", "postgres://rota_app:x8Jk2@localhost/rota");
    assert!(WorkerConfig::load(&env.with("ROTA_LINK_KEY", &"k".repeat(32))).is_ok());
}

#[test]
fn the_built_in_secrets_are_accepted_on_loopback_only() {
    for host in ["127.0.0.1", "127.8.9.1", "::1", "localhost"] {
        assert!(ApiConfig::load(&minimal().with("HOST", host)).is_ok(), "{host}");
    }
    for host in ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"] {
        for environment in ["", "development", "test", "production"] {
            let env = minimal().with("HOST", host).with("ENVIRONMENT", environment);
            let errors = ApiConfig::load(&env).unwrap_err();
            let refused: Vec<_> = errors.problems().iter().map(|problem| problem.variable.as_str()).collect();
            assert_eq!(refused[..2], ["ROTA_LINK_KEY", "JWT_SECRET"], "{host} {environment}");
            let env = env.with("ROTA_LINK_KEY", &"k".repeat(32)).with("JWT_SECRET", &"j".repeat(32));
            assert!(ApiConfig::load(&env).is_ok(), "{host} {environment}");
        }
    }
}

#[test]
fn an_unset_environment_is_marked_as_assumed() {
    assert!(ApiConfig::load(&minimal()).unwrap().environment.assumed);
    assert!(!ApiConfig::load(&minimal().with("ENVIRONMENT", "development")).unwrap().environment.assumed);
}

#[test]
fn a_migration_requires_the_owner_url() {
    let errors = MigrationConfig::load(&minimal()).unwrap_err();
    assert_eq!(errors.problems()[0].variable, "DATABASE_OWNER_URL");
    let env = minimal().with("DATABASE_OWNER_URL", "postgres://postgres@localhost/rota");
    assert!(MigrationConfig::load(&env).is_ok());
}

#[test]
fn debug_shows_no_secrets() {
    let env = minimal().with("ROTA_LINK_KEY", "hunter2-hunter2-hunter2-hunter2-hunter2");
    let env = env.with("SMTP_URL", "smtp://me:hunter2@mail").with("REDIS_URL", "redis://:hunter2@cache");
    let env = env.with("DATABASE_URL", "postgres://rota_app:hunter2@localhost/rota");
    assert!(!format!("{:?}", WorkerConfig::load(&env).unwrap()).contains("hunter2"));
}

#[test]
fn access_tokens_are_signed_by_one_key() {
    let problems = |env: Env| ApiConfig::load(&env).err().map(|errors| errors.to_string()).unwrap_or_default();
    assert_eq!(problems(minimal()), "");
    assert_eq!(problems(minimal().with("JWT_SECRET", &"j".repeat(32)).with("JWT_OTHER_SECRET", &"o".repeat(32))), "");
    let short = problems(minimal().with("JWT_SECRET", &"j".repeat(31)));
    assert!(short.contains("JWT_SECRET: the value (not shown here) is not accepted"), "{short}");
    let public = problems(minimal().with("HOST", "0.0.0.0").with("ROTA_LINK_KEY", &"k".repeat(32)));
    assert!(public.contains("JWT_SECRET: the development secret is refused where HOST is not a loopback"), "{public}");
    let odd = problems(minimal().with("JWT_PRIVATE_KEY", "no key").with("JWT_OTHER_PUBLIC_KEY", "no key"));
    assert!(
        odd.contains("JWT_PRIVATE_KEY: the value (not shown here)") && odd.contains("JWT_OTHER_PUBLIC_KEY"),
        "{odd}"
    );
}
