//! What a cell sees of networks.

use std::{
    net::TcpListener,
    os::{linux::net::SocketAddrExt, unix::net},
};

use crate::support::{collect, marker, output_of, perl, sh, standard};

fn connect(port: u16) -> String {
    format!(
        "use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0) or die;
         print connect($s, sockaddr_in({port}, inet_aton('127.0.0.1'))) ? 'connected' : 0 + $!"
    )
}

#[tokio::test]
async fn there_is_no_device_but_loopback() {
    let text =
        output_of(standard(), sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")).await;
    assert_eq!(text, "lo\n");
}

#[tokio::test]
async fn the_hosts_loopback_is_another_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let collected = collect(standard(), perl(connect(port))).await;
    assert!(!collected.report.is_success(), "no such sockets unless asked for");
    let denied: Vec<&str> =
        collected.report.denials.iter().map(|denial| denial.call.as_str()).collect();
    assert_eq!(denied, ["socket"]);
    let text =
        output_of(standard().network(neuroflow_sandbox::Network::loopback()), perl(connect(port)))
            .await;
    assert_eq!(text, libc::ECONNREFUSED.to_string(), "up, but not the host's");
}

#[tokio::test]
async fn loopback_works_inside() {
    let talk = r"use Socket; socket(my $l, PF_INET, SOCK_STREAM, 0); bind($l, sockaddr_in(0, INADDR_LOOPBACK)); listen($l, 1);
        my ($port) = sockaddr_in(getsockname($l)); socket(my $c, PF_INET, SOCK_STREAM, 0);
        print connect($c, sockaddr_in($port, INADDR_LOOPBACK)) ? 'connected' : 0 + $!";
    assert_eq!(
        output_of(standard().network(neuroflow_sandbox::Network::loopback()), perl(talk)).await,
        "connected"
    );
}

#[tokio::test]
async fn abstract_sockets_of_the_host_are_out_of_reach() {
    let name = marker();
    let address = net::SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = net::UnixListener::bind_addr(&address).expect("a listener");
    let attempt = format!(
        "use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); my $a = pack('S a*', AF_UNIX, chr(0) . '{name}');
         print connect($s, $a) ? 'connected' : 0 + $!"
    );
    assert_eq!(output_of(standard(), perl(attempt)).await, libc::ECONNREFUSED.to_string());
}
