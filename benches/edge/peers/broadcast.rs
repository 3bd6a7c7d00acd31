//! Fan-out as it is written with axum: tokio's broadcast channel, and for each reader a stream of its events in an `Sse`.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};

/// Events that a reader may be behind before it is cut.
const BEHIND_MAX: usize = 1024;

/// One text for all readers.
type News = broadcast::Sender<Arc<str>>;

/// Passes on what is posted to all who read; ends with the process.
pub fn run(listener: TcpListener) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|socket| {
            let _ = socket.set_nodelay(true);
        });
        let (news, _) = broadcast::channel(BEHIND_MAX);
        let router = Router::new().route("/{*name}", get(follow).post(append)).with_state(news);
        axum::serve(listener, router).await
    })
}

async fn append(State(news): State<News>, body: String) -> StatusCode {
    // Nobody may be reading.
    let _ = news.send(body.into());
    StatusCode::NO_CONTENT
}

async fn follow(State(news): State<News>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // Whoever is too far behind is cut.
    let texts = BroadcastStream::new(news.subscribe()).map_while(Result::ok);
    Sse::new(texts.map(|text| Ok(Event::default().data(text)))).keep_alive(KeepAlive::default())
}
