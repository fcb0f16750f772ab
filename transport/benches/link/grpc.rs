//! The peer that most services would be: a unary call of gRPC over TLS, whose messages are bytes.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes};
use futures_util::future::BoxFuture;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use tonic::{Request, Response, Status};

use crate::{SIZE, environment, percentiles, say, seconds, timed_task};

const PATH: &str = "/bench.Echo/Ask";

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[derive(Clone)]
struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

type Answer = http::Response<tonic::body::Body>;

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).unary(Self, request).await) })
    }
}

pub(crate) async fn serve() {
    let identity = Identity::from_pem(environment("BENCH_CERTIFICATE"), environment("BENCH_KEY"));
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address"));
    let incoming = incoming.expect("a socket").with_nodelay(Some(true));
    say(incoming.local_addr().expect("an address"));
    let mut server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .expect("a certificate");
    server.add_service(Echo).serve_with_incoming(incoming).await.expect("it serves");
}

pub(crate) async fn measure(address: SocketAddr) {
    let authority = Certificate::from_pem(environment("BENCH_AUTHORITY"));
    let tls = ClientTlsConfig::new().ca_certificate(authority).domain_name("server");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    let channel = endpoint.tls_config(tls).expect("an authority").connect().await;
    let channel = channel.expect("a connection");
    let asking = channel.clone();
    let times = timed_task(move || {
        let channel = asking.clone();
        async move { ask(&channel).await }
    });
    percentiles("unary 256 B, one in flight", times.await);

    let mut tasks = tokio::task::JoinSet::new();
    let (start, until) = (Instant::now(), Instant::now() + seconds());
    for _ in 0..64 {
        let channel = channel.clone();
        tasks.spawn(async move {
            let mut asked = 0_u32;
            while Instant::now() < until {
                ask(&channel).await;
                asked += 1;
            }
            asked
        });
    }
    let asked: u32 = tasks.join_all().await.into_iter().sum();
    let rate = f64::from(asked) / start.elapsed().as_secs_f64();
    println!("unary 256 B, 64 in flight  {rate:.0}/s");
}

async fn ask(channel: &Channel) {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("a connection");
    let request = Request::new(Bytes::from_static(&[7; SIZE]));
    let path = http::uri::PathAndQuery::from_static(PATH);
    let answer = grpc.unary(request, path, Raw).await.expect("an answer");
    assert_eq!(answer.into_inner().len(), SIZE);
}
