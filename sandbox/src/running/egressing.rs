//! The proxy of a running cell, at work whether or not somebody reads the cell's output.

use std::{os::fd::OwnedFd, sync::Arc};

use neuroflow_kernel::Clock;
use tokio::task::JoinHandle;

use crate::{
    egress::{self, Egress, EgressReport, Policy, Tally},
    linux::sys,
};

/// A proxy that is a task of its own: a caller who reads slowly holds no connection of the cell up.
/// Dropping this ends it, with every connection.
#[derive(Debug)]
pub(super) struct Egressing {
    task: JoinHandle<()>,
    tally: Arc<Tally>,
}

impl Egressing {
    /// Starts it on the runtime that watches the cell's pipes.
    pub(super) fn start(
        listener: OwnedFd,
        policy: &Arc<Policy>,
        cell: String,
    ) -> sys::Result<Self> {
        let Egress { proxy, tally } =
            egress::serve(listener, Arc::clone(policy), cell, Clock::system())?;
        #[expect(
            clippy::disallowed_methods,
            reason = "a cell is there without actors too; the task ends with the cell that owns it"
        )]
        let task = tokio::spawn(proxy.run(std::future::pending()));
        Ok(Self { task, tally })
    }

    /// Ends it. Every connection has its decision recorded by then.
    pub(super) async fn end(mut self) -> EgressReport {
        self.task.abort();
        if let Err(ended) = (&mut self.task).await
            && ended.is_panic()
        {
            tracing::error!(target: "neuroflow::egress", %ended, "the proxy has failed");
        }
        self.tally.report()
    }
}

impl Drop for Egressing {
    fn drop(&mut self) {
        self.task.abort();
    }
}
