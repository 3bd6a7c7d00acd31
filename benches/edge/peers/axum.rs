//! axum and reqwest, as most gateways in Rust are built: a fallback handler, a shared client, bodies streamed through without
//! being copied or collected, on tokio's usual runtime.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;

use super::hyper::strip;

struct Gateway {
    client: reqwest::Client,
    upstream: String,
}

/// Relays every request to `upstream`; ends with the process.
pub fn run(listener: TcpListener, upstream: SocketAddr) -> std::io::Result<()> {
    // As `#[tokio::main]` has it: a worker for each core that the process may use.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|socket| {
            let _ = socket.set_nodelay(true);
        });
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(usize::MAX).build();
        let client = client.map_err(std::io::Error::other)?;
        let gateway = Arc::new(Gateway { client, upstream: format!("http://{upstream}") });
        axum::serve(listener, Router::new().fallback(relay).with_state(gateway)).await
    })
}

async fn relay(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", gateway.upstream);
    let asked = gateway
        .client
        .request(parts.method, url)
        .headers(parts.headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .send()
        .await;
    match asked {
        Ok(answer) => {
            let mut answer = axum::http::Response::<reqwest::Body>::from(answer);
            strip(answer.headers_mut());
            answer.map(Body::new)
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
