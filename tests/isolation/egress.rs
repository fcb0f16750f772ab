//! The way out through the proxy, as programs and their callers meet it.

use std::time::Duration;

use neuroflow_kernel::Clock;
use neuroflow_sandbox::{End, Network, Rule};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{launch, perl, standard};

/// Takes one request and answers with the body; gives back the request's first line.
async fn serve_once(listener: &TcpListener, body: &str) -> String {
    let (mut stream, _peer) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let length = body.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.expect("the proxy reads");
    let head = String::from_utf8(head).expect("text");
    head.lines().next().expect("a line").to_owned()
}

#[tokio::test]
async fn a_caller_who_reads_nothing_holds_no_request_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let talk = format!(
        r"use Socket; $| = 1;
        sub ask {{ my ($path) = @_; my $answer = '';
          socket(my $s, PF_INET, SOCK_STREAM, 0) or die $!;
          connect($s, sockaddr_in(3128, INADDR_LOOPBACK)) or die $!;
          syswrite($s, join(chr(13) . chr(10), 'GET http://127.0.0.1:{port}' . $path . ' HTTP/1.1', 'Host: 127.0.0.1:{port}', '', ''));
          while (sysread($s, my $piece, 4096)) {{ $answer .= $piece }}
          $answer =~ s/^.*?\r\n\r\n//s; return $answer }}
        print ask('/second/' . ask('/first'))"
    );
    let rule = Rule::host("127.0.0.1").port(port).allow_private("127.0.0.0/8");
    let cell = launch(standard().network(Network::allow([rule])), perl(talk)).await;
    // Nobody asks the cell for anything meanwhile; that the second request knows the first one's answer
    // shows that it got one.
    let served = async {
        let first = serve_once(&listener, "apple").await;
        (first, serve_once(&listener, "pear").await)
    };
    let clock = Clock::system();
    let served = clock.before(clock.now() + Duration::from_mins(1), served).await;
    let (first, second) = served.expect("both requests come");
    assert_eq!(
        (first.as_str(), second.as_str()),
        ("GET /first HTTP/1.1", "GET /second/apple HTTP/1.1")
    );
    let collected = cell.collect().await;
    assert_eq!(collected.report.end, End::Exited(0));
    assert_eq!(collected.stdout, b"pear");
    let egress = collected.report.egress.expect("what the proxy decided");
    assert_eq!((egress.allowed, egress.denied), (2, 0));
}
