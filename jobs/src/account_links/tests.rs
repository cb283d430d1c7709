use shared::config::LinkKey;

use super::*;

fn links(key: &str) -> AccountLinks {
    let key = LinkKey::parse(&key.repeat(32)).expect("long enough");
    AccountLinks::new(LinkConfig { public_url: "https://rota.example/base/".parse().expect("a URL"), key })
}

fn link(purpose: LinkPurpose) -> AccountLink {
    AccountLink { purpose, tenant: TenantId::new(Uuid::from_u128(1)), user: Uuid::from_u128(2), expires_at: at(1_000) }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

fn account(state: &str, password_hash: Option<&str>) -> Account {
    Account {
        company: "acme".into(),
        email: "ada@example.com".into(),
        name: "Ada".into(),
        state: state.into(),
        password_hash: password_hash.map(str::to_owned),
    }
}

#[test]
fn a_link_says_what_it_is_for_until_it_expires() {
    let (links, ada) = (links("k"), account("active", Some("hash")));
    for purpose in [LinkPurpose::VerifyEmail, LinkPurpose::ResetPassword, LinkPurpose::AcceptInvitation] {
        let url = links.url(&link(purpose), &ada);
        let token = url.path().rsplit('/').next().expect("a token");
        assert!(url.as_str().starts_with("https://rota.example/base/api/v1/auth/"), "{url}");
        assert_eq!(links.check(token, at(999)), Some(link(purpose)));
        assert_eq!(links.check(token, at(1_000)), None);
    }
}

#[test]
fn a_link_that_sets_a_password_is_unused_until_the_password_changes() {
    let links = links("k");
    let reset = link(LinkPurpose::ResetPassword);
    let token = links.token(&reset, &account("active", Some("hash")));
    let is_unused = |state, hash| links.is_unused(&token, &reset, &account(state, hash));
    assert!(is_unused("active", Some("hash")) && is_unused("unverified", Some("hash")));
    assert!(!is_unused("active", Some("another")) && !is_unused("active", None));
    assert!(!is_unused("deactivated", Some("hash")) && !is_unused("invited", Some("hash")));
    let invitation = link(LinkPurpose::AcceptInvitation);
    let token = links.token(&invitation, &account("invited", None));
    assert!(links.is_unused(&token, &invitation, &account("invited", None)));
    assert!(!links.is_unused(&token, &invitation, &account("active", Some("hash"))));
}

#[test]
fn a_confirmation_may_be_repeated() {
    let links = links("k");
    let verify = link(LinkPurpose::VerifyEmail);
    let token = links.token(&verify, &account("unverified", Some("hash")));
    assert!(links.is_unused(&token, &verify, &account("active", Some("another"))));
    assert!(!links.is_unused(&token, &verify, &account("deactivated", Some("hash"))));
}

#[test]
fn another_key_or_a_changed_byte_is_refused() {
    let token = links("k").token(&link(LinkPurpose::ResetPassword), &account("active", None));
    assert_eq!(links("l").check(&token, at(0)), None);
    for place in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
        assert_eq!(links("k").check(std::str::from_utf8(&forged).expect("ASCII"), at(0)), None, "{place}");
        assert_eq!(links("k").check(&token[..place], at(0)), None);
    }
}
