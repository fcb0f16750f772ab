//! Flows through the public door: a node, real sockets, real processes. One module per flow.
//!
//! Every test has a node of its own on a port that the system chooses, and finds its processes by
//! a marker that no other test has, so that all of them run beside each other.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it's sent")]

#[path = "../shared/ca.rs"]
mod ca;
mod client;
#[path = "../shared/eventually.rs"]
mod eventually;
mod protocol;
#[path = "../journal/small_disk.rs"]
mod small_disk;
mod support;
#[path = "../shared/untried.rs"]
mod untried;

mod a2a_client;
mod access;
mod audit;
mod bad_input;
mod binding_input;
mod bindings;
mod cancel;
mod capability;
mod cards;
mod clock_jump;
mod cluster;
mod door;
mod full_disk;
mod fuzz;
mod fuzz_doors;
mod fuzz_schema;
mod grpc_timeout;
mod http_to_process;
mod issuer;
mod limits;
mod mcp_access;
mod mcp_conformance;
mod mcp_exec;
mod mcp_fixture;
mod mcp_oauth;
mod mcp_server;
mod mcp_tasks;
mod mcp_tools;
mod oidc_provider;
mod openai;
mod openapi;
mod overload;
mod proxy;
mod proxy_tools;
mod push;
mod push_owners;
mod push_places;
mod push_replaced;
mod push_rights;
mod replies;
mod rights_again;
mod schema;
mod shutdown;
mod smuggling;
mod streams;
mod streams_end;
mod supervision;
mod telemetry;
mod token_issuer;
mod tools;
mod turns;
mod unfit;
mod unsent;
mod visible;
