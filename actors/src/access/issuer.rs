//! What the access actor does with Cedar policies and an issuer's keys.

use std::path::Path;
use std::sync::Arc;

use neuroflow_kernel::{Context, Header, Reply, TraceContext};

use super::keys::{Outcome, Schedule};
use super::server::AccessServer;
use super::{AccessCommand, AccessError, CedarPolicies, jwks};
use crate::audit::uses::Uses;
use crate::audit::{AuditEvent, Verdict};
use crate::limits::KEY_WAITERS;

impl AccessServer {
    /// Whether the issuer's addresses can be asked at all.
    pub(super) fn check_issuer(
        &mut self,
        context: &Context<AccessCommand>,
    ) -> Result<(), AccessError> {
        if let Some(issuer) = &self.config.issuer {
            jwks::check(issuer)?;
            self.schedule = Some(Schedule::new(context.clock().now()));
        }
        Ok(())
    }

    pub(super) async fn look_at_rules(&mut self, path: &Path) -> Result<(), AccessError> {
        let Some(contents) = self.rules.read(path).await? else { return Ok(()) };
        let parsed = CedarPolicies::from_bytes(path, &contents.bytes);
        let parsed = self.judge("policies", path, &contents, parsed.map_err(AccessError::from))?;
        self.publish(|snapshot| snapshot.rules = Arc::new(parsed));
        Ok(())
    }

    /// Reads the issuer's keys in the background.
    fn fetch(&mut self, context: &mut Context<AccessCommand>) {
        let Some(issuer) = self.config.issuer.clone() else { return };
        let clock = context.clock().clone();
        let me = context.address();
        let uses = Uses::new(self.config.audit.clone(), "issuer");
        let work = async move {
            let outcome = jwks::fetch(&issuer, &clock, &uses).await;
            // The only error is that this actor has ended.
            let _ended = me.tell(Header::new(), AccessCommand::Fetched(outcome)).await;
        };
        if context.task(work).is_err()
            && let Some(schedule) = &mut self.schedule
        {
            schedule.failed(context.clock().now());
        }
    }

    pub(super) fn fetch_if_due(&mut self, context: &mut Context<AccessCommand>) {
        let now = context.clock().now();
        if self.schedule.as_mut().is_some_and(|schedule| schedule.begin_if_due(now)) {
            self.fetch(context);
        }
    }

    pub(super) fn keys_wanted(&mut self, reply: Reply<()>, context: &mut Context<AccessCommand>) {
        let now = context.clock().now();
        let Some(schedule) = &mut self.schedule else { return };
        let begins = schedule.begin_for_unknown(now);
        if !schedule.is_reading() || self.waiting.len() >= KEY_WAITERS {
            let _gone = reply.send(());
            return;
        }
        self.waiting.push(reply);
        if begins {
            self.fetch(context);
        }
    }

    pub(super) fn fetched(&mut self, outcome: Outcome, context: &Context<AccessCommand>) {
        let now = context.clock().now();
        self.config.meter.reload("keys", outcome.is_ok());
        match (outcome, &mut self.schedule) {
            (Ok(keys), Some(schedule)) => {
                schedule.succeeded(now);
                tracing::info!(keys = keys.len(), "the issuer's keys read");
                let digest = keys.digest();
                let mut are_others = false;
                self.publish(|snapshot| {
                    are_others = snapshot.keys.digest() != digest;
                    snapshot.keys = Arc::new(keys);
                });
                if are_others {
                    let (part, verdict) = ("issuer_keys", Verdict::Allowed);
                    let changed = AuditEvent::ConfigChanged { part, digest, verdict };
                    self.config.audit.note(TraceContext::NONE, changed);
                }
            }
            (Err(error), Some(schedule)) => {
                schedule.failed(now);
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the issuer's keys can't be read; those that are known stay");
            }
            (_, None) => {}
        }
        self.answer_waiting();
    }

    fn answer_waiting(&mut self) {
        for reply in self.waiting.drain(..) {
            let _gone = reply.send(());
        }
    }
}
