//! What a control plane looks after while it runs: its certificates, and the objects that say where it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_apiserver::listen::Presented;
use kube::Client;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;
use crate::{Files, ServerConfig, ServerError, bootstrap, kubeconfig};

/// How often, as Kubernetes' API server looks after its own Service.
const PERIOD: Duration = Duration::from_secs(10);

/// The task that looks after it.
pub(crate) struct Upkeep {
    pub(crate) client: Client,
    pub(crate) files: Files,
    pub(crate) config: ServerConfig,
    pub(crate) address: SocketAddr,
    pub(crate) certificates: Certificates,
    pub(crate) presented: Arc<Presented>,
}

impl Upkeep {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.renew() {
                tracing::warn!(%error, "certificates cannot be renewed; it is tried again");
            }
            if let Err(error) = bootstrap::reconcile(&self.client, &self.config, self.address).await {
                tracing::warn!(%error, "the cluster's own objects cannot be looked after; it is tried again");
            }
        }
    }

    /// Presents and writes down what had to be made anew. New connections see it; old ones go on.
    fn renew(&mut self) -> Result<(), ServerError> {
        if self.certificates.renew(&self.files, &self.config, jiff::Timestamp::now())? {
            self.presented.set(self.certificates.server())?;
            self.write_kubeconfig()?;
            tracing::info!("certificates are renewed");
        }
        Ok(())
    }

    pub(crate) fn write_kubeconfig(&self) -> Result<(), ServerError> {
        let text = kubeconfig::render(self.certificates.ca(), self.certificates.admin(), self.address);
        self.files.write(&self.files.kubeconfig_path(), text.as_bytes())
    }
}
