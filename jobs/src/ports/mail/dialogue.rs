//! One mail over one session, command by command.
//!
//! Invariant: a mail counts as taken exactly if a 2xx line answers its final dot; [`Progress::after_data`] is set before
//! the dot is written, so that no way of failing afterwards passes for a mail that cannot double.
//! What a refusal means is in [`super::verdict`].

use deadpool::managed::Pool;

use super::{
    error::{Blame, MailError, MailStage, excerpt},
    message::BuiltMail,
    pool::{Connection, Connector, Lease, Standing},
    reply::Reply,
    session::Session,
};

/// How far a mail has come: what the deadline reports when it strikes.
#[derive(Debug)]
pub(super) struct Progress {
    pub stage: MailStage,
    /// The final dot is being written, or was: the relay may take the mail.
    pub after_data: bool,
    /// The code of a final reply whose end has not come.
    pub heard: Option<u16>,
}

impl Progress {
    pub fn new() -> Self {
        Self { stage: MailStage::Connect, after_data: false, heard: None }
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
    let parameters = mail_parameters(&connection.session, mail)?;
    connection.standing = Standing::Occupied;
    if connection.reused && connection.session.has_spoken().await {
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

/// The extensions that the mail needs. Bodies are always ASCII here; only an address can need more.
fn mail_parameters(session: &Session, mail: &BuiltMail) -> Result<&'static str, MailError> {
    match (mail.needs_utf8, session.takes_utf8()) {
        (false, _) => Ok(""),
        (true, true) => Ok(" SMTPUTF8 BODY=8BITMIME"),
        (true, false) => Err(MailError::invalid("an address is not ASCII and the relay does not know SMTPUTF8")),
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

/// Requires a reply of the right class. A 250 where a 354 belongs means that the relay and we are out of step.
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

/// Sends all of the message but the final dot. A reply that comes before the dot is not one to the message: a 2xx there is
/// no receipt, and a refusal in the middle of the message ends the session.
async fn send_body(session: &mut Session, mail: &BuiltMail) -> Result<(), MailError> {
    let written = session.write(&dot_stuffed(&mail.octets)).await;
    if written.is_ok() && !session.has_spoken().await {
        return Ok(());
    }
    match (session.last_words().await, written) {
        (Some(reply), _) if matches!(reply.class(), 4 | 5) => {
            Err(MailError::refused(MailStage::Body, &reply, Some(&mail.to)))
        }
        (Some(_), _) => Err(MailError::transient(MailStage::Body, "the relay answered before the end of the message")),
        (None, Err(error)) => Err(MailError::transient(MailStage::Body, error)),
        (None, Ok(())) => Err(MailError::transient(MailStage::Body, "the relay closed the connection")),
    }
}

/// Sends the final dot and reads what the relay makes of the mail.
///
/// If any line of the reply is a 2xx, the mail is taken. A relay that says both 250 and 451 may or may not send it on; the
/// repeat of a mail that was taken is the worse mistake, since it is made again with every attempt.
async fn finish(session: &mut Session, mail: &BuiltMail, progress: &mut Progress) -> Result<String, MailError> {
    let reply = match session.write(b".\r\n").await {
        Ok(()) => session.read(&mut progress.heard).await,
        Err(error) => session.last_words().await.ok_or(error.into()),
    };
    match reply {
        Ok(reply) if reply.accepts => Ok(receipt(&reply)),
        Ok(reply) if matches!(reply.class(), 4 | 5) => {
            Err(MailError::refused(MailStage::Reply, &reply, Some(&mail.to)))
        }
        Ok(reply) => {
            session.lose_step();
            Err(lost_reply(Some(reply.code), &format!("the relay is out of step, it answered {}", reply.code)))
        }
        Err(why) => Err(lost_reply(None, &why.to_string())),
    }
}

/// The relay may have the mail, and nobody knows.
pub(super) fn lost_reply(code: Option<u16>, reason: &str) -> MailError {
    MailError::Transient {
        stage: MailStage::Reply,
        code,
        enhanced: None,
        reason: excerpt(reason),
        after_data: true,
        blame: Blame::Recipient,
        retry_in: None,
    }
}

fn receipt(reply: &Reply) -> String {
    excerpt(&format!("{} {}", reply.code, reply.text()))
}

/// The message as DATA carries it (RFC 5321 §4.5.2), ended by CRLF, without the final dot.
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
