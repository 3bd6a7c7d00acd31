//! Where a body ends, whichever way its head framed it.

use super::chunked::{ChunkDecoder, ChunkError, Decoded, Whole};
use super::request::RequestBody;
use super::response::ResponseBody;

/// Reads one body to its end and not a byte further.
#[derive(Clone, Copy, Debug)]
pub enum BodyDecoder {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked(ChunkDecoder),
    /// All that comes until the peer closes; only the caller sees that end.
    Close,
}

impl BodyDecoder {
    /// Moves the payload in `buf` to its front, and stops where the body ends.
    #[inline]
    pub fn decode_in_place(&mut self, buf: &mut [u8]) -> Result<Decoded, ChunkError> {
        let payload = match self {
            Self::None => 0,
            Self::Length(remaining) => {
                let n = (*remaining).min(buf.len() as u64);
                *remaining -= n;
                n as usize
            }
            Self::Chunked(decoder) => return decoder.decode_in_place(buf),
            Self::Close => buf.len(),
        };
        Ok(Decoded { payload, consumed: payload, ended: self.finished() })
    }

    /// Whether the body has ended. A body that ends by close never says so.
    #[inline]
    pub fn finished(&self) -> bool {
        match self {
            Self::None | Self::Length(0) => true,
            Self::Length(_) | Self::Close => false,
            Self::Chunked(decoder) => decoder.finished(),
        }
    }

    /// Whether `buf` is complete plain chunks of a chunked body, see [`ChunkDecoder::whole`].
    #[inline]
    pub fn whole(&mut self, buf: &[u8]) -> Option<Whole> {
        match self {
            Self::Chunked(decoder) => decoder.whole(buf),
            Self::None | Self::Length(_) | Self::Close => None,
        }
    }
}

impl From<RequestBody> for BodyDecoder {
    fn from(body: RequestBody) -> Self {
        match body {
            RequestBody::None => Self::None,
            RequestBody::Length(length) => Self::Length(length),
            RequestBody::Chunked => Self::Chunked(ChunkDecoder::new()),
        }
    }
}

impl From<ResponseBody> for BodyDecoder {
    fn from(body: ResponseBody) -> Self {
        match body {
            ResponseBody::None => Self::None,
            ResponseBody::Length(length) => Self::Length(length),
            ResponseBody::Chunked => Self::Chunked(ChunkDecoder::new()),
            ResponseBody::Close => Self::Close,
        }
    }
}
