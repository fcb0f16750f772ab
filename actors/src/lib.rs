//! Agents, the tool router and the gateway, as supervised actors.
