//! Actors of others between two processes: `ractor_cluster` and Erlang, if they are there.

use std::process::{Command, Stdio};

use super::{ended, lines};

/// Actors of `ractor_cluster`, if `tools/setup bench` has built the program in `benches/ractor_cluster`.
pub(crate) fn ractor_cluster(cores: [&str; 2]) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/bin/ractor-cluster-peer");
    let start = |core: &str, arguments: &[&str]| {
        Command::new("taskset")
            .args(["-c", core, program])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset is there")
    };
    if !std::path::Path::new(program).exists() {
        println!("  ractor isn't installed: tools/setup bench");
        return;
    }
    let mut serving = start(cores[1], &["serve"]);
    let address = lines(&mut serving).next().expect("the server says where it is");
    let mut measuring = start(cores[0], &["measure", &address]);
    for line in lines(&mut measuring) {
        println!("  ractor {line}");
    }
    ended("ractor", serving, measuring);
}

/// `gen_server:call` between two Erlang nodes, if there is an `erl`.
pub(crate) fn erlang(cores: [&str; 2]) {
    const SERVER: &str = "\
        register(echo, spawn(fun() -> F = fun(F) -> receive {'$gen_call', {P, T}, M} -> \
        P ! {T, M}, F(F) end end, F(F) end)), io:format(\"up~n\").";
    const CLIENT: &str = "\
        pong = net_adm:ping('bench_server@127.0.0.1'), M = binary:copy(<<7>>, 256), \
        Call = fun() -> gen_server:call({echo, 'bench_server@127.0.0.1'}, M) end, \
        [Call() || _ <- lists:seq(1, 2000)], \
        Times = lists:sort([element(1, timer:tc(Call)) || _ <- lists:seq(1, 20000)]), \
        io:format(\"ask 256 B, one in flight  p50 ~p us  p99 ~p us~n\", \
        [lists:nth(10000, Times), lists:nth(19800, Times)]), Me = self(), N = 3000, \
        {T, _} = timer:tc(fun() -> [spawn(fun() -> [Call() || _ <- lists:seq(1, N)], Me ! done end) \
        || _ <- lists:seq(1, 64)], [receive done -> ok end || _ <- lists:seq(1, 64)] end), \
        io:format(\"ask 256 B, 64 in flight  ~p/s~n\", [round(64 * N / T * 1000000)]), halt().";
    let start = |core: &str, name: &str, code: &str| {
        Command::new("taskset")
            .args(["-c", core, "erl", "-noinput", "-name", name, "-setcookie", "bench", "-eval"])
            .arg(code)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskset is there")
    };
    if Command::new("erl").args(["-noshell", "-eval", "halt()."]).status().is_err() {
        println!("  erl   isn't installed");
        return;
    }
    let mut server = start(cores[1], "bench_server@127.0.0.1", SERVER);
    let _up = lines(&mut server).next();
    let mut client = start(cores[0], "bench_client@127.0.0.1", CLIENT);
    for line in lines(&mut client) {
        println!("  erl   {line}");
    }
    ended("erl", server, client);
}
