//! The HTTP API inside a test: the real router, layers and server on a free port, over the stores
//! of a [`TestSystem`].
//!
//! Invariant: requests go over a real connection with a key from the ledger, so a test sees what a
//! client sees, and each response is compared with the OpenAPI document (`openapi.rs`). Workers and
//! schedulers belong to the system and run only where a test starts them.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, OnceLock},
};

use anyhow::{Context as _, Result};
use api::{
    auth::{Authenticator, MailLimit, SignInLimit},
    client_address::TrustedProxies,
    dependency_quota::DependencyQuota,
    in_flight::{InFlightBytes, InFlightLimits},
    job_events::{JobEvents, StreamLimits},
    router::router,
    server::{self, HttpSettings},
    state::{AppState, Parts},
    uploads::Uploads,
};
use axum::http::{HeaderMap, Method};
use chrono::{DateTime, Utc};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use shared::{
    authz::{Permission, Role},
    compute::{ComputePool, ComputeSettings},
    config::{DependencyConfig, LimitsConfig, RateLimitConfig},
    identity::{
        TokenKeys, access_token::AccessTokens, api_key::ApiKeySecret, password::Password, refresh_token::RefreshTokens,
    },
    ids,
    rate_limit::{RateLimitSettings, RateLimiter},
    store::{
        api_keys::NewApiKey,
        tenants::OwnerConnection,
        users::{self, NewUser, UserState},
    },
    stores::Stores,
    tenancy::TenantId,
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{openapi, system::TestSystem};

/// The API of one test; stopped on `Drop`.
pub struct TestApp {
    /// The stores, and workers and schedulers where a test needs them.
    pub system: TestSystem,
    limits: AppLimits,
    address: SocketAddr,
    _stop: DropGuard,
}

/// The limits of an API. The rate of requests is unlimited by default.
#[derive(Clone, Default)]
pub struct AppLimits {
    pub streams: StreamLimits,
    pub dependencies: DependencyConfig,
    pub rates: RateLimitConfig,
    pub rate_settings: RateLimitSettings,
}

/// A tenant with a key that has every permission.
pub struct TestTenant {
    pub id: TenantId,
    /// Sends requests with that key.
    pub api: ApiClient,
}

/// A user who is signed in.
pub struct TestUser {
    pub id: Uuid,
    /// Sends requests with the first access token.
    pub api: ApiClient,
    /// The first pair of tokens.
    pub tokens: Value,
}

/// The password of all users of tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// Sends requests with one credential.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: Client,
    base_url: String,
    /// The header with the credential.
    credential: Option<(&'static str, String)>,
}

/// A response, read in full.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// The body as JSON; `Null` if it is not JSON.
    pub body: Value,
}

impl TestApp {
    pub async fn start() -> Result<Self> {
        Self::on(TestSystem::start().await?).await
    }

    /// Starts the API over a system prepared by the test, such as one whose stores it will break.
    pub async fn on(system: TestSystem) -> Result<Self> {
        Self::with_streams(system, StreamLimits::default()).await
    }

    /// Starts the API with other limits on event streams.
    pub async fn with_streams(system: TestSystem, streams: StreamLimits) -> Result<Self> {
        Self::with(system, AppLimits { streams, ..AppLimits::default() }).await
    }

    /// Starts the API with other limits on job dependencies.
    pub async fn with_dependencies(system: TestSystem, dependencies: DependencyConfig) -> Result<Self> {
        Self::with(system, AppLimits { dependencies, ..AppLimits::default() }).await
    }

    /// Starts the API with other limits.
    pub async fn with(system: TestSystem, limits: AppLimits) -> Result<Self> {
        let (address, stop) = Self::serve(&system, &limits).await?;
        Ok(Self { system, limits, address, _stop: stop })
    }

    /// Starts another API over the same stores with the same limits, which runs until the guard is
    /// dropped, and returns an anonymous client of it.
    pub async fn another_api(&self) -> Result<(ApiClient, DropGuard)> {
        let (address, stop) = Self::serve(&self.system, &self.limits).await?;
        Ok((ApiClient::new(&format!("http://{address}"), None), stop))
    }

