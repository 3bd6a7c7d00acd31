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
    pub use crate::cli::Command;
    pub use crate::cli::parse;
}
/// The configuration.
pub mod config {
    pub use crate::config::Breaker;
    pub use crate::config::Limits;
    pub use crate::config::Timeouts;
    pub use crate::config::load;
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
        pub use crate::proto::http1::chunked::ChunkDecoder;
        pub use crate::proto::http1::chunked::ChunkError;
        pub use crate::proto::http1::chunked::LAST_CHUNK;
        pub use crate::proto::http1::chunked::SIZE_LINE_BYTES;
        pub use crate::proto::http1::chunked::payloads;
        pub use crate::proto::http1::chunked::size_line;
    }
    /// Content codings.
    pub mod coding {
        pub use crate::proto::http1::coding::Coding;
    }
    /// Fields of heads.
    pub mod fields {
        pub use crate::proto::http1::fields::Field;
        pub use crate::proto::http1::fields::write_field;
    }
    /// Requests.
    pub mod request {
        pub use crate::proto::http1::request::FIELD_COUNT;
        pub use crate::proto::http1::request::HeadScanner;
        pub use crate::proto::http1::request::RequestBody;
        pub use crate::proto::http1::request::RequestHead;
        pub use crate::proto::http1::request::parse;
    }
    /// Responses.
    pub mod response {
        pub use crate::proto::http1::response::FIELD_COUNT;
        pub use crate::proto::http1::response::ResponseBody;
        pub use crate::proto::http1::response::find_head_end;
        pub use crate::proto::http1::response::parse;
    }
}
/// The APIs' requests and responses.
pub mod openai {
    pub use crate::proto::openai::FirstContent;
    pub use crate::proto::openai::Peek;
    pub use crate::proto::openai::PeekState;
    pub use crate::proto::openai::Sideband;
    pub use crate::proto::openai::Subject;
}
/// The relay of a request.
pub mod relay {
    pub use crate::relay::request::Request;
    pub use crate::relay::request::outbound_headers::Left;
    pub use crate::relay::settings::Settings;
    /// Chunks written around what is relayed.
    pub mod rechunk {
        pub use crate::relay::pump::rechunk::HEAD_ROOM;
        pub use crate::relay::pump::rechunk::TAIL_ROOM;
        pub use crate::relay::pump::rechunk::chunk;
        pub use crate::relay::pump::rechunk::decode;
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
        pub use crate::runtime::block::BLOCK_BYTES;
        pub use crate::runtime::block::Pool;
    }
    /// Timers.
    pub mod wheel {
        pub use crate::runtime::wheel::TICK_MS;
        pub use crate::runtime::wheel::Timed;
        pub use crate::runtime::wheel::Timer;
        pub use crate::runtime::wheel::Wheel;
    }
}
/// The built-in upstream.
pub mod simulator {
    pub use crate::simulator::Simulator;
}
/// Server-sent events.
pub mod sse {
    pub use crate::proto::sse::HEARTBEAT;
    pub use crate::proto::sse::Scanner;
    pub use crate::proto::sse::write_event;
}
/// Durable streams.
pub mod streams {
    /// Compression.
    pub mod encode {
        pub use crate::streams::fanout::encode::ENCODER_BYTES_MAX;
        pub use crate::streams::fanout::encode::Encoder;
        pub use crate::streams::fanout::encode::End;
        pub use crate::streams::fanout::encode::OVERHEAD_BYTES;
    }
    /// The log on disk.
    pub mod journal {
        pub use crate::streams::store::journal::Fsync;
        pub use crate::streams::store::journal::Journal;
        pub use crate::streams::store::journal::Location;
        pub use crate::streams::store::journal::Opened;
        pub use crate::streams::store::journal::SEGMENT_BYTES_MIN;
        pub use crate::streams::store::journal::Settings;
        pub use crate::streams::store::journal::Wait;
        pub use crate::streams::store::journal::Waiters;
    }
}
/// Ids and metrics.
pub mod telemetry {
    pub use crate::telemetry::Ids;
    pub use crate::telemetry::Registry;
}
/// The client of upstreams.
pub mod upstream {
    pub use crate::upstream::head_reader::HEAD_SLACK;
    pub use crate::upstream::head_reader::HeadReader;
}
