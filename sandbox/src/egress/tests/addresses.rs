//! Names that resolve to what a cell must not reach.

use super::*;

#[tokio::test]
async fn every_kind_of_closed_address_is_refused_and_never_dialled() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([Rule::host("*.test.example").port(server.port())]).await;
    for (address, reason) in [
        ("127.0.0.1", EgressReason::AddressLoopback),
        ("127.255.255.254", EgressReason::AddressLoopback),
        ("::1", EgressReason::AddressLoopback),
        ("::ffff:127.0.0.1", EgressReason::AddressLoopback),
        ("64:ff9b::127.0.0.1", EgressReason::AddressLoopback),
        ("10.0.0.1", EgressReason::AddressPrivate),
        ("172.16.0.1", EgressReason::AddressPrivate),
        ("192.168.0.1", EgressReason::AddressPrivate),
        ("100.64.0.1", EgressReason::AddressPrivate),
        ("fd00::1", EgressReason::AddressPrivate),
        ("169.254.0.1", EgressReason::AddressLinkLocal),
        ("fe80::1", EgressReason::AddressLinkLocal),
        ("169.254.169.254", EgressReason::AddressMetadata),
        ("100.100.100.200", EgressReason::AddressMetadata),
        ("fd00:ec2::254", EgressReason::AddressMetadata),
        ("::ffff:169.254.169.254", EgressReason::AddressMetadata),
        ("224.0.0.1", EgressReason::AddressMulticast),
        ("ff02::1", EgressReason::AddressMulticast),
        ("0.0.0.0", EgressReason::AddressReserved),
        ("::", EgressReason::AddressReserved),
        ("::127.0.0.1", EgressReason::AddressReserved),
        ("192.0.2.1", EgressReason::AddressReserved),
        ("198.18.0.1", EgressReason::AddressReserved),
        ("203.0.113.1", EgressReason::AddressReserved),
        ("240.0.0.1", EgressReason::AddressReserved),
        ("255.255.255.255", EgressReason::AddressReserved),
        ("2001:db8::1", EgressReason::AddressReserved),
        ("2002:7f00:1::", EgressReason::AddressReserved),
        ("2001:0:7f00:1::", EgressReason::AddressReserved),
    ] {
        scene.script.answer(NAME, &[&[address]]);
        assert_eq!(scene.ask("GET", &server.host(), "/").await, refusal(reason), "{address}");
        let (mut client, head) = scene.tunnel(&server.host()).await;
        assert_eq!(head + &rest(&mut client).await, refusal(reason), "{address}");
    }
    assert_eq!(server.heard(), [""; 0]);
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_the_checked_address_is_the_one_dialled() {
    // The same port at an address that the rule permits, and at one that it doesn't.
    let open = Server::at("127.0.0.2", 0, OK).await;
    let closed = Server::at(LOCAL, open.port(), OK).await;
    let rule = Rule::host(NAME).port(open.port()).allow_private("127.0.0.2/32");
    let scene = Scene::with([rule]).await;
    // A resolver that changes its mind between check and use.
    scene.script.answer(NAME, &[&["127.0.0.2"], &[LOCAL]]);

    assert!(scene.ask("GET", &open.host(), "/").await.starts_with("HTTP/1.1 200"));
    assert_eq!(scene.script.asked(), 1);
    let refused = scene.ask("GET", &open.host(), "/").await;
    assert_eq!(refused, refusal(EgressReason::AddressLoopback));
    assert_eq!((open.heard().len(), closed.heard().len()), (1, 0));
}