    async fn serve(system: &TestSystem, limits: &AppLimits) -> Result<(SocketAddr, DropGuard)> {
        let stop = CancellationToken::new();
        let queues: Vec<_> = system.registry.queues().into_iter().collect();
        let stores =
            Stores { tenants: system.tenants.clone(), system: system.system.clone(), index: system.index.clone() };
        let limiter = || RateLimiter::start(&system.index, limits.rate_settings, stop.clone());
        let state = AppState::from(Parts {
            without_query: OnceLock::new(),
            producer: system.producer.clone(),
            registry: Arc::clone(&system.registry),
            authenticator: Authenticator::new(system.system.clone(), access_tokens(), system.clock.clone()),
            refresh_tokens: RefreshTokens::new(b"the key of the tests' installation"),
            passwords: ComputePool::start(ComputeSettings::refusing()),
            sign_ins: SignInLimit::default(),
            mails: MailLimit::default(),
            rate_limiter: limits.rates.enabled.then(limiter).transpose()?,
            proxies: TrustedProxies::new(limits.rates.trusted_proxies.clone()),
            dependencies: DependencyQuota::new(limits.dependencies),
            events: JobEvents::start(&system.index, &queues, limits.streams, stop.clone()),
            in_flight: InFlightBytes::new(InFlightLimits::default()),
            uploads: Uploads::new(&LimitsConfig::default()),
            outbound: Arc::new(TestSystem::outbound_policy()),
            unsubscribe_links: system.unsubscribe_links(),
            account_links: system.account_links(),
            compute: ComputePool::start(ComputeSettings::refusing()),
            clock: system.clock.clone(),
            stores: stores.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = router(state, Arc::new(stores));
        tokio::spawn(server::serve(listener, router, HttpSettings::default(), stop.clone()));
        Ok((address, stop.drop_guard()))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn tenant(&self, slug: &str) -> Result<TestTenant> {
        let id = self.system.tenant(slug).await?;
        let scopes: Vec<&str> = Permission::of_tenants().map(Permission::as_str).collect();
        let key = self.key(id, &scopes, None).await?.1;
        Ok(TestTenant { id, api: self.client(&key) })
    }

    /// Creates a key and returns its id and text.
    pub async fn key(
        &self,
        tenant: TenantId,
        scopes: &[&str],
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<(Uuid, String)> {
        let mut owner = OwnerConnection::open(&self.system.urls.owner).await?;
        let scopes = scopes.iter().map(ToString::to_string).collect();
        let new = NewApiKey {
            id: ids::new_id(&self.system.clock),
            name: "test".into(),
            scopes,
            expires_at,
            created_by: None,
        };
        let secret = ApiKeySecret::random();
        owner.create_api_key(tenant, &new, &secret).await?;
        Ok((new.id, secret.present(new.id)))
    }

    /// Creates a user with a role, whose password is [`PASSWORD`].
    pub async fn user(&self, tenant: TenantId, role: Role, email: &str) -> Result<Uuid> {
        // Hashing takes long, and the salt is not what these tests are about.
        static HASH: LazyLock<String> =
            LazyLock::new(|| Password::presented(PASSWORD).expect("is not too long").hash());
        let user = NewUser {
            id: ids::new_id(&self.system.clock),
            email: email.to_owned(),
            email_key: email.to_owned(),
            name: "Test".to_owned(),
            role,
            password_hash: Some(HASH.clone()),
            state: UserState::Active,
        };
        let mut transaction = self.system.tenants.begin(tenant).await?;
        anyhow::ensure!(users::add(&mut transaction, &user).await?, "{email} exists");
        transaction.commit().await?;
        Ok(user.id)
    }

    /// Signs a user of [`Self::user`] in and returns the pair of tokens.
    pub async fn sign_in(&self, email: &str) -> Result<Value> {
        let body = serde_json::json!({ "email": email, "password": PASSWORD });
        Ok(self.anonymous().post("/api/v1/auth/token", &body).await?.ok(200).clone())
    }

    /// Creates a user with a role and signs the user in.
    pub async fn signed_in(&self, tenant: TenantId, role: Role, email: &str) -> Result<TestUser> {
        let id = self.user(tenant, role, email).await?;
        let tokens = self.sign_in(email).await?;
        let access_token = tokens["access_token"].as_str().context("no access token")?;
        Ok(TestUser { id, api: self.anonymous().with_token(access_token), tokens })
    }

    pub fn client(&self, key: &str) -> ApiClient {
        ApiClient::new(&format!("http://{}", self.address), Some(key))
    }

    pub fn anonymous(&self) -> ApiClient {
        ApiClient::new(&format!("http://{}", self.address), None)
    }
}

/// Signs and verifies with a secret of the tests.
pub fn access_tokens() -> AccessTokens {
    AccessTokens::new(TokenKeys::of_secret(b"a secret of the tests, 32 characters"), "https://rota.test", "rota")
}

impl ApiClient {
    /// A client of the API under `base_url`.
    ///
    /// # Panics
    /// If no HTTP client can be built, for lack of a TLS provider.
    pub fn new(base_url: &str, key: Option<&str>) -> Self {
        crate::tls::install_crypto_provider();
        openapi::load();
        let http = Client::builder().no_proxy().build().expect("a client without special settings can be made");
        let credential = key.map(|key| ("x-api-key", key.to_owned()));
        Self { http, base_url: base_url.trim_end_matches('/').to_owned(), credential }
    }

    /// A request that the caller may extend; [`Answer::to`] sends it.
    pub fn request(&self, method: &Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method.clone(), format!("{}{path}", self.base_url));
        match &self.credential {
            Some((name, value)) => request.header(*name, value),
            None => request,
        }
    }

    /// The same client with an API key instead of its credential.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { credential: Some(("x-api-key", key.to_owned())), ..self.clone() }
    }

    /// The same client with an access token instead of its credential.
    #[must_use]
    pub fn with_token(&self, access_token: &str) -> Self {
        Self { credential: Some(("authorization", format!("Bearer {access_token}"))), ..self.clone() }
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        Answer::to(self.request(&Method::PATCH, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        Answer::to(self.request(&Method::PUT, path).json(body)).await
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        Answer::to(self.request(&Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        Answer::to(self.request(&Method::POST, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        Answer::to(self.request(&Method::DELETE, path)).await
    }

    /// Posts without a body, as the control routes expect.
    pub async fn act(&self, path: &str) -> Result<Answer> {
        Answer::to(self.request(&Method::POST, path)).await
    }

    /// Like `post`, under an idempotency key.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Result<Answer> {
        Answer::to(self.request(&Method::POST, path).header("idempotency-key", key).json(body)).await
    }

    /// Uploads a file of leads.
    pub async fn upload(&self, path: &str, csv: impl Into<reqwest::Body>) -> Result<Answer> {
        Answer::to(self.request(&Method::POST, path).header("content-type", "text/csv").body(csv)).await
    }
}

impl Answer {
    /// Sends a request and reads the response in full.
    ///
    /// # Panics
    /// If the OpenAPI document does not declare the response.
    pub async fn to(request: RequestBuilder) -> Result<Self> {
        let (client, request) = request.build_split();
        let request = request.context("the request is invalid")?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = client.execute(request).await.context("the API does not respond")?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.context("the response was cut off")?;
        openapi::check(&method, &path, status, &headers, text.as_bytes());
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Self { status, headers, text, body })
    }

    /// A header as text; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body of a response with this status.
    ///
    /// # Panics
    /// If the status is different.
    #[track_caller]
    pub fn ok(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{}", self.text);
        &self.body
    }

    /// The body of a problem response, which must have all common members.
    ///
    /// # Panics
    /// If the status or code is different, the body is not a problem, or a member is missing.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> &Value {
        let told = (self.status, self.body["code"].as_str().unwrap_or_default());
        assert_eq!(told, (status, code), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert_eq!(self.body["request_id"], self.header("x-request-id"), "the problem contains its request id");
        for member in ["title", "detail", "request_id", "instance"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {}", self.text);
        }
        &self.body
    }

    /// The pointer and the detail of the only error in a problem response.
    ///
    /// # Panics
    /// If there is none or more than one.
    #[track_caller]
    pub fn only_error(&self) -> (&str, &str) {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(errors.len(), 1, "{}", self.text);
        (errors[0]["pointer"].as_str().unwrap_or_default(), errors[0]["detail"].as_str().unwrap_or_default())
    }

    /// The id in the body.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn id(&self) -> Uuid {
        let id = self.body["id"].as_str().and_then(|id| id.parse().ok());
        id.unwrap_or_else(|| panic!("no id in {} {}", self.status, self.text))
    }
}
