//! What the links in mails about accounts do.
//!
//! Invariant: an invalid, an expired and a used link get the same answer; and nothing but the MAC of
//! the link is computed for a link that is not genuine.

use jobs::account_links::{AccountLink, LinkPurpose};
use shared::{
    identity::{
        access_token::Subject,
        password::{Password, PasswordError},
    },
    store::{
        accounts::{self, Account},
        sessions::{self, EndReason},
        users,
    },
};

use crate::{
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// The purposes of links that set a password.
pub(super) const OF_PASSWORDS: &[LinkPurpose] = &[LinkPurpose::ResetPassword, LinkPurpose::AcceptInvitation];

/// Why a link has no effect.
pub(super) enum Refusal {
    /// It is not genuine, expired, was used, or is for another purpose.
    Link,
    /// The password is not accepted; the link may be used again.
    Password(PasswordError),
    /// Something else.
    Other(Problem),
}

impl<E: Into<Problem>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// The link of a token and its account, if the link can be used for one of these purposes.
pub(super) async fn open(
    state: &AppState,
    token: &str,
    purposes: &[LinkPurpose],
) -> Result<(AccountLink, Account), Refusal> {
    let link = state.account_links.check(token, state.clock.now());
    let link = link.filter(|link| purposes.contains(&link.purpose)).ok_or(Refusal::Link)?;
    let mut transaction = state.stores.tenants.begin_by_key(link.tenant).await?;
    let account = accounts::find(&mut transaction, link.user).await?;
    let account = account.filter(|account| state.account_links.is_unused(token, &link, account));
    Ok((link, account.ok_or(Refusal::Link)?))
}

/// Confirms the address. Repeating it changes nothing.
pub(super) async fn verify_email(state: &AppState, token: &str) -> Result<(), Refusal> {
    let (link, _) = open(state, token, &[LinkPurpose::VerifyEmail]).await?;
    let mut transaction = state.stores.tenants.begin_by_key(link.tenant).await?;
    accounts::activate(&mut transaction, link.user).await?;
    Ok(transaction.commit().await?)
}

/// Sets the password, and ends all sessions of the user. Who followed the link reads the mails to
/// the address, so the user becomes active.
pub(super) async fn set_password(state: &AppState, token: &str, new_password: &str) -> Result<(), Refusal> {
    let (link, account) = open(state, token, OF_PASSWORDS).await?;
    let password = Password::new(new_password, &[&account.email, &account.name]).map_err(Refusal::Password)?;
    let hash = super::hash(state, Some(link.tenant), password).await?;
    let mut transaction = state.stores.tenants.begin_by_key(link.tenant).await?;
    // Of two uses at the same time, one replaces the password that both have seen.
    if !users::set_password(&mut transaction, link.user, account.password_hash.as_deref(), &hash).await? {
        return Err(Refusal::Link);
    }
    accounts::activate(&mut transaction, link.user).await?;
    sessions::end_all(&mut transaction, Subject::User(link.user), None, EndReason::PasswordChanged).await?;
    Ok(transaction.commit().await?)
}

impl Refusal {
    /// The problem of a body with the token in `token` and the password in `new_password`.
    pub(super) fn of_body(self) -> Problem {
        let (pointer, detail) = match self {
            Self::Link => {
                ("/token", "the link is not valid: it expired or was used, or a part of it is missing".to_owned())
            }
            Self::Password(error) => ("/new_password", error.to_string()),
            Self::Other(problem) => return problem,
        };
        Problem::invalid(pointer, detail)
    }

    /// The problem of a page whose path has the token.
    pub(super) fn of_page(self) -> Problem {
        match self {
            Self::Link => ProblemCode::NotFound.into(),
            Self::Password(error) => Problem::new(ProblemCode::InvalidBody).detail(error.to_string()),
            Self::Other(problem) => problem,
        }
    }
}
