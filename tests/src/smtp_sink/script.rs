//! Which fault happens when: rules that a test adds and clears while the sink runs.
//!
//! Invariant: the first rule that matches and is not used up applies, and only that rule. Each
//! application is counted under its stage, so a test can compare repeats with the acknowledgements
//! that were lost. `session` consults the rules at every stage; see there for the effect of each
//! fault on the wire.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// The point in the dialogue at which a fault applies: just before the sink would reply, or for
/// `InsideData` once bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Greeting,
    Ehlo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    InsideData,
    EndOfData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Sends this reply instead; 421, and any refusal at the greeting, also closes the connection.
    Reply { code: u16, text: String },
    /// Sends nothing until the rules are cleared, then continues.
    Hang,
    /// Resets the connection without a reply.
    Cut,
    /// At the end of data: keeps the message, then resets the connection instead of replying 250.
    LoseReply,
    /// At the end of data: keeps the message, then replies with these octets.
    KeepAndSay(&'static [u8]),
    /// Sends the usual reply after this delay.
    Delay(Duration),
}

impl Fault {
    pub fn reply(code: u16, text: &str) -> Self {
        Self::Reply { code, text: text.to_owned() }
    }
}

/// One fault and its conditions. Without conditions it always applies.
#[derive(Clone, Debug)]
pub struct Rule {
    stage: Stage,
    fault: Fault,
    recipient: Option<String>,
    nth: Option<u64>,
    remaining: Option<u32>,
}

impl Rule {
    pub fn at(stage: Stage, fault: Fault) -> Self {
        Self { stage, fault, recipient: None, nth: None, remaining: None }
    }

    /// Only for this recipient, or with `@domain` for all of this domain. Before `Rcpt` no
    /// recipient is known, so the rule does not match.
    #[must_use]
    pub fn to(mut self, recipient: &str) -> Self {
        self.recipient = Some(recipient.to_ascii_lowercase());
        self
    }

    /// Only for the nth `MAIL` since the sink started (from 1), or before the first `MAIL` for the
    /// nth connection.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = Some(nth);
        self
    }

    /// At most this many times.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.remaining = Some(times);
        self
    }

    fn matches(&self, stage: Stage, nth: u64, recipients: &[String]) -> bool {
        self.stage == stage
            && self.remaining != Some(0)
            && self.nth.is_none_or(|wanted| wanted == nth)
            && self.recipient.as_ref().is_none_or(|wanted| {
                recipients.iter().any(|to| {
                    let to = to.to_ascii_lowercase();
                    to == *wanted || (wanted.starts_with('@') && to.ends_with(wanted.as_str()))
                })
            })
    }
}

#[derive(Debug, Default)]
pub(super) struct Script {
    state: Mutex<State>,
    cleared: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    injected: HashMap<Stage, u64>,
}

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    pub fn clear(&self) {
        self.state().rules.clear();
        self.cleared.send_replace(());
    }

    pub fn injected(&self, stage: Stage) -> u64 {
        self.state().injected.get(&stage).copied().unwrap_or(0)
    }

    /// The fault that applies here, if any, with the receiver that is notified when a hang ends.
    pub fn next(&self, stage: Stage, nth: u64, recipients: &[String]) -> Option<(Fault, watch::Receiver<()>)> {
        let mut script = self.state();
        let rule = script.rules.iter_mut().find(|rule| rule.matches(stage, nth, recipients))?;
        rule.remaining = rule.remaining.map(|times| times - 1);
        let fault = rule.fault.clone();
        *script.injected.entry(stage).or_default() += 1;
        // Subscribed under the lock, so this receiver sees any later `clear`.
        Some((fault, self.cleared.subscribe()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_used_up() {
        let script = Script::default();
        script.add(Rule::at(Stage::Rcpt, Fault::Cut).to("A@x.test").times(1));
        let to = ["a@X.test".to_owned()];
        assert!(script.next(Stage::Mail, 1, &to).is_none());
        assert!(script.next(Stage::Rcpt, 1, &[]).is_none());
        assert!(script.next(Stage::Rcpt, 1, &to).is_some());
        assert!(script.next(Stage::Rcpt, 1, &to).is_none());
        assert_eq!(script.injected(Stage::Rcpt), 1);
    }

    #[test]
    fn nth_counts_messages() {
        let script = Script::default();
        script.add(Rule::at(Stage::EndOfData, Fault::LoseReply).nth(2));
        assert!(script.next(Stage::EndOfData, 1, &[]).is_none());
        assert!(script.next(Stage::EndOfData, 2, &[]).is_some());
    }
}
