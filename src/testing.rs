//! The few parts of the crate that benchmarks, fuzz targets and black-box tests drive directly, by the rooms they are in. No API: it
//! changes with them.

/// Client keys and rates.
pub mod admission {
    pub use crate::admission::sha256_hex;
    /// What a key or a route has used.
    pub mod meters {
        pub use crate::admission::meters::Meters;
    }
}
/// The command line.
pub mod cli {
    pub use crate::cli::{Command, parse};
}
/// The configuration.
pub mod config {
    pub use crate::config::{Breaker, Limits, Timeouts, load};
}
/// HTTP/1.1.
pub mod http1 {
    pub use crate::proto::http1::Version;
    /// Bodies.
    pub mod body {
        pub use crate::proto::http1::body::BodyDecoder;
    }
    /// The chunked transfer coding.
    pub mod chunked {
        pub use crate::proto::http1::chunked::{
            ChunkDecoder, ChunkError, LAST_CHUNK, SIZE_LINE_BYTES, payloads, size_line,
        };
    }
    /// Content codings.
    pub mod coding {
        pub use crate::proto::http1::coding::Coding;
    }
    /// Fields of heads.
    pub mod fields {
        pub use crate::proto::http1::fields::{Field, write_field};
    }
    /// Requests.
    pub mod request {
        pub use crate::proto::http1::request::{FIELD_COUNT, HeadScanner, RequestBody, RequestHead, parse};
    }
    /// Responses.
    pub mod response {
        pub use crate::proto::http1::response::{FIELD_COUNT, ResponseBody, find_head_end, parse};
    }
}
/// The APIs' requests and responses.
pub mod openai {
    pub use crate::proto::openai::{FirstContent, Peek, PeekState, Sideband, Subject};
}
/// The relay of a request.
pub mod relay {
    pub use crate::relay::request::Request;
    pub use crate::relay::request::outbound_headers::Left;
    pub use crate::relay::settings::Settings;
    /// Chunks written around what is relayed.
    pub mod rechunk {
        pub use crate::relay::pump::rechunk::{HEAD_ROOM, TAIL_ROOM, chunk, decode};
    }
}
/// The choice of an upstream.
pub mod routing {
    pub use crate::routing::health::Healths;
}
/// What a core has.
pub mod runtime {
    /// Blocks of memory.
    pub mod block {
        pub use crate::runtime::block::{BLOCK_BYTES, Pool};
    }
    /// Timers.
    pub mod wheel {
        pub use crate::runtime::wheel::{TICK_MS, Timed, Timer, Wheel};
    }
}
/// The built-in upstream.
pub mod simulator {
    pub use crate::simulator::Simulator;
}
/// Server-sent events.
pub mod sse {
    pub use crate::proto::sse::{HEARTBEAT, Scanner, write_event};
}
/// Durable streams.
pub mod streams {
    /// Compression.
    pub mod encode {
        pub use crate::streams::fanout::encode::{ENCODER_BYTES_MAX, Encoder, End, OVERHEAD_BYTES};
    }
    /// The log on disk.
    pub mod journal {
        pub use crate::streams::store::journal::{
            Fsync, Journal, Location, Opened, SEGMENT_BYTES_MIN, Settings, Wait, Waiters,
        };
    }
}
/// Ids and metrics.
pub mod telemetry {
    pub use crate::telemetry::{Ids, Registry};
}
/// The client of upstreams.
pub mod upstream {
    pub use crate::upstream::head_reader::{HEAD_SLACK, HeadReader};
}
