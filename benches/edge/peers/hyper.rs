//! hyper alone: its server, its pooled client, bodies handed from one to the other as they are.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderMap, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

type Upstream = Client<HttpConnector, Incoming>;

/// What does not travel beyond one connection.
pub const HOP_BY_HOP: [HeaderName; 5] =
    [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive")];

/// Relays every request to `upstream`; ends with the process.
pub fn run(listener: TcpListener, upstream: SocketAddr) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Upstream = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let client = client.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| relay(&client, upstream, request));
                let mut server = hyper::server::conn::http1::Builder::new();
                let _ = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    })
}

async fn relay(
    client: &Upstream,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Either<Incoming, Empty<Bytes>>>, Infallible> {
    strip(request.headers_mut());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query(path).build();
    *request.uri_mut() = uri.expect("a path that was parsed once");
    Ok(match client.request(request).await {
        Ok(mut response) => {
            strip(response.headers_mut());
            response.map(Either::Left)
        }
        Err(_) => {
            let mut response = Response::new(Either::Right(Empty::new()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}

/// Takes out what does not travel.
pub fn strip(fields: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        fields.remove(name);
    }
}