#[tokio::test]
async fn of_a_mixed_answer_only_what_is_permitted_is_dialled() {
    let open = Server::at("127.0.0.2", 0, OK).await;
    let closed = Server::at(LOCAL, open.port(), OK).await;
    let rule = Rule::host(NAME).port(open.port()).allow_private("127.0.0.2/32");
    let scene = Scene::with([rule]).await;
    scene.script.answer(NAME, &[&[LOCAL, "10.0.0.1", "127.0.0.2", "::1"]]);
    for _ in 0..3 {
        assert!(scene.ask("GET", &open.host(), "/").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!((open.heard().len(), closed.heard().len()), (3, 0));
    let report = scene.report(3).await;
    let permitted: IpAddr = "127.0.0.2".parse().unwrap();
    assert!(report.decisions.iter().all(|decision| decision.address == Some(permitted)));
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_takes_no_connection() {
    let server = Server::saying(OK).await;
    let rule = Rule::host(NAME).port(server.port()).allow_private("127.0.0.0/8");
    let scene = Scene::with([rule]).await;
    scene.script.answer(NAME, &[&["127.0.0.9", "127.0.0.8", LOCAL]]);
    assert!(scene.ask("GET", &server.host(), "/").await.starts_with("HTTP/1.1 200"));
    assert_eq!(scene.decision().await.address, Some(LOCAL.parse().unwrap()));
}

#[tokio::test]
async fn a_rule_may_name_an_address_and_nothing_is_looked_up_then() {
    let server = Server::saying(OK).await;
    let six = Server::at("::1", 0, OK).await;
    let rules = [Rule::host(LOCAL).port(server.port()), Rule::host("::1").port(six.port())];
    let scene = Scene::with(rules).await;
    for host in [
        format!("{LOCAL}:{}", server.port()),
        format!("[::ffff:7f00:1]:{}", server.port()),
        format!("[::1]:{}", six.port()),
    ] {
        assert!(scene.ask("GET", &host, "/").await.starts_with("HTTP/1.1 200"), "{host}");
    }
    let other = format!("127.0.0.2:{}", server.port());
    assert_eq!(scene.ask("GET", &other, "/").await, refusal(EgressReason::AddressLiteral));
    assert_eq!(scene.script.asked(), 0);
    assert!(six.heard()[0].contains(&format!("host: [::1]:{}\r\n", six.port())));
}

#[tokio::test]
async fn odd_spellings_of_addresses_never_reach_the_resolver() {
    let server = Server::saying(OK).await;
    let rules = [Rule::host("*.test.example").port(server.port()), Rule::host("10.0.0.1")];
    let scene = Scene::with(rules).await;
    for host in [
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.01",
        "[::1%25lo]",
        "a..test.example",
        "-a.test.example",
        "a%2etest.example",
    ] {
        let host = format!("{host}:{}", server.port());
        let answer = scene.ask("GET", &host, "/").await;
        // The parser takes some of these for no target at all.
        let is_refused = answer == refusal(EgressReason::HostSyntax)
            || answer.starts_with("HTTP/1.1 400 Bad Request\r\n");
        assert!(is_refused, "{host}: {answer}");
        let (mut client, head) = scene.tunnel(&host).await;
        let answer = head + &rest(&mut client).await;
        let is_refused = answer == refusal(EgressReason::HostSyntax)
            || answer.starts_with("HTTP/1.1 400 Bad Request\r\n");
        assert!(is_refused, "{host}: {answer}");
    }
    let long = format!("{}test.example:{}", "a.".repeat(130), server.port());
    assert_eq!(scene.ask("GET", &long, "/").await, refusal(EgressReason::HostSyntax));
    let user = format!("{NAME}:{}@127.0.0.1:{0}", server.port());
    let asked = format!("GET http://{user}/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    assert_eq!(scene.say(&asked).await, refusal(EgressReason::Userinfo));
    assert_eq!(scene.script.asked(), 0);
    assert_eq!(server.heard(), [""; 0]);
    let report = scene.tally.report();
    assert!(!format!("{report:?}").contains('@'), "what stands before @ is not kept");
}

#[tokio::test]
async fn upper_case_and_a_final_dot_are_the_same_name() {
    let server = Server::saying(OK).await;
    let scene = Scene::with([server.rule()]).await;
    let host = format!("API.Test.EXAMPLE.:{}", server.port());
    assert!(scene.ask("GET", &host, "/").await.starts_with("HTTP/1.1 200"));
    assert!(server.heard()[0].contains(&format!("host: {}\r\n", server.host())));
}
