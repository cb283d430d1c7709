//! Renders a campaign's templates into one recipient's mail, identically for preview and sending.
//!
//! Invariant: a campaign's content does not change after it leaves the draft state, so compiled
//! templates are cached by campaign id. Templates are compiled and rendered on the
//! [`shared::compute::ComputePool`], outside of any transaction.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use shared::{
    compute::{Busy, ComputePool},
    db::TenantDb,
    store::{
        campaigns::{self, Campaign},
        recipients::Addressee,
    },
    tenancy::TenantId,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    ports::mail::{Mailbox, OutgoingMail},
    templates::{CompiledTemplate, MailTemplate, RenderedMail, TemplateError},
    unsubscribe::{UnsubscribeLinks, Unsubscriber},
};

/// Maximum number of cached campaigns, of all tenants and of one tenant; a campaign that is not
/// cached is compiled again.
const KEPT: usize = 100;
const KEPT_OF_A_TENANT: usize = 8;

/// Labels of these computations in metrics.
pub const COMPILE: &str = "compile_template";
pub const RENDER: &str = "render_template";

/// A compiled campaign, ready to be rendered for any recipient.
pub struct CampaignMail {
    id: Uuid,
    from: Mailbox,
    template: CompiledTemplate,
}

impl CampaignMail {
    /// Compiles a campaign's templates. Blocking computation: do not call it on a runtime thread.
    pub fn compile(campaign: &Campaign) -> Result<Self, TemplateError> {
        let template = MailTemplate {
            subject: campaign.subject.clone(),
            text: campaign.text_body.clone(),
            html: campaign.html_body.clone(),
        };
        Ok(Self {
            id: campaign.id,
            from: Mailbox { address: campaign.from_address.clone(), name: campaign.from_name.clone() },
            template: CompiledTemplate::compile(&template)?,
        })
    }

    /// The lead columns that every mail needs, without the variables that Rota sets itself.
    pub fn required(&self) -> Vec<String> {
        let own = ["email", "unsubscribe_url"];
        self.template.required().filter(|name| !own.contains(name)).map(str::to_owned).collect()
    }

    /// Renders the templates for one recipient. Blocking computation: do not call it on a runtime
    /// thread.
    pub fn render(
        &self,
        links: &UnsubscribeLinks,
        unsubscriber: Unsubscriber,
        email: &str,
        variables: &Value,
    ) -> Result<RenderedMail, TemplateError> {
        let mut values = variables.as_object().cloned().unwrap_or_else(Map::new);
        values.insert("email".into(), email.into());
        values.insert("unsubscribe_url".into(), links.url(unsubscriber).as_str().into());
        self.template.render(&Value::Object(values))
    }

    /// Builds the mail to one recipient. The same date always produces the same octets.
    pub async fn write(
        self: &Arc<Self>,
        compute: &ComputePool,
        links: &UnsubscribeLinks,
        unsubscriber: Unsubscriber,
        addressee: &Addressee,
        date: DateTime<Utc>,
    ) -> Result<Result<OutgoingMail, TemplateError>, Busy> {
        let list_unsubscribe = Some(links.url(unsubscriber));
        let (mail, links, to) = (Arc::clone(self), links.clone(), addressee.email.clone());
        let variables = addressee.variables.clone();
        let render = move || mail.render(&links, unsubscriber, &to, &variables);
        let rendered = compute.run(unsubscriber.tenant, RENDER, render).await?;
        Ok(rendered.map(|RenderedMail { subject, text, html }| OutgoingMail {
            message_id: self.message_id(unsubscriber.recipient),
            from: self.from.clone(),
            to: Mailbox::new(&addressee.email),
            subject,
            text,
            html,
            list_unsubscribe,
            date,
            campaign: Some(self.id),
        }))
    }

    fn message_id(&self, recipient: Uuid) -> String {
        let domain = self.from.address.rsplit_once('@').map_or("rota.invalid", |(_, domain)| domain);
        format!("{recipient}@{domain}")
    }
}

/// A campaign's compiled templates, or the error in them: a draft of an earlier release may use
/// features that are no longer supported.
pub type Compiled = Result<Arc<CampaignMail>, TemplateError>;

type Key = (TenantId, Uuid);

/// The cache of compiled campaigns of a process. Each campaign is compiled once, however many of
/// its mails are due.
#[derive(Default)]
pub struct CampaignMails {
    compiled: Mutex<HashMap<Key, Arc<OnceCell<Compiled>>>>,
}

/// Why there is nothing to cache.
enum Missing {
    Campaign,
    Failure(anyhow::Error),
}

impl CampaignMails {
    /// The compiled campaign; `None` if no campaign has this id.
    pub async fn of(
        &self,
        tenants: &TenantDb,
        compute: &ComputePool,
        tenant: TenantId,
        id: Uuid,
    ) -> anyhow::Result<Option<Compiled>> {
        let cell = self.cell((tenant, id));
        match cell.get_or_try_init(|| compile(tenants, compute, tenant, id)).await {
            Ok(compiled) => Ok(Some(compiled.clone())),
            Err(Missing::Campaign) => Ok(None),
            Err(Missing::Failure(error)) => Err(error),
        }
    }

    fn cell(&self, key: Key) -> Arc<OnceCell<Compiled>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = compiled.get(&key) {
            return Arc::clone(cached);
        }
        if let Some(other) = surplus(&compiled, key.0) {
            compiled.remove(&other);
        }
        Arc::clone(compiled.entry(key).or_default())
    }
}

/// The entry to evict before another campaign of the tenant is cached: one of the tenant's own if
/// it has used its share, so that no tenant evicts the campaigns of others.
fn surplus<T>(kept: &HashMap<Key, T>, tenant: TenantId) -> Option<Key> {
    let own = || kept.keys().filter(|key| key.0 == tenant);
    if own().count() >= KEPT_OF_A_TENANT {
        return own().next().copied();
    }
    if kept.len() >= KEPT { kept.keys().next().copied() } else { None }
}

/// Reads and compiles. The transaction ends before the compilation begins.
async fn compile(tenants: &TenantDb, compute: &ComputePool, tenant: TenantId, id: Uuid) -> Result<Compiled, Missing> {
    let failure = |error: sqlx::Error| Missing::Failure(error.into());
    let mut transaction = tenants.begin(tenant).await.map_err(failure)?;
    let campaign = campaigns::find(&mut transaction, id).await.map_err(failure)?;
    transaction.commit().await.map_err(failure)?;
    let campaign = campaign.ok_or(Missing::Campaign)?;
    let work = move || CampaignMail::compile(&campaign).map(Arc::new);
    let compiled = compute.run(tenant, COMPILE, work).await;
    compiled.map_err(|busy| Missing::Failure(busy.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_evicts_its_own_campaigns_first() {
        let (a, b) = (TenantId::new(Uuid::from_u128(1)), TenantId::new(Uuid::from_u128(2)));
        let mut kept: HashMap<Key, &str> = HashMap::new();
        kept.insert((b, Uuid::from_u128(0)), "compiled");
        for number in 1..=u128::try_from(KEPT_OF_A_TENANT).expect("small") {
            assert_eq!(surplus(&kept, a), None);
            kept.insert((a, Uuid::from_u128(number)), "compiled");
        }
        assert_eq!(surplus(&kept, a).map(|key| key.0), Some(a));
        assert_eq!(surplus(&kept, b), None);
        for number in 0..u128::try_from(KEPT).expect("small") {
            kept.insert((TenantId::new(Uuid::from_u128(10 + number)), Uuid::nil()), "compiled");
        }
        assert!(surplus(&kept, b).is_some(), "all places are taken");
    }
}
