//! Starts the agents of which there's only one in the cluster, or one per conversation.

use std::sync::Arc;

use neuroflow_actors::{
    ASK, CANCEL, Far, Leases, LeasesConfig, MakeServer, READ, SoleAgent, SoleCommand, SoleParts,
    sole_child,
};
use neuroflow_kernel::{Address, Kernel, Restart, Restriction, Supervisor};
use neuroflow_transport::{Allowed, Links};

use super::BootError;
use super::proxy::way;
use super::way::FarWay;

/// An agent that lives once, as this node leads to it.
#[derive(Debug)]
pub(super) struct Sole {
    pub(super) name: String,
    pub(super) way: FarWay,
    /// What has the instances that live here.
    pub(super) router: Address<SoleCommand>,
}

/// Starts them below the other agents, and offers them to other nodes by their names.
pub(super) async fn start(
    agents: Vec<(SoleAgent, MakeServer)>,
    config: Option<LeasesConfig>,
    links: Option<&Links>,
    supervisor: &Supervisor,
    kernel: &Kernel,
) -> Result<Vec<Sole>, BootError> {
    let Some((first, _)) = agents.first() else { return Ok(Vec::new()) };
    let Some(links) = links else {
        return Err(BootError::Alone { agent: first.agent().profile().name });
    };
    // The id, as two nodes may have one name.
    let node = links.id().to_string();
    let leases = match &config {
        Some(config) => config.open(&node, kernel.clock().clone()).await?,
        None => Leases::unconfigured(),
    };
    let (drains, trust) = (links.clone(), links.clone());
    let leases = leases
        .taken_while(move || !drains.is_draining())
        .shutting_out(move |node| node.parse().is_ok_and(|node| trust.is_shut_out(&node)));
    let config = config.unwrap_or_else(|| LeasesConfig::new(""));
    let mut started = Vec::new();
    for (agent, server) in agents {
        let profile = agent.agent().profile();
        let ways = links.clone();
        let far: Far = Arc::new(move |node, name| way(&ways, node, name));
        let (leases, node) = ((leases.clone(), config.clone()), node.clone());
        let (spec, router, watch) = sole_child(agent, SoleParts { leases, node, far, server })?;
        supervisor.adopt(spec.restart(Restart::Permanent)).await?;
        let rights = ASK.union(READ).union(CANCEL);
        let address = router.attenuate(Restriction::new().rights(rights))?;
        let (asked, bounded) =
            (address.accepting(SoleCommand::Ask), address.accepting(SoleCommand::BoundedAsk));
        let (Some(asked), Some(bounded), Some(ordered)) =
            (asked, bounded, address.accepting(SoleCommand::Order))
        else {
            continue;
        };
        match watch {
            Some(watch) => {
                let clock = kernel.clock().clone();
                let behind = move || Box::pin(watch.down(clock.clone())) as _;
                links.export_passing(&profile.name, asked.clone(), Allowed::Everyone, behind)?;
            }
            None => links.export(&profile.name, asked.clone(), Allowed::Everyone)?,
        }
        links.export_beside(&profile.name, bounded)?;
        links.export_beside(&profile.name, ordered.clone())?;
        links.describe(&profile.name, profile.skills.iter().map(|it| it.id.clone()).collect());
        let way = FarWay { asks: asked, orders: Some(ordered) };
        started.push(Sole { name: profile.name, way, router });
    }
    Ok(started)
}
