//! A campaign's templates made into one recipient's mail: the same for the preview and for the sending.
//!
//! Invariant: a campaign's content does not change after it left the draft, so compiled templates are kept by campaign id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value};
use shared::{
    db::TenantTx,
    store::{
        campaigns::{self, Campaign},
        recipients::Addressee,
    },
    tenancy::TenantId,
};
use uuid::Uuid;

use crate::{
    context::JobContext,
    ports::mail::{Mailbox, OutgoingMail},
    templates::{CompiledTemplate, MailTemplate, RenderedMail, TemplateError},
    unsubscribe::{UnsubscribeLinks, Unsubscriber},
};

/// Compiled campaigns kept at a time; beyond that the store is emptied, which costs a compilation each.
const KEPT: usize = 100;

/// A campaign ready to be written to anyone.
pub struct CampaignMail {
    id: Uuid,
    from: Mailbox,
    template: CompiledTemplate,
    sent_since: chrono::DateTime<chrono::Utc>,
}

impl CampaignMail {
    /// Compiles a campaign's templates.
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
            sent_since: campaign.started_at.unwrap_or(campaign.created_at),
        })
    }

    /// Fills the templates for one recipient.
    pub fn render(
        &self,
        links: &UnsubscribeLinks,
        who: Unsubscriber,
        email: &str,
        variables: &Value,
    ) -> Result<RenderedMail, TemplateError> {
        let mut values = variables.as_object().cloned().unwrap_or_else(Map::new);
        values.insert("email".into(), email.into());
        values.insert("unsubscribe_url".into(), links.url(who).as_str().into());
        self.template.render(&Value::Object(values))
    }

    /// The mail to one recipient; the same octets however often it is written.
    pub fn write(
        &self,
        context: &JobContext,
        recipient: Uuid,
        addressee: &Addressee,
    ) -> Result<OutgoingMail, TemplateError> {
        let links = &context.environment().unsubscribe_links;
        let who = Unsubscriber { tenant: context.tenant(), recipient };
        let RenderedMail { subject, text, html } = self.render(links, who, &addressee.email, &addressee.variables)?;
        Ok(OutgoingMail {
            message_id: self.message_id(recipient),
            from: self.from.clone(),
            to: Mailbox::new(&addressee.email),
            subject,
            text,
            html,
            list_unsubscribe: Some(links.url(who)),
            date: self.sent_since,
            campaign: Some(self.id),
        })
    }

    fn message_id(&self, recipient: Uuid) -> String {
        let domain = self.from.address.rsplit_once('@').map_or("rota.invalid", |(_, domain)| domain);
        format!("{recipient}@{domain}")
    }
}

/// The compiled campaigns of a process.
#[derive(Default)]
pub struct CampaignMails {
    compiled: Mutex<HashMap<(TenantId, Uuid), Arc<CampaignMail>>>,
}

impl CampaignMails {
    /// The compiled campaign; `None` if there is none of this id.
    pub async fn of(&self, transaction: &mut TenantTx, id: Uuid) -> anyhow::Result<Option<Arc<CampaignMail>>> {
        let key = (transaction.tenant(), id);
        if let Some(known) = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(campaign) = campaigns::find(transaction, id).await? else { return Ok(None) };
        let mail = Arc::new(CampaignMail::compile(&campaign)?);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= KEPT {
            compiled.clear();
        }
        compiled.insert(key, Arc::clone(&mail));
        Ok(Some(mail))
    }
}
