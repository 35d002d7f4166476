//! Nodes that exist in the API only: objects with a Ready status, whose heartbeats this program keeps up. Nothing runs on them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    bench::Bench,
    client::{Call, Connection},
    load::{Load, Until},
    objects::{self, Template, numbered},
    scratch::{delete_collection, until},
};

/// The label that all nodes of a fleet share.
const LABEL: &str = "bench.coracle.dev/fleet";
/// Every heartbeat is renewed this often: a fourth of a Lease's 40 seconds.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// How long controllers may take until they trust all nodes.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// Requests at once while a fleet is made or removed.
const CONNECTIONS: usize = 16;
const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// Some nodes.
pub(crate) struct Fleet {
    name: String,
    count: u64,
    heart: JoinHandle<()>,
}

/// Does work with a fleet, which is removed whether the work succeeds or not.
pub(crate) async fn with_fleet<T>(
    bench: &mut Bench,
    count: u64,
    work: impl AsyncFnOnce(&mut Bench, &Fleet) -> Result<T>,
) -> Result<T> {
    let name = format!("bench-{:06x}", rand::random::<u32>() & 0xff_ffff);
    let fleet = Fleet { heart: tokio::spawn(beat(bench.connect().await?, name.clone(), count)), name, count };
    let result = match fleet.make(bench).await {
        Ok(()) => work(bench, &fleet).await,
        Err(error) => Err(error.context("the nodes could not be made")),
    };
    fleet.heart.abort();
    let removed = fleet.remove(bench).await.context("some nodes may still be there");
    let value = result?;
    removed?;
    Ok(value)
}

impl Fleet {
    /// The name of one of its nodes.
    pub(crate) fn node(&self, number: u64) -> String {
        numbered(&self.name, number % self.count)
    }

    async fn make(&self, bench: &Bench) -> Result<()> {
        eprintln!("making {} nodes", self.count);
        let begun = Instant::now();
        let mut load = Load::connect(&bench.endpoint, CONNECTIONS).await?;
        let name = self.name.clone();
        let lease = objects::lease(LABEL, &name, jiff::Timestamp::now());
        load.run(Until::Count(self.count), move |number| Call::post(LEASES, lease.fill(&numbered(&name, number))))
            .await?;
        let name = self.name.clone();
        // Nodes differ in their zone and address: bodies come from a few templates.
        let templates: Arc<[Template]> = (0..750).map(|number| objects::node(LABEL, &name, number)).collect();
        load.run(Until::Count(self.count), move |number| {
            let template = &templates[number as usize % templates.len()];
            Call::post(NODES, template.fill(&numbered(&name, number)))
        })
        .await?;
        // A new node is tainted until a controller has looked at its conditions.
        let mut connection = bench.connect().await?;
        let list = format!("{NODES}?labelSelector={LABEL}={}", self.name);
        until(READY_LIMIT, async || {
            let body = connection.fetch(Call::get(list.as_str())).await?;
            Ok(!String::from_utf8_lossy(&body).contains("node.kubernetes.io/not-ready"))
        })
        .await
        .context("some nodes stay tainted as not ready")?;
        eprintln!("{} nodes ready after {:.1} s", self.count, begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn remove(&self, bench: &Bench) -> Result<()> {
        let mut connection = bench.connect().await?;
        for collection in [NODES, LEASES] {
            delete_collection(&mut connection, &format!("{collection}?labelSelector={LABEL}={}", self.name)).await?;
        }
        Ok(())
    }
}

/// Renews all heartbeats, spread over the interval.
async fn beat(mut connection: Connection, name: String, count: u64) {
    let pause = RENEW_INTERVAL / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    loop {
        let round = Instant::now();
        for number in 0..count {
            let call = Call::merge_patch(
                format!("{LEASES}/{}", numbered(&name, number)),
                objects::renewal(jiff::Timestamp::now()),
            );
            // A lease that is not made yet is renewed in the next round; other trouble shows as nodes that are not ready.
            if connection.attempt(call).await.is_err() {
                return;
            }
            // Timers have a resolution of a millisecond, so shorter pauses are made up for here.
            let due = pause * u32::try_from(number).unwrap_or(u32::MAX);
            sleep(due.saturating_sub(round.elapsed())).await;
        }
        sleep(RENEW_INTERVAL.saturating_sub(round.elapsed())).await;
    }
}
