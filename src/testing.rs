//! The few parts of the crate that benchmarks, fuzz targets and black-box tests drive directly. No API: it changes with them.

/// The command line.
pub mod cli {
    pub use crate::cli::{Command, parse};
}
/// The configuration.
pub mod config {
    pub use crate::config::{Breaker, Limits, Timeouts, load};
}
/// Keys and rates.
pub mod guard {
    pub use crate::guard::sha256_hex;
    /// What a key or a route has used.
    pub mod meters {
        pub use crate::guard::meters::Meters;
    }
}
/// HTTP/1.1.
pub mod http {
    pub use crate::http::Version;
    /// Bodies.
    pub mod body {
        pub use crate::http::body::BodyDecoder;
    }
    /// The chunked transfer coding.
    pub mod chunked {
        pub use crate::http::chunked::{
            ChunkDecoder, ChunkError, LAST_CHUNK, SIZE_LINE_BYTES, payloads, size_line,
        };
    }
    /// Content codings.
    pub mod coding {
        pub use crate::http::coding::Coding;
    }
    /// Fields of heads.
    pub mod fields {
        pub use crate::http::fields::{Field, write_field};
    }
    /// Requests.
    pub mod request {
        pub use crate::http::request::{FIELD_COUNT, HeadScanner, RequestBody, RequestHead, parse};
    }
    /// Responses.
    pub mod response {
        pub use crate::http::response::{FIELD_COUNT, ResponseBody, find_head_end, parse};
    }
}
/// Ids and metrics.
pub mod observe {
    pub use crate::observe::{Ids, Registry};
}
/// The conversation APIs.
pub mod openai {
    pub use crate::openai::{FirstContent, Peek, PeekState, Sideband, Subject};
}
/// The relay.
pub mod relay {
    /// Chunks written around what is relayed.
    pub mod framing {
        pub use crate::relay::framing::{HEAD_ROOM, TAIL_ROOM, chunk, decode};
    }
    /// Heads of responses, in pieces.
    pub mod head_reader {
        pub use crate::relay::head_reader::{HEAD_SLACK, HeadReader};
    }
    /// Requests.
    pub mod request {
        pub use crate::relay::request::Request;
    }
    /// What an upstream is sent.
    pub mod sending {
        pub use crate::relay::sending::Left;
    }
    /// What a configuration has become.
    pub mod settings {
        pub use crate::relay::settings::Settings;
    }
}
/// What a core has.
pub mod shard {
    /// Blocks of memory.
    pub mod block {
        pub use crate::shard::block::{BLOCK_BYTES, Pool};
    }
    /// Timers.
    pub mod wheel {
        pub use crate::shard::wheel::{TICK_MS, Timed, Timer, Wheel};
    }
}
/// The built-in upstream.
pub mod simulator {
    pub use crate::simulator::Simulator;
}
/// Server-sent events.
pub mod sse {
    pub use crate::sse::{HEARTBEAT, Scanner, write_event};
}
/// Durable streams.
pub mod stream {
    /// Compression.
    pub mod encode {
        pub use crate::stream::encode::{ENCODER_BYTES_MAX, Encoder, End, OVERHEAD_BYTES};
    }
    /// The log on disk.
    pub mod journal {
        pub use crate::stream::journal::{
            Fsync, Journal, Location, Opened, SEGMENT_BYTES_MIN, Settings, Wait, Waiters,
        };
    }
}
/// Upstreams.
pub mod upstream {
    /// Health of upstreams.
    pub mod health {
        pub use crate::upstream::health::Healths;
    }
}
