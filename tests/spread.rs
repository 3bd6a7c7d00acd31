//! Few connections are spread evenly over many cores, whatever the kernel's hash says, and every one of them is served.

mod support;

use support::{Edge, edge, get, post};

const WORKERS: usize = 8;
const CONNECTIONS: usize = 160;

/// The fullest core's connections. By the kernel's hash alone it has more than that in two runs of three.
const FULLEST_MAX: f64 = 25.0;

/// Long streams stay where they were accepted for hours, so an uneven start stays uneven: one core is late with every token while
/// others have nothing to do.
#[test]
fn no_core_has_much_more_than_its_share() {
    let edge = Edge::run(edge::command(), &["--workers", &WORKERS.to_string()]);
    // One after the other, each served before the next comes: who is handed over is served as well.
    let open: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = edge.connect();
            client.send(get("/livez", &[]));
            assert_eq!(client.read_answer().0.status(), 200);
            client
        })
        .collect();
    let on_cores: Vec<f64> = (0..WORKERS)
        .map(|core| edge.metric("sedge_core_connections_open", &[&format!("core=\"{core}\"")]))
        .collect();
    assert_eq!(on_cores.iter().sum::<f64>(), CONNECTIONS as f64, "{on_cores:?}");
    let fullest = on_cores.iter().copied().fold(0.0, f64::max);
    assert!(fullest <= FULLEST_MAX, "{on_cores:?}");
    assert!(edge.metric("sedge_connections_handed_total", &[]) > 0.0, "{on_cores:?}");
    drop(open);
    edge.wait_metric("sedge_connections_open", &[], 0.0);
}

/// A burst comes faster than its connections are counted as open.
#[test]
fn a_burst_is_spread_as_well() {
    let edge = Edge::run(edge::command(), &["--workers", &WORKERS.to_string()]);
    let request = post(
        "/v1/chat/completions",
        &["x-sim-events: 3", "x-sim-first-ms: 300"],
        r#"{"model":"m","stream":true,"messages":[]}"#,
    );
    let mut open: Vec<_> = (0..CONNECTIONS).map(|_| edge.connect()).collect();
    open.iter_mut().for_each(|client| client.send(&request));
    edge.wait_metric("sedge_connections_open", &[], CONNECTIONS as f64);
    let on_cores: Vec<f64> = (0..WORKERS)
        .map(|core| edge.metric("sedge_core_connections_open", &[&format!("core=\"{core}\"")]))
        .collect();
    assert!(on_cores.iter().copied().fold(0.0, f64::max) <= FULLEST_MAX, "{on_cores:?}");
    for client in &mut open {
        let (head, body) = client.read_answer();
        assert_eq!(head.status(), 200);
        assert!(body.text().ends_with("data: [DONE]\n\n"));
    }
}
