//! The three headers that show a receiver that a message is from Rota and recent, and which message
//! it is: Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! Invariant: the signature covers exactly the bytes that are sent: `id.timestamp.body`. With
//! several secrets there are several signatures, separated by spaces; a receiver needs one that
//! matches.

use data_encoding::BASE64;
use hmac::Mac as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use shared::{mac::hmac_sha256, webhooks::WebhookSecret};

const VERSION: &str = "v1";

/// The headers of a message; `timestamp` is in Unix seconds.
///
/// # Panics
/// If `id` is not valid in a header; ids are plain ASCII.
pub fn headers(secrets: &[WebhookSecret], id: &str, timestamp: i64, body: &str) -> HeaderMap {
    let signatures: Vec<String> = secrets.iter().map(|secret| sign(secret, id, timestamp, body)).collect();
    let text = |text: &str| HeaderValue::from_str(text).expect("ids, numbers and base64 are plain ASCII");
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", text(id));
    headers.insert("webhook-timestamp", text(&timestamp.to_string()));
    headers.insert("webhook-signature", text(&signatures.join(" ")));
    headers
}

fn sign(secret: &WebhookSecret, id: &str, timestamp: i64, body: &str) -> String {
    let mut mac = hmac_sha256(secret.expose());
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    format!("{VERSION},{}", BASE64.encode(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    /// The test vector of the specification's reference implementations.
    #[test]
    fn a_signature_matches_the_example_of_the_specification() {
        let secret = WebhookSecret::parse(SECRET).unwrap();
        let headers = headers(&[secret], ID, TIMESTAMP, BODY);
        assert_eq!(headers["webhook-id"], ID);
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], SIGNATURE);
    }

    #[test]
    fn each_secret_signs_id_timestamp_and_body() {
        let (old, new) = (WebhookSecret::parse(SECRET).unwrap(), WebhookSecret::random());
        let both = headers(&[new.clone(), old.clone()], ID, TIMESTAMP, BODY);
        let both: Vec<&str> = both["webhook-signature"].to_str().unwrap().split(' ').collect();
        assert_eq!(both, [sign(&new, ID, TIMESTAMP, BODY).as_str(), SIGNATURE]);
        for other in [sign(&old, "msg_2", TIMESTAMP, BODY), sign(&old, ID, 1, BODY), sign(&old, ID, TIMESTAMP, "{}")] {
            assert_ne!(other, SIGNATURE);
        }
    }
}
