//! The settings of the binary, each with its type, default and description, and their sources:
//! defaults, then a file, then the environment, then flags.
//!
//! The table below is the only place where a setting is written down. The key of a setting, such as
//! `gateway.listen`, gives its environment variable (`NEUROFLOW_GATEWAY_LISTEN`) and its flag
//! (`--gateway-listen`).

mod access;
mod choice;
mod cluster;
mod error;
mod flags;
mod load;
mod mcp;
mod names;
mod place;
mod print;
mod proxy;
mod seeds;
mod setting;
mod unit;
mod value;
mod way_out;

use std::net::SocketAddr;
use std::time::Duration;

use neuroflow::Level;
use neuroflow::actors::SyncPolicy;
use neuroflow_telemetry::logs::LogFormat;

pub(crate) use choice::{Builtin, level, levels};
pub(crate) use cluster::LeasesPlace;
pub(crate) use error::ConfigError;
pub(crate) use flags::{Overrides, Source};
pub(crate) use load::Loaded;
pub(crate) use names::Names;
pub(crate) use place::{JournalUrl, default_directory};
pub(crate) use print::{write_default, write_effective, write_values};
pub(crate) use seeds::Seed;
pub(crate) use unit::parse_duration;
pub(crate) use value::{ByteSize, Endpoint, FilePath, LogPath, MetricsAddress, Ratio, SocketPath};

pub(crate) use way_out::{NotAWay, WayOut};

use setting::{preset, settings, unset};

