//! One mail over one connection, command by command.
//!
//! The commands are sent one by one instead of with lettre's `send`, because what a failure means depends on the
//! command it answers. Invariant: only a definite 5xx about this recipient or this message is final; everything
//! that could be the relay's, the network's or our own fault is worth a retry.

use deadpool::managed::Pool;
use lettre::transport::smtp::{
    Error as SmtpError,
    client::AsyncSmtpConnection,
    commands::{Data, Mail, Rcpt},
    extension::{Extension, MailBodyParameter, MailParameter},
    response::{Response, Severity},
};

use super::{
    error::{MailError, MailStage, excerpt},
    message::BuiltMail,
    pool::{Connection, Connector, Lease, Standing},
};

/// How far a mail has come: what the deadline reports when it strikes.
#[derive(Debug)]
pub(super) struct Progress {
    pub stage: MailStage,
    /// The final dot is being written, or was: the relay may take the mail.
    pub after_data: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { stage: MailStage::Connect, after_data: false }
    }
}

/// Sends `mail` over a pooled connection and returns the relay's last reply.
///
/// A kept connection that the relay has closed meanwhile costs the mail nothing: as long as not even MAIL FROM was
/// accepted, the next connection is tried, and at the latest a fresh one decides.
pub(super) async fn deliver(
    pool: &Pool<Connector>,
    mail: &BuiltMail,
    progress: &mut Progress,
) -> Result<String, MailError> {
    let mut stale_left = pool.status().max_size;
    loop {
        progress.stage = MailStage::Connect;
        let mut lease = Lease::take(pool).await?;
        let reused = lease.connection().reused;
        match converse(lease.connection(), mail, progress).await {
            Err(error) if reused && stale_left > 0 && was_stale(&error) => stale_left -= 1,
            outcome => return outcome,
        }
    }
}

/// True for the failures of a connection that had been closed, or was about to be, before the mail began.
fn was_stale(error: &MailError) -> bool {
    matches!(error, MailError::Transient { stage: MailStage::Sender, code: None | Some(421), .. })
}

async fn converse(connection: &mut Connection, mail: &BuiltMail, progress: &mut Progress) -> Result<String, MailError> {
    let parameters = mail_parameters(&connection.smtp, mail)?;
    connection.standing = Standing::Occupied;
    let outcome = transact(&mut connection.smtp, parameters, mail, progress).await;
    connection.standing = match &outcome {
        Ok(_) => Standing::Ready,
        Err(error) if in_step(error) => Standing::NeedsReset,
        Err(_) => Standing::Occupied,
    };
    outcome
}

/// True if the relay answered and goes on listening (421 says that it does not).
fn in_step(error: &MailError) -> bool {
    match error {
        MailError::Rejected { code, .. } | MailError::Transient { code: Some(code), .. } => *code != 421,
        MailError::Transient { .. } | MailError::Invalid { .. } => false,
    }
}

/// The extensions that the mail needs. Bodies are always ASCII here; only an address can need more.
fn mail_parameters(smtp: &AsyncSmtpConnection, mail: &BuiltMail) -> Result<Vec<MailParameter>, MailError> {
    if !mail.needs_utf8 {
        return Ok(Vec::new());
    }
    let offers = smtp.server_info();
    if !offers.supports_feature(Extension::SmtpUtfEight) || !offers.supports_feature(Extension::EightBitMime) {
        return Err(MailError::invalid("an address is not ASCII and the relay does not know SMTPUTF8"));
    }
    Ok(vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)])
}

async fn transact(
    smtp: &mut AsyncSmtpConnection,
    parameters: Vec<MailParameter>,
    mail: &BuiltMail,
    progress: &mut Progress,
) -> Result<String, MailError> {
    progress.stage = MailStage::Sender;
    let reply = smtp.command(Mail::new(Some(mail.from.clone()), parameters)).await;
    judge(reply, Severity::PositiveCompletion, progress)?;
    progress.stage = MailStage::Recipient;
    let reply = smtp.command(Rcpt::new(mail.to.clone(), Vec::new())).await;
    judge(reply, Severity::PositiveCompletion, progress)?;
    progress.stage = MailStage::Data;
    let reply = smtp.command(Data).await;
    judge(reply, Severity::PositiveIntermediate, progress)?;
    progress.stage = MailStage::Body;
    let reply = send_body(smtp, &mail.octets, progress).await;
    let taken = judge(reply, Severity::PositiveCompletion, progress)?;
    Ok(excerpt(&format!("{} {}", taken.code(), taken.message().collect::<Vec<_>>().join(" "))))
}

/// Sends the message and notes the moment after which the relay may have all of it: lettre asks for the next part
/// when the body is written, right before it writes the final dot.
async fn send_body(
    smtp: &mut AsyncSmtpConnection,
    octets: &[u8],
    progress: &mut Progress,
) -> Result<Response, SmtpError> {
    // lettre ends the message with CRLF . CRLF of its own.
    let mut rest = Some(octets.strip_suffix(b"\r\n").unwrap_or(octets));
    let parts = std::iter::from_fn(|| {
        let part = rest.take();
        if part.is_none() {
            progress.stage = MailStage::Reply;
            progress.after_data = true;
        }
        part
    });
    smtp.message_iter(parts).await
}

/// Requires a reply of the right kind. lettre calls a 354 in the place of a 250 a success; taking it for one would
/// lose the mail.
fn judge(reply: Result<Response, SmtpError>, expected: Severity, progress: &Progress) -> Result<Response, MailError> {
    match reply {
        Ok(reply) if reply.code().severity == expected => Ok(reply),
        Ok(reply) => Err(MailError::Transient {
            stage: progress.stage,
            code: None,
            reason: format!("the relay is out of step, it answered {}", reply.code()),
            after_data: progress.after_data,
        }),
        Err(error) => Err(refusal(progress.stage, &error, progress.after_data)),
    }
}

/// The class of a failed command.
pub(super) fn refusal(stage: MailStage, error: &SmtpError, after_data: bool) -> MailError {
    let Some(code) = error.status().map(u16::from) else {
        return MailError::Transient { stage, code: None, reason: excerpt(&chain(error)), after_data };
    };
    let message = std::error::Error::source(error).map(|source| excerpt(&source.to_string())).unwrap_or_default();
    if error.is_permanent() && concerns_the_mail(stage, code) {
        return MailError::Rejected { stage, code, message };
    }
    let whom = if error.is_permanent() { "the relay refuses us" } else { "the relay asks for a later try" };
    MailError::refused(stage, Some(code), format!("{whom} with {code}: {message}"))
}

/// Whether a 5xx at this stage speaks of the recipient or the message. Before RCPT it cannot; and 530, 534, 535 and
/// 538 ask us for credentials or TLS wherever they stand (RFC 4954 §6).
fn concerns_the_mail(stage: MailStage, code: u16) -> bool {
    let about_us = matches!(code, 530 | 534 | 535 | 538);
    !about_us && matches!(stage, MailStage::Recipient | MailStage::Data | MailStage::Body | MailStage::Reply)
}

/// An error and what caused it, on one line, without saying the same twice.
fn chain(error: &SmtpError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
