//! Which fault happens when: rules that a test adds and clears while the sink runs.
//!
//! Invariant: the first rule that matches and is not used up applies, and only that one; each application is counted
//! under its stage, so that a test can compare repeats with the acknowledgements it lost.
//! `session` asks at every stage; see there for what each fault does on the wire.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Where in the dialogue a fault strikes: just before the sink would answer, or `InsideData` once bytes arrive.
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
    /// Answer so instead; 421, and any refusal at the greeting, also closes.
    Reply { code: u16, text: String },
    /// Say nothing until the rules are cleared, then go on.
    Hang,
    /// Reset the connection without an answer.
    Cut,
    /// At the end of data: keep the message, then reset instead of answering 250.
    LoseReply,
    /// At the end of data: keep the message, then answer with these octets.
    KeepAndSay(&'static [u8]),
    /// Answer as usual, later.
    Delay(Duration),
}

impl Fault {
    pub fn reply(code: u16, text: &str) -> Self {
        Self::Reply { code, text: text.to_owned() }
    }
}

/// One fault and the conditions under which it happens. Without conditions it always does.
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

    /// Only for this recipient, or with `@domain` for those of this domain; before `Rcpt` no recipient is known, and the rule does not match.
    #[must_use]
    pub fn to(mut self, recipient: &str) -> Self {
        self.recipient = Some(recipient.to_ascii_lowercase());
        self
    }

    /// Only for the nth `MAIL` of the sink's life (from 1), or before the first `MAIL` the nth connection.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = Some(nth);
        self
    }

    /// At most so often.
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

    /// The fault that applies here, if any, together with what ends it if it is a hang.
    pub fn next(&self, stage: Stage, nth: u64, recipients: &[String]) -> Option<(Fault, watch::Receiver<()>)> {
        let mut script = self.state();
        let rule = script.rules.iter_mut().find(|rule| rule.matches(stage, nth, recipients))?;
        rule.remaining = rule.remaining.map(|times| times - 1);
        let fault = rule.fault.clone();
        *script.injected.entry(stage).or_default() += 1;
        // Subscribed under the lock: a `clear` that comes next is seen by this receiver.
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