settings! {
    /// The door to the agents: the A2A protocol 1.0 over JSON-RPC, HTTP+JSON and gRPC.
    gateway: Gateway {
        /// Where the gateway listens. Port 0 lets the system choose.
        listen: SocketAddr = preset("127.0.0.1:8080"),
        /// The URL that clients know the gateway by, if it isn't the one that it listens on, such as
        /// that of a proxy in front. It's what the agent cards say. A gateway that listens on all
        /// addresses (`0.0.0.0`) should have one: it says the machine's own address otherwise.
        public_url: Option<Endpoint> = unset("https://agents.example.org"),
        /// How long a blocking `SendMessage` waits for its task to end, before it answers with the
        /// task as it is.
        blocking_wait: Duration = preset("55s"),
        /// Sends push notifications to the webhooks that clients name, at public addresses only.
        push_notifications: bool = preset("true"),
        /// Lets webhooks have loopback and private addresses too. Services that hand out a machine's
        /// credentials stay closed.
        push_allow_private: bool = preset("false"),
        /// The private key that the agent cards are signed with: PKCS #8 in PEM, of the curve P-256, as
        /// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` writes it.
        card_key: Option<FilePath> = unset("/etc/neuroflow/card-key.pem"),
        /// Names that clients may call the gateway by, besides those of loopback if it listens there
        /// and that of the public URL.
        hosts: Names = preset(""),
        /// Origins whose web pages may use the gateway, such as `https://app.example.org`.
        origins: Names = preset(""),
        /// How long the gateway still accepts when it's about to stop, while `/readyz` says no: half of
        /// `stop.deadline` at most, of which it's a part.
        drain_delay: Duration = preset("0s"),
        /// Lets the gateway and the metrics listen where other machines can reach them without
        /// authentication: whoever reaches the gateway can use every agent.
        allow_remote_without_authentication: bool = preset("false"),
    }

    /// TLS of the gateway. The files are PEM, and read again when they change.
    tls: Tls {
        /// The certificate, and those between it and its CA.
        certificate: Option<FilePath> = unset("/etc/neuroflow/tls.crt"),
        /// Its private key.
        key: Option<FilePath> = unset("/etc/neuroflow/tls.key"),
        /// CAs whose clients' certificates say who asks.
        client_ca: Option<FilePath> = unset("/etc/neuroflow/clients.crt"),
        /// Says that a proxy in front speaks TLS, so that the gateway may listen without it where
        /// other machines can reach it.
        terminated_upstream: bool = preset("false"),
    }

    /// How clients say who they are. With any of tokens, issuer and `tls.client_ca`, they have to.
    auth: Auth {
        /// The file of bearer tokens; `neuroflow token new` makes its lines. Read again when it
        /// changes.
        tokens: Option<FilePath> = unset("/etc/neuroflow/tokens"),
        /// The issuer of JWTs, as their `iss` says it; its keys are found by OpenID Connect discovery.
        issuer: Option<Endpoint> = unset("https://id.example.org"),
        /// The `aud` of JWTs that are meant for this node.
        audience: Option<String> = unset("neuroflow"),
        /// Where the issuer's keys are, if it has no discovery document.
        keys_url: Option<Endpoint> = unset("https://id.example.org/jwks"),
        /// The claim with a user's groups: a text or a list of texts.
        groups_claim: String = preset("groups"),
        /// How far the issuer's clock may be off.
        clock_skew: Duration = preset("1m"),
        /// CAs to trust for the issuer in place of the system's.
        issuer_ca: Option<FilePath> = unset("/etc/neuroflow/issuer.crt"),
        /// Lets the issuer have a loopback or private address, and speak without TLS.
        allow_private_issuer: bool = preset("false"),
    }

    /// What clients may do.
    policy: Policy {
        /// The file of Cedar policies; what none of them permits is denied. Read again when it
        /// changes. `neuroflow policy check` checks it, `neuroflow policy explain` tries it.
        file: Option<FilePath> = unset("/etc/neuroflow/policies.cedar"),
    }

    /// What each client may have at once; 0 for as much as there is.
    limits: Limits {
        /// Requests per second, on average.
        requests_per_second: u32 = preset("0"),
        /// Requests that may come at once before the average counts; 0 for as many as per second.
        burst: u32 = preset("0"),
        /// Requests that are answered at a time, streams for as long as they last.
        concurrent: u32 = preset("0"),
    }

    /// Metrics for Prometheus, and traces for a collector.
    telemetry: Telemetry {
        /// Where `/metrics` is served, or "off". Port 0 lets the system choose.
        metrics_listen: MetricsAddress = preset("127.0.0.1:9464"),
        /// The OTLP/HTTP port of a collector, which traces are sent to. Unless it's set, the
        /// `OTEL_EXPORTER_OTLP_ENDPOINT` variable decides, and without that no trace is recorded. The
        /// other `OTEL_*` variables, such as those for headers, count in either case.
        otlp_endpoint: Option<Endpoint> = unset("http://localhost:4318"),
        /// The share of new traces that is recorded, from 0 to 1. Unless it's set, the
        /// `OTEL_TRACES_SAMPLER` variable is asked first.
        sample_ratio: Ratio = preset("1.0"),
    }

    /// Log lines on standard error.
    log: Log {
        /// "text" for people or "json" for machines.
        format: LogFormat = preset("text"),
        /// What is logged: a level, and levels for targets.
        filter: String = preset("info,rmcp=warn"),
    }

    /// The cells that programs run in.
    sandbox: Sandbox {
        /// How much stands between a program and this host: "minimal", "standard", "strict" or
        /// "paranoid". `neuroflow doctor` says which of them this host and version can give.
        level: Level = preset("strict"),
        /// Lets cells do without those layers of their level that this host can't give: control
        /// groups, the system call filter, Landlock, an outer id of their own. Reports, logs and
        /// metrics say what is missing.
        allow_degraded: bool = preset("false"),
        /// Attacks the level on this host before the first program runs, with the quick part of what
        /// `neuroflow doctor` does; a sandbox that doesn't hold runs nothing.
        attack_first: bool = preset("true"),
        /// Time that a program may take.
        wall_time: Duration = preset("1m"),
        /// Memory of a cell. Below level "strict" it's the address space of each process.
        memory: ByteSize = preset("512MiB"),
        /// Processor time per time, in thousandths of a core; 0 for no limit. From level "strict" on.
        cpu_milli: u32 = preset("1000"),
        /// Processes and threads of one cell at a time. Not at level "minimal".
        processes: u32 = preset("64"),
        /// Open files of each process.
        open_files: u32 = preset("256"),
        /// The largest file that can be written.
        file_size: ByteSize = preset("256MiB"),
        /// Bytes that a program may write to standard output and standard error together.
        output: ByteSize = preset("8MiB"),
        /// Size of the working directory, which lives in memory. Not at level "minimal".
        workdir_size: ByteSize = preset("64MiB"),
        /// Cells that run at a time.
        cells: u16 = preset("64"),
        /// Requests that may wait for one; each agent has a quarter of the places.
        waiting: u16 = preset("256"),
        /// Cells that are kept ready, at least. Not at level "minimal".
        warm_least: u16 = preset("2"),
        /// Cells that are kept ready when many are asked for, at most; 0 keeps none.
        warm_most: u16 = preset("16"),
        /// What programs may reach of the network: hosts, each with a port if it isn't 443, such as
        /// "pypi.org", "*.example.com" or "build.example.com:8080". They reach it through a proxy in
        /// their cell, by TLS that names the host; nothing else is there. Not at levels "minimal" and
        /// "paranoid".
        allow: Vec<WayOut> = preset(""),
        /// Keeps a Python interpreter running, and cells with forks of it ready, as many as
        /// `sandbox.warm_most` allows: for the agent and the tool "python", and for whatever runs as
        /// `python3 -I -B -c TEXT`. Without it, each of them starts an interpreter.
        python: bool = preset("false"),
    }

    /// The log of every decision that matters: hash-chained and signed.
    audit: Audit {
        /// Its file, or "off". Full files are renamed to it with a number behind; none is ever removed.
        /// Beside it lie its key and its last signature.
        file: LogPath = preset("off"),
        /// The key that it's signed with, made if it isn't there; its public half is written beside it.
        /// Unless it's set, the name of the log with ".key" behind.
        key: Option<FilePath> = unset("/etc/neuroflow/audit.key"),
        /// When a record is on disk: "each" before what it's about is done, "interval" within a second.
        sync: SyncPolicy = preset("each"),
        /// Whether what can't be recorded is refused. Otherwise it's counted, and the count recorded.
        required: bool = preset("true"),
    }

    /// Where tasks are kept, so that none that was accepted is lost.
    journal: Journal {
        /// "memory", where nothing survives the process, or the URL of a directory or of a PostgreSQL
        /// database, which many nodes can share. Unless it's set: `$STATE_DIRECTORY/journal`, else
        /// `$XDG_STATE_HOME/neuroflow/journal`, else `~/.local/state/neuroflow/journal`.
        url: Option<JournalUrl> = unset("file:///var/lib/neuroflow/journal"),
        /// Whether nothing is told before the disk has it. Without that, the last seconds are lost with
        /// the machine, though not with the process.
        sync: bool = preset("true"),
        /// For how long ended tasks are kept.
        retain_age: Duration = preset("30d"),
        /// How many ended tasks are kept.
        retain_tasks: u32 = preset("200000"),
        /// Bytes of ended tasks that are kept.
        retain_bytes: ByteSize = preset("8GiB"),
        /// This node's name among those that share a database: its unfinished tasks are its own.
        node: String = preset("node"),
    }

    /// The agents that come with the binary.
    agents: Agents {
        /// Which of them are served: "shell", "echo", "python". The first one answers at the gateway's
        /// root.
        enabled: Vec<Builtin> = preset("shell,echo"),
    }

    /// The node as a server of the Model Context Protocol: agents as tools.
    mcp_server: McpServer {
        /// Serves MCP clients at the gateway's `/mcp` too. `neuroflow mcp` serves one over its standard
        /// streams in any case.
        http: bool = preset("true"),
        /// Gives MCP clients the tool `exec`, which runs programs in cells.
        exec: bool = preset("false"),
    }

    /// Links to the other nodes of a cluster, which may ask this node's agents by their names.
    cluster: Cluster {
        /// Where this node listens for others (UDP), or "off".
        listen: MetricsAddress = preset("off"),
        /// The folder with this node's identity: node.pem, node-key.pem and authority.pem, as
        /// `neuroflow node init` writes them.
        identity: Option<FilePath> = unset("/etc/neuroflow/node"),
        /// Nodes that this one dials when it starts, and until they answer.
        seeds: Vec<Seed> = preset(""),
        /// Where other nodes reach this one, if that isn't where it listens: behind an address translation.
        advertise: Option<SocketAddr> = unset("203.0.113.7:7946"),
        /// This node's weight among those that offer the same agent; with 0 nothing is placed on it.
        capacity: u32 = preset("100"),
        /// The folder with the cluster's authority, as `neuroflow cluster init` writes it. With it this
        /// node signs new ones, which `neuroflow cluster invite` lets it invite.
        authority: Option<FilePath> = unset("/etc/neuroflow/authority"),
        /// The list of nodes that are shut out; unless it's set, revocations.txt in the folder of the
        /// identity. Read again when it changes, and written when another node knows a newer one.
        revocations: Option<FilePath> = unset("/var/lib/neuroflow/revocations.txt"),
        /// Who decides on which node an agent lives of which there's only one: a PostgreSQL database, by
        /// its URL, or "journal" for the journal's own.
        leases: Option<LeasesPlace> = unset("journal"),
        /// For how long a node has such an agent unless it says so again: so long nobody has it after its
        /// node was lost.
        lease_term: Duration = preset("15s"),
        /// Agents that come with the binary of which there's one in the cluster, on one of the nodes that
        /// say so here: "shell", "echo", "python". They are asked as `agent://*/NAME`; the gateway serves
        /// those for which there is a `[proxy.NAME]`.
        singletons: Option<Vec<Builtin>> = unset("python"),
        /// The same with one instance for each conversation, spread over the nodes that say so.
        sharded: Option<Vec<Builtin>> = unset("python"),
    }

    /// The socket that `neuroflow tree` asks.
    control: Control {
        /// Its path, or "off". Unless it's set: `$XDG_RUNTIME_DIR/neuroflow/control.sock`, else, for root,
        /// `/run/neuroflow/control.sock`, else `/tmp/neuroflow-UID/control.sock`.
        socket: Option<SocketPath> = unset("/run/neuroflow/control.sock"),
    }

    /// The process itself.
    runtime: Runtime {
        /// Threads that actors run on; 0 for one per processor.
        workers: u16 = preset("0"),
    }

    /// What happens at SIGTERM, SIGINT and SIGHUP.
    stop: Stop {
        /// Time for requests and tasks to come to their end; what still runs after it is killed, and the
        /// exit code is 1. Of what `gateway.drain_delay` leaves of it, requests have two thirds, or all
        /// but 10s if that's more, and everything behind them has the rest. A second signal ends the
        /// process at once.
        deadline: Duration = preset("15s"),
    }
}
