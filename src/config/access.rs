//! Who the gateway lets in, from the settings below `tls`, `auth`, `policy` and `limits`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use neuroflow::GatewayConfig;
use neuroflow::actors::{AccessConfig, AccessMeter, Issuer, Limits, RulesSource, TlsFiles};

use super::error::ConfigError;
use super::value::FilePath;
use super::{Config, Loaded};

impl Config {
    /// Whether requests need a credential.
    fn authenticates(&self) -> bool {
        self.auth.tokens.is_some() || self.auth.issuer.is_some() || self.tls.client_ca.is_some()
    }

    /// Refuses to let other machines in whom nobody checks, or whose tokens anybody could read.
    pub(crate) fn check_exposure(&self, loaded: &Loaded) -> Result<(), ConfigError> {
        self.check_together()?;
        self.check_stop(loaded)?;
        self.check_cells(loaded)?;
        self.check_cluster(loaded)?;
        if self.gateway.allow_remote_without_authentication {
            return Ok(());
        }
        let is_remote = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
        if let Some(address) = self.telemetry.metrics_listen.address().filter(|it| is_remote(*it)) {
            let key = "telemetry.metrics_listen";
            return Err(ConfigError::RemoteMetrics { address, origin: loaded.origin(key) });
        }
        let address = self.gateway.listen;
        let origin = loaded.origin("gateway.listen");
        if !is_remote(address) {
            return Ok(());
        }
        if !self.authenticates() {
            return Err(ConfigError::Remote { address, origin });
        }
        if self.tls.certificate.is_none() && !self.tls.terminated_upstream {
            return Err(ConfigError::RemotePlain { address, origin });
        }
        Ok(())
    }

    /// Refuses a delay that leaves requests no time to end.
    fn check_stop(&self, loaded: &Loaded) -> Result<(), ConfigError> {
        let (delay, deadline) = (self.gateway.drain_delay, self.stop.deadline);
        if delay > deadline / 2 {
            let origin = loaded.origin("gateway.drain_delay");
            return Err(ConfigError::DrainDelay { delay, deadline, origin });
        }
        Ok(())
    }

    /// Refuses a sandbox in which nothing could run.
    fn check_cells(&self, loaded: &Loaded) -> Result<(), ConfigError> {
        if self.sandbox.cells == 0 {
            return Err(ConfigError::NoCells { origin: loaded.origin("sandbox.cells") });
        }
        Ok(())
    }

    /// Settings that mean nothing without each other.
    fn check_together(&self) -> Result<(), ConfigError> {
        let (tls, auth) = (&self.tls, &self.auth);
        let pairs = [
            ("tls.certificate", tls.certificate.is_some(), "tls.key", tls.key.is_some()),
            ("tls.key", tls.key.is_some(), "tls.certificate", tls.certificate.is_some()),
            (
                "tls.client_ca",
                tls.client_ca.is_some(),
                "tls.certificate",
                tls.certificate.is_some(),
            ),
            ("auth.issuer", auth.issuer.is_some(), "auth.audience", auth.audience.is_some()),
            ("auth.audience", auth.audience.is_some(), "auth.issuer", auth.issuer.is_some()),
            ("auth.keys_url", auth.keys_url.is_some(), "auth.issuer", auth.issuer.is_some()),
            ("auth.issuer_ca", auth.issuer_ca.is_some(), "auth.issuer", auth.issuer.is_some()),
        ];
        for (key, is_set, needed, is_there) in pairs {
            if is_set && !is_there {
                return Err(ConfigError::Incomplete { key, needed });
            }
        }
        if self.authenticates() && self.policy.file.is_none() {
            return Err(ConfigError::NoPolicy);
        }
        Ok(())
    }
}

impl Loaded {
    /// Who is let in and what they may do; none if everybody may do everything.
    pub(crate) fn access(&self, meter: Arc<dyn AccessMeter>) -> Option<AccessConfig> {
        let (auth, limits) = (&self.config.auth, &self.config.limits);
        let path = |file: &Option<FilePath>| file.as_ref().map(|file| file.path().to_owned());
        let mut access = AccessConfig::default();
        access.tokens = path(&auth.tokens);
        access.issuer = auth.issuer.as_ref().zip(auth.audience.as_ref()).map(|(url, audience)| {
            let mut issuer = Issuer::new(url.as_str(), audience);
            issuer.keys_url = auth.keys_url.as_ref().map(|url| url.as_str().to_owned());
            issuer.groups_claim.clone_from(&auth.groups_claim);
            issuer.skew = auth.clock_skew;
            issuer.allow_private = auth.allow_private_issuer;
            issuer.ca = path(&auth.issuer_ca);
            issuer
        });
        access.certificates = self.config.tls.client_ca.is_some();
        if let Some(file) = path(&self.config.policy.file) {
            access.rules = RulesSource::File(file);
        }
        access.limits = Limits {
            per_second: NonZeroU32::new(limits.requests_per_second),
            burst: NonZeroU32::new(limits.burst),
            concurrent: NonZeroU32::new(limits.concurrent),
        };
        access.meter = meter;
        let is_needed = access.authenticates()
            || self.config.policy.file.is_some()
            || access.limits != Limits::default();
        is_needed.then_some(access)
    }

    /// The gateway, but for its agents and its access.
    pub(crate) fn gateway(&self) -> GatewayConfig {
        let settings = &self.config.gateway;
        let mut gateway = GatewayConfig::new(settings.listen);
        gateway.public_url = settings.public_url.as_ref().map(|url| url.as_str().to_owned());
        gateway.blocking_wait = settings.blocking_wait;
        let tls = &self.config.tls;
        gateway.door.tls = tls.certificate.as_ref().zip(tls.key.as_ref()).map(|(chain, key)| {
            let mut files = TlsFiles::new(chain.path(), key.path());
            files.client_ca = tls.client_ca.as_ref().map(|file| file.path().to_owned());
            files
        });
        gateway.door.hosts = settings.hosts.list().to_vec();
        gateway.door.origins = settings.origins.list().to_vec();
        gateway.door.drain_delay = settings.drain_delay;
        gateway
    }
}
