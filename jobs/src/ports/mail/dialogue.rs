//! The SMTP dialogue of one mail on one session, command by command.
//!
//! Invariant: a mail counts as accepted exactly if a 2xx line answers its final dot.
//! [`Progress::after_data`] is set before the dot is written, so that every later failure is
//! reported as one after which a repeat may cause a duplicate. [`super::verdict`] interprets
//! refusals.

use deadpool::managed::Pool;

use super::{
    error::{Blame, MailError, excerpt},
    message::BuiltMail,
    pool::{Connection, Connector, Lease, Standing},
    reply::Reply,
    session::Session,
    stage::MailStage,
};

/// How far a mail has come, for the error when the deadline passes.
#[derive(Debug)]
pub(super) struct Progress {
    pub stage: MailStage,
    /// Whether the final dot is being or was written, so that the relay may accept the mail.
    pub after_data: bool,
    /// The code of a final reply that has not ended yet.
    pub received_code: Option<u16>,
}

impl Progress {
    pub fn new() -> Self {
        Self { stage: MailStage::Connect, after_data: false, received_code: None }
    }
}

/// Sends `mail` over a pooled connection and returns the relay's last reply.
///
/// A pooled connection that the relay has closed since its last use does not fail the mail: as long
/// as MAIL FROM was not accepted, the next connection is tried, and in the end a new one decides.
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

/// Whether the connection was already closed, or about to be, before the mail began.
fn was_stale(error: &MailError) -> bool {
    matches!(error, MailError::Transient { stage: MailStage::Sender, code: None | Some(421), .. })
}

async fn converse(connection: &mut Connection, mail: &BuiltMail, progress: &mut Progress) -> Result<String, MailError> {
    let parameters = mail_parameters(&connection.session, mail)?;
    connection.standing = Standing::Occupied;
    if connection.reused && connection.session.has_unsolicited_input().await {
        return Err(MailError::transient(MailStage::Sender, "the relay closed the connection"));
    }
    let outcome = transact(&mut connection.session, parameters, mail, progress).await;
    connection.standing = match &outcome {
        _ if !connection.session.is_in_step() => Standing::Occupied,
        Ok(_) => Standing::Ready,
        Err(_) => Standing::NeedsReset,
    };
    outcome
}

/// The extensions that the mail needs. Bodies are always ASCII here; only an address can require
/// one.
fn mail_parameters(session: &Session, mail: &BuiltMail) -> Result<&'static str, MailError> {
    match (mail.needs_utf8, session.takes_utf8()) {
        (false, _) => Ok(""),
        (true, true) => Ok(" SMTPUTF8 BODY=8BITMIME"),
        (true, false) => Err(MailError::invalid("an address is not ASCII and the relay does not support SMTPUTF8")),
    }
}

async fn transact(
    session: &mut Session,
    parameters: &str,
    mail: &BuiltMail,
    progress: &mut Progress,
) -> Result<String, MailError> {
    progress.stage = MailStage::Sender;
    expect(session, mail, progress.stage, &format!("MAIL FROM:<{}>{parameters}", mail.from), 2).await?;
    progress.stage = MailStage::Recipient;
    expect(session, mail, progress.stage, &format!("RCPT TO:<{}>", mail.to), 2).await?;
    progress.stage = MailStage::Data;
    expect(session, mail, progress.stage, "DATA", 3).await?;
    progress.stage = MailStage::Body;
    send_body(session, mail).await?;
    progress.stage = MailStage::Reply;
    progress.after_data = true;
    finish(session, mail, progress).await
}

/// Requires a reply of the right class. A 250 in place of a 354 means that commands and replies are
/// out of step.
async fn expect(
    session: &mut Session,
    mail: &BuiltMail,
    stage: MailStage,
    line: &str,
    class: u16,
) -> Result<(), MailError> {
    let reply = session.command(line).await.map_err(|why| MailError::unanswered(stage, &why))?;
    if reply.class() == class {
        return Ok(());
    }
    if !matches!(reply.class(), 4 | 5) {
        session.lose_step();
    }
    Err(MailError::refused(stage, &reply, Some(&mail.to)))
}

/// Sends all of the message except the final dot. A reply that arrives before the dot does not
/// belong to the message: a 2xx is not a receipt, and a refusal in the middle of the message ends
/// the session.
async fn send_body(session: &mut Session, mail: &BuiltMail) -> Result<(), MailError> {
    let written = session.write(&dot_stuffed(&mail.octets)).await;
    if written.is_ok() && !session.has_unsolicited_input().await {
        return Ok(());
    }
    match (session.last_words().await, written) {
        (Some(reply), _) if matches!(reply.class(), 4 | 5) => {
            Err(MailError::refused(MailStage::Body, &reply, Some(&mail.to)))
        }
        (Some(_), _) => Err(MailError::transient(MailStage::Body, "the relay replied before the end of the message")),
        (None, Err(error)) => Err(MailError::transient(MailStage::Body, error)),
        (None, Ok(())) => Err(MailError::transient(MailStage::Body, "the relay closed the connection")),
    }
}

/// Sends the final dot and reads the relay's reply to the mail.
///
/// If any line of the reply is a 2xx, the mail counts as accepted. A relay that replies with both
/// 250 and 451 may or may not forward the mail; treating an accepted mail as failed is the worse
/// mistake, since every attempt then sends it again.
async fn finish(session: &mut Session, mail: &BuiltMail, progress: &mut Progress) -> Result<String, MailError> {
    let reply = match session.write(b".\r\n").await {
        Ok(()) => session.read(&mut progress.received_code).await,
        Err(error) => session.last_words().await.ok_or(error.into()),
    };
    match reply {
        Ok(reply) if reply.accepts => Ok(receipt(&reply)),
        Ok(reply) if matches!(reply.class(), 4 | 5) => {
            Err(MailError::refused(MailStage::Reply, &reply, Some(&mail.to)))
        }
        Ok(reply) => {
            session.lose_step();
            Err(lost_reply(Some(reply.code), &format!("unexpected reply {} from the relay", reply.code)))
        }
        Err(why) => Err(lost_reply(None, &why.to_string())),
    }
}

/// No final reply: the relay may or may not have accepted the mail. That concerns the relay, not
/// the recipient.
pub(super) fn lost_reply(code: Option<u16>, reason: &str) -> MailError {
    MailError::Transient {
        stage: MailStage::Reply,
        code,
        enhanced: None,
        reason: excerpt(reason),
        after_data: true,
        blame: Blame::Sender,
        retry_in: None,
    }
}

fn receipt(reply: &Reply) -> String {
    excerpt(&format!("{} {}", reply.code, reply.text()))
}

/// The message in the form required by DATA (RFC 5321 §4.5.2), terminated by CRLF, without the
/// final dot.
fn dot_stuffed(octets: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(octets.len() + 64);
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed
}

#[cfg(test)]
mod tests {
    use super::dot_stuffed;

    #[test]
    fn dots_at_the_start_of_a_line_are_doubled() {
        assert_eq!(dot_stuffed(b"a\r\n.\r\n..b\r\nc.d"), b"a\r\n..\r\n...b\r\nc.d\r\n");
        assert_eq!(dot_stuffed(b"a\r\n"), b"a\r\n");
    }
}
